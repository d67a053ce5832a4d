r"""
Profile a GPU server
====================

How long does an image take on your machine? And if you have three machines, which should make which image?

In this lesson you measure a server, fit a formula to its times, make a :term:`scenario` of three such servers, and
compare :term:`rules <rule>` on it. The servers here are simulated, so that the page builds anywhere. Change one line
for a real GPU, and one for a server behind a URL.
"""

# %%
# Measure
# -------
#
# An *adapter* is what is asked for images: here one that takes its times from a published measurement of an H100
# running Stable Diffusion 3, with some scatter. The *grid* says what is asked: how many denoising steps, which sizes,
# how often.

from diffpolicy.edge.hardware import Grid, SimulatedAdapter, profile

grid = Grid(steps=(10, 20, 30), sizes=((1024, 1024),), repeats=7)
h100 = profile(SimulatedAdapter("mlenergy-h100-sd3-medium", scatter_sigma=0.05), grid)
law = h100.fit.sizes[0]
constant_s = h100.fit.text_s + law.decode_s
print(f"seconds of an image = {constant_s:.3f} + steps x {law.step_s:.4f}, R2 {h100.fit.r2:.4f}")

# %%
# The published figures are only of whole calls, so the constant is zero here. On your own machine it is the text's
# encoding and the picture's decoding. R2 near 1 says that the formula fits. Under 0.9, measure again on an idle
# machine. Every call that was made, and the formula:

import matplotlib.pyplot as plt

server = SimulatedAdapter("mlenergy-a100-sd3-medium", scatter_sigma=0.05, seed=1)
a100 = profile(server, grid)
figure, axes = plt.subplots(figsize=(7, 3.8), layout="constrained")
for name, measured, colour in (("A100", a100, "#d55e00"), ("H100", h100, "#0072b2")):
    for point in measured.points:
        calls = point.latency_s.values
        axes.plot([point.steps] * len(calls), calls, "o", color=colour, alpha=0.5)
    times = [measured.service_s(1024, 1024, steps) for steps in (0, 32)]
    axes.plot((0, 32), times, color=colour, label=f"{name}: the law")
axes.set(xlabel="denoising steps", ylabel="seconds of a call", xlim=(0, 32), ylim=(0, None))
axes.grid(alpha=0.3)
axes.legend(frameon=False)

# %%
# A profile is a file, so you measure a machine only once:

from pathlib import Path

Path("runs/servers").mkdir(parents=True, exist_ok=True)
h100.save("runs/servers/h100.json")
a100.save("runs/servers/a100.json")

# %%
# On your own machine
# -------------------
#
# * **A GPU.** ``pip install '.[hardware]'``, then another adapter, and all else as above. The model is built from its
#   published architecture with random weights, so nothing is downloaded; times do not depend on weights.
#
#   .. code-block:: python
#
#       from diffpolicy.edge.hardware import DiffusersAdapter
#
#       h100 = profile(DiffusersAdapter("sd3-medium", device="cuda:0"), grid)
#
# * **A server behind a URL** that speaks OpenAI's images API. Its times include the network.
#
#   .. code-block:: python
#
#       from diffpolicy.edge.hardware import HttpAdapter
#
#       h100 = profile(HttpAdapter("http://127.0.0.1:8000"), grid)
#
# * **As commands:**
#
#   .. code-block:: console
#
#       $ diffpolicy profile --model sd3-medium --grid 'steps=10,20,30;sizes=1024' --out h100.json
#       $ diffpolicy profile --url http://127.0.0.1:8000 --grid 'sizes=1024' --out remote.json
#       $ diffpolicy profile --model tiny --device cpu --out tiny.json   # tries it all on any machine
#
# :doc:`/profiling` says what else is measured: memory, energy, cold start, batches.
#
# From profiles to a scenario
# ---------------------------
#
# :py:func:`~diffpolicy.edge.hardware.calibrate` puts the servers behind one dispatcher. Requests come at random, at a
# :term:`load` of 0.8. They ask for what was measured.

from diffpolicy.edge.hardware import ServerProfile, calibrate

servers = [ServerProfile.load(f"runs/servers/{name}.json") for name in ("h100", "a100", "a100")]
scenario = calibrate(servers, load=0.8, slots=200)
for server in scenario.servers:
    print(f"{server.name:28} {server.capacity_gcycles_per_s:.2f} times the first one")
print(f"{scenario.workload.rate_per_s:.2f} requests a second")

# %%
# Compare
# -------
#
# All policies play the same requests. ``opt-ts`` sends each where it is done first. ``price`` and ``pretrained:live``
# also count those who will wait behind it (:doc:`/deciding`); they have never seen these servers.

import json

Path("runs/servers/fleet.json").write_text(json.dumps(scenario.to_dict()))

from diffpolicy.cli import main as cli

cli.main(
    [
        *"evaluate opt-ts price pretrained:live".split(),
        *"least-work weighted-round-robin power-of-two random".split(),
        *"--scenario runs/servers/fleet.json --eval-episodes 8 --quiet --out runs/servers".split(),
    ]
)
cli.main("plot runs/servers/evaluation.csv --format svg".split())

# %%
# Left of 1 is better than the greedy rule. ``weighted-round-robin``, which looks at no queue, loses little, since the
# profiles told it how fast each server is. ``random`` does not know that, and loses most.
#
# Next: :doc:`from_a_csv` takes your own requests in place of random ones. :doc:`/calibrating` covers servers that load
# models, batch, or fail, and compares the simulator with real workers.
