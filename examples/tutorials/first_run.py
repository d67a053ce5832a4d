"""
Your first run
==============

Three servers generate images, and three stations send them tasks. Which server should generate each image, so that
users wait least? This page plays two simple rules, trains a policy for a few seconds, and puts it beside them.
"""

# %%
# The problem
# -----------
#
# A :term:`scenario` is a fleet of servers with what arrives at it. Time goes in :term:`slots <slot>` of a second: tasks
# arrive as one begins. ``lad-ts`` is the paper's scenario: 20 servers, and up to 50 tasks a station and slot. Here it
# has three servers, up to 20 tasks a station and slot, and 20 slots, so that everything takes seconds.

from diffpolicy.edge import Scenario

scenario = Scenario.load("lad-ts").override(stations=3, slots=20, tasks=20)
print(f"load {scenario.load_factor():.2f}")
for server in scenario.servers:
    print(f"{server.capacity_gcycles_per_s:.0f} Gcycles/s")

# %%
# Work is counted in Gcycles. A task here has 0.2 to 3.7 of them, so the first server does some 35 tasks a second. The
# :term:`load` is the work that arrives over the work that the servers can do. Above 1, queues grow whatever the
# decisions are.
#
# Two rules
# ---------
#
# ``random`` draws a server for each task. ``opt-ts`` is greedy: it sends each task where it is done first. Both
# play the same arrivals.

from diffpolicy.edge import evaluate

rules = evaluate(["opt-ts", "random"], scenario, episodes=8)
for name, result in rules.results.items():
    print(f"{name}: {result.delays.mean_delay_s:.2f} s, {result.ratio:.2f} times opt-ts")

# %%
# A policy that learns
# --------------------
#
# ``lad-ts`` is the method of the paper: a *diffusion policy*, which makes each decision by denoising. Here it plays
# 20 training episodes, never those on which it is judged. The folder that is written holds the trained policy, its
# checkpoint and its history.

from diffpolicy.edge.training import train

run = train("lad-ts", scenario, episodes=20, out="runs/first", overwrite=True)

# %%
# Its mean delay falls from episode to episode:

import matplotlib.pyplot as plt

delays = [row["delay_s"] for row in run.history]
figure, axes = plt.subplots(figsize=(7, 3.5))
axes.plot(range(1, len(delays) + 1), delays, color="#0072B2", label="lad-ts, while it trains")
for name, style in (("random", ":"), ("opt-ts", "--")):
    axes.axhline(rules.results[name].delays.mean_delay_s, color="0.4", linestyle=style, label=name)
axes.set(
    xlabel="training episode",
    ylabel="mean delay, s",
    ylim=(0, None),
    xticks=range(0, len(delays) + 1, 5),
)
axes.legend(frameon=False)
figure.tight_layout()

# %%
# Beside the rules
# ----------------
#
# You can use the folder wherever a policy's name is expected. ``capacity-proportional`` is a rule that knows how fast
# each server is, and nothing else: it draws servers with chances in proportion. All play the same eight episodes:

evaluation = evaluate(["runs/first", "opt-ts", "capacity-proportional", "random"], scenario, episodes=8)
for name, result in evaluation.results.items():
    low, high = result.ratio_ci95
    print(f"{name:>22}: {result.delays.mean_delay_s:.2f} s, {low:.2f} to {high:.2f} times opt-ts")

# %%
# The two numbers are the ends of a 95 % interval over the episodes. If both are below 1, users wait less than under
# ``opt-ts``.
#
# The same on the command line
# ----------------------------
#
# .. code-block:: console
#
#     $ diffpolicy train lad-ts --stations 3 --slots 20 --tasks 20 --episodes 20 --out runs/first
#     $ diffpolicy evaluate runs/first opt-ts random --stations 3 --slots 20 --tasks 20 --eval-episodes 8
#
# Next: :doc:`/problem` says what exactly a delay is, :doc:`/methods` what the policy does when it decides, and
# :doc:`/extending` how your own problem takes the place of this one.
