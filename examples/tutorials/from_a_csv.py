r"""
From a CSV of requests to the right rule
========================================

You have a log of requests and a few GPU servers. Each request goes to one of them. By which :term:`rule`?

After this lesson, in ten minutes, you have an answer for *your* log and *your* servers: a table of all rules, a
picture of who gains, and the name of one rule. Nothing needs to be trained.
"""

# %%
# The log
# -------
#
# Your log is a CSV with a row for each request. This one is made up: a shop that asks for product pictures. Requests
# come in bursts, as they do in real logs. Four in five ask for 4 :term:`steps <step>` of a fast model, the others for
# 30 steps of a large one.

import csv
import random
from datetime import datetime, timedelta
from pathlib import Path

Path("runs/shop").mkdir(parents=True, exist_ok=True)
chance, now = random.Random(0), datetime(2026, 3, 2, 9)
with open("runs/shop/log.csv", "w", newline="") as file:
    log = csv.writer(file)
    log.writerow(["when", "net", "n_steps"])
    while now < datetime(2026, 3, 2, 9, 20):
        now += timedelta(seconds=chance.expovariate(1 / 60))  # a burst begins
        for _ in range(chance.randint(5, 60)):
            now += timedelta(seconds=chance.expovariate(1.5))
            log.writerow(
                [now.isoformat(sep=" "), *(["flux", 4] if chance.random() < 0.8 else ["sdxl", 30])]
            )

print(*Path("runs/shop/log.csv").read_text().splitlines()[:4], sep="\n")

# %%
# :py:func:`~diffpolicy.edge.workload.traces.readers.read_csv` is told which of its columns is what:

from diffpolicy.edge.workload.traces.readers import read_csv

columns = {"arrival_s": "when", "model": "net", "steps": "n_steps"}
trace = read_csv("runs/shop/log.csv", columns, unit="datetime")
print(
    f"{len(trace)} requests, {trace.rate_per_s():.2f} in a second; "
    f"coefficient of variation {trace.gap_cv():.1f}"
)

# %%
# The coefficient of variation is that of the gaps between two requests. It is 1 if customers are independent; if it is
# larger, requests come in bursts.
#
# The servers
# -----------
#
# A :term:`scenario` is your fleet. *Work* has the unit that you choose. Here it is a second of the large server,
# so a server's :term:`capacity` says how many times as fast as that it is. ``stations=(None,)`` is one dispatcher
# in front of all of them.

from diffpolicy.edge import Scenario, Server

fleet = Scenario(
    slot_s=1.0,
    servers=(
        Server(1.0, 1000.0, name="large"),
        Server(0.6, 1000.0, name="middle"),
        Server(0.6, 1000.0, name="middle too"),
        Server(0.2, 1000.0, name="old"),
    ),
    stations=(None,),
)

# %%
# A step of ``sdxl`` takes the large server 0.25 s, one of ``flux`` 0.7 s. If you do not know yours,
# :doc:`profile_a_server` measures them. With these times the log becomes a file of :term:`tasks <task>`:


def work_of_a_step(trace):
    return [{"sdxl": 0.25, "flux": 0.7}[model] for model in trace.model]


trace.to_tasks("runs/shop/tasks.csv", stations=1, gcycles_per_step=work_of_a_step)
print(f"load {trace.load(fleet.capacity_gcycles_per_s, work_of_a_step):.2f}")

# %%
# The :term:`load` is the work that comes over the work that the fleet can do. Above 1 no rule helps: you need more
# servers.
#
# All rules on your log
# ---------------------
#
# :py:func:`~diffpolicy.edge.replay` plays the file once under a rule. ``pretrained:live`` is a trained
# :term:`policy` that comes with the package, made for any fleet (:doc:`/deciding`). ``local`` is left out: here no
# server stands where the requests come from.

from diffpolicy.edge import HEURISTICS, TaskList, make_policy, replay

