r"""
Hold a request, or send it at once?
===================================

Every router sends a request to a server the moment it arrives. It could instead *hold* it until a server is free, and
choose then. Does that pay for *you*?

After this lesson you know what it gains, what takes the gain away, and what your own log says: ``diffpolicy serve
--log`` writes one, and ``diffpolicy advise`` reads it.
"""

# %%
# Three unlike servers
# --------------------
#
# The service and the simulator ask the same rule, so the simulator tells in a second what a service would do in
# hours. :py:class:`~diffpolicy.edge.dispatch.Arrivals` are requests: when each comes, and what it takes on each
# server, in seconds. Four sizes of images, on servers of speed 2, 1 and 0.5:

import numpy as np

from diffpolicy.edge.dispatch import Arrivals

SECONDS, SHARES, SPEEDS = (
    np.array([1.25, 2.8, 6.25, 19.7]),
    [0.15, 0.25, 0.45, 0.15],
    np.array([2.0, 1.0, 0.5]),
)


def requests(load, seed, count=5000):
    rng = np.random.default_rng(seed)
    work = rng.choice(SECONDS, count, p=SHARES)
    gap = (SECONDS @ SHARES) / SPEEDS.sum() / load  # mean seconds between two arrivals
    return Arrivals(np.cumsum(rng.exponential(gap, count)), work[:, None] / SPEEDS)


# %%
# When it pays
# ------------
#
# ``OnArrival`` sends a request at once to where it ends soonest: nothing that sends at once does much better.
# ``make_held`` holds. An *order* says who goes first when a server is free. It may be ``first-come``, or
# ``cost-minus-age``, which takes the short ones first but not for ever: each second that a request has waited counts
# for it.

from diffpolicy.edge.dispatch import OnArrival, make_held, simulate

RULES = {
    "sent at once": OnArrival("least-finish"),
    "held, first come": make_held("first-come"),
    "held, cost minus age": make_held("cost-minus-age:age=0.5"),
}


def played(rule, load, **options):
    """Mean and 99th percentile of the delays of two seeds, seconds."""
    delays = [simulate(requests(load, seed), RULES[rule], **options).delay_s for seed in range(2)]
    return np.mean([(d.mean(), np.quantile(d, 0.99)) for d in delays], 0)


loads = [0.2, 0.5, 0.7, 0.85, 0.95]
against_load = {rule: np.array([played(rule, load) for load in loads]) for rule in RULES}
for load, *rows in zip(loads, *against_load.values(), strict=True):
    print(
        f"load {load:.2f}:",
        "   ".join(f"{name} {row[0]:5.1f} s" for name, row in zip(RULES, rows, strict=True)),
    )

# %%
# What takes the gain away
# ------------------------
#
# A server that has to wait for its next request stands still meanwhile. That is :term:`dead time`: a call over the
# network, or the time until an engine says that it is done. Here it is shown in per cent of the mean service, at a
# load of .85:

shares = [0.0, 0.01, 0.02, 0.05, 0.1]
mean_s = (SECONDS @ SHARES) * len(SPEEDS) / SPEEDS.sum()
against_dead = {
    r: np.array([played(r, 0.85, dead_s=share * mean_s) for share in shares]) for r in RULES
}

# %%
# The picture: means, and the 99th percentile as thin lines. Above against the :term:`load`, below against dead time.

import matplotlib.pyplot as plt

looks = {
    "sent at once": ("#000000", "--"),
    "held, first come": ("#0072b2", "-."),
    "held, cost minus age": ("#d55e00", "-"),
}
figure, panels = plt.subplots(2, 1, figsize=(6, 7), layout="constrained", sharey=True)
for axes, xs, found, label in (
    (panels[0], loads, against_load, "load"),
    (panels[1], [100 * share for share in shares], against_dead, "dead time, % of the mean service"),
):
    for rule, (colour, line) in looks.items():
        axes.plot(xs, found[rule][:, 0], color=colour, linestyle=line, label=rule)
        axes.plot(xs, found[rule][:, 1], color=colour, linestyle=line, linewidth=0.8)
    axes.set(xlabel=label, yscale="log", ylabel="delay, s")
    axes.grid(alpha=0.3)
panels[0].legend(frameon=False)

# %%
# * **The load.** If nobody waits there is nothing to choose: holding pays from about a half on. At a low load it even
#   costs a little here, since a slow server is refused while a faster one is about to become free.
# * **Who goes first.** On unlike servers holding alone gains little; letting the short ones go first gains more. The
#   slowest hundredth pays for it if the weight of a second waited (``age``) is small.
# * **Dead time.** One per cent of the service costs some of the gain, three cost all of it. A request that is sent at
#   once waits at its server, so that server never stands still.
# * **Several dispatchers** that do not see each other take the gain away too: :doc:`/concepts/late_binding` has the
#   figures.
#
# What your own log says
# ----------------------
#
# Do not take our word for it. ``diffpolicy serve --log requests.csv`` adds a line for each request, under any rule.
# This log is of 1,000 requests on three emulated servers under ``least-outstanding``, which most routers have; they
# took 24 minutes on 26 November 2026:
#
# .. code-block:: console
#
#     $ diffpolicy worker --model emulate:mlenergy-h100-sd3-medium --port 8101 --queue 300
#     $ diffpolicy worker --model emulate:mlenergy-a100-sd3-medium --port 8102 --queue 300
#     $ diffpolicy worker --model emulate:mlenergy-a100-sd3-medium@0.5 --port 8103 --queue 300
#     $ diffpolicy serve --workers workers.json --policy least-outstanding --log requests.csv
#     $ diffpolicy bench-service http://127.0.0.1:8000 --requests 1000 --rate 0.713 --seed 1

with open("../../docs/_static/serve_log.csv") as file:
    print(*file.read().splitlines()[:4], sep="\n")

# %%
# ``advise`` estimates how long each kind of request takes on each server, and plays every rule on the same arrivals. It
# names one only where the log proves that it is better:

from diffpolicy.cli import main as cli

cli.main("advise ../../docs/_static/serve_log.csv".split())

# %%
# * *replayed with fitted times* is the log's own decisions, played by the simulator. Here it matches the log. If it is
#   far from the log, the model of your servers is wrong, and no rule is named.
# * The interval is of the gain. A rule whose interval includes zero has not been shown to be better.
# * The last line is for the day after: it says when to go back.
#
# From Python the same is :py:func:`~diffpolicy.edge.dispatch.advise`. Every rule has a *verdict*:

import diffpolicy.edge.dispatch as dispatch

advice = dispatch.advise(dispatch.RequestLog.read("../../docs/_static/serve_log.csv"))
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
shown = {name: verdict for name, verdict in advice.verdicts.items() if verdict.gain > -1}
for place, verdict in enumerate(shown.values()):
    colour = "#d55e00" if verdict.proven else "#767676"
    axes.plot([100 * verdict.low, 100 * verdict.high], [place, place], color=colour)
    axes.plot(100 * verdict.gain, place, "o", color=colour)
axes.axvline(0, color="#000000", linewidth=0.8)
axes.set(
    xlabel="mean delay saved, % (95 % interval)", yticks=range(len(shown)), yticklabels=list(shown)
)
axes.invert_yaxis()
axes.grid(alpha=0.3, axis="x")

# %%
# Orange: shown to be better. Now try the one that is named as :doc:`serve_a_policy` does, on a part of the requests:
#
# .. code-block:: console
#
#     $ diffpolicy serve --workers workers.json --binding free --order shortest-first:cap=6 --share 0.1
#
# :doc:`/advising` says how to read logs of other services, and how to ask about servers that you do not have yet.