tasks = TaskList.read("runs/shop/tasks.csv", fleet)
names = [*(name for name in HEURISTICS if name != "local"), "pretrained:live"]
replays = {name: replay(fleet, tasks, make_policy(name, fleet), name=name) for name in names}
means = {name: played.delay_s.mean() for name, played in replays.items()}
for name in sorted(means, key=means.get):
    seconds = replays[name].to_dict()
    print(f"{name:22} mean {seconds['mean_delay_s']:6.2f} s   p95 {seconds['p95_delay_s']:6.2f} s")

# %%
# Who gains, who pays
# -------------------
#
# A rule may lower the mean and let a few wait very long. The sorted delays of all requests show that: the further left
# a line is, the better, and its top is those who wait longest.

import matplotlib.pyplot as plt
import numpy as np

looks = {
    "pretrained:live": ("#d55e00", "-"),
    "price": ("#009e73", "-."),
    "opt-ts": ("#000000", "--"),
    "weighted-round-robin": ("#767676", "-."),
    "round-robin": ("#c98a00", ":"),
}
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for name, (colour, line) in looks.items():
    delays = np.sort(replays[name].delay_s)
    share = 100 * np.arange(1, len(delays) + 1) / len(delays)
    axes.plot(delays, share, color=colour, linestyle=line, label=name)
axes.set(xscale="log", xlabel="delay of a request, s", ylabel="requests that wait no longer, %")
axes.grid(alpha=0.3)
axes.legend(frameon=False)

# %%
# Is it chance?
# -------------
#
# One log is one sample. A scenario whose :term:`workload` is the file cuts :term:`episodes <episode>` out of it, so
# that the differences have an interval. It needs ``slots``, the number of requests of an episode:

import json

path = Path("runs/shop/fleet.json")
path.write_text(
    json.dumps({**fleet.to_dict(), "slots": 60, "workload": {"kind": "trace", "file": "tasks.csv"}})
)

from diffpolicy.cli import main as cli

cli.main(
    [
        *"evaluate opt-ts price pretrained:live".split(),
        *"weighted-round-robin power-of-two round-robin".split(),
        *"--scenario runs/shop/fleet.json --eval-episodes 12 --quiet --out runs/shop".split(),
    ]
)
cli.main("plot runs/shop/evaluation.csv --format svg".split())

# %%
# ``opt-ts`` is the greedy rule: each request goes where it is done first. Below 1 is better than that.
#
# Which one?
# ----------
#
# Go down this list, and stop at the first line that is true of you:
#
# 1. *Whoever decides knows the queue of every server.* Take the one that is ahead in the picture. With these four
#    servers and these bursts that is ``opt-ts``. Look at your own: on larger fleets, and where arrivals are steadier,
#    ``price`` and ``pretrained:live`` are ahead (:doc:`profile_a_server`, :doc:`/deciding`). If the slowest hundredth
#    matters more than the mean, compare ``p99``.
# 2. *It knows how fast the servers are, and no queue.* Take ``weighted-round-robin``.
# 3. *It knows nothing.* Then find out how fast they are: the last line of the table is what ``round-robin`` costs.
#
# The same as commands
# --------------------
#
# .. code-block:: console
#
#     $ diffpolicy tasks log.csv --trace-format csv --columns arrival_s=when,model=net,steps=n_steps --unit datetime \
#         --scenario fleet.json --out tasks.csv
#     $ diffpolicy replay --scenario fleet.json --task-file tasks.csv --policy pretrained:live
#     $ diffpolicy evaluate opt-ts price pretrained:live --scenario fleet.json --out runs/shop
#
# Here every step is the same work, ``--gcycles-per-step``. :doc:`/workloads` says which other logs can be read, and
# :doc:`/calibrating` how to describe servers that load models, batch, or fail.
#
# If your log says which server made each image, and when it was done, then it also tells how fast the servers are.
# ``diffpolicy advise`` needs nothing else: see :doc:`hold_or_bind`. :doc:`serve_a_policy` puts the rule to work.
