"""LAD-TS from Python: train it on a small overloaded system, save it, and play it on arrivals that it has not seen.

A few seconds of training are enough to see it learn, not to judge it. From the command line, on the paper's system:
`diffpolicy train lad-ts --episodes 500`.
"""

from __future__ import annotations

import tempfile

import torch

from diffpolicy.edge import Scenario, evaluate
from diffpolicy.edge.training import train


def main() -> None:
    torch.set_num_threads(1)
    scenario = Scenario.load("lad-ts").override(stations=4, slots=20)
    print(f"{len(scenario.servers)} servers, {scenario.slots} slots, load {scenario.load_factor():.2f}")
    with tempfile.TemporaryDirectory() as folder:
        fitted = train("lad-ts", scenario, episodes=12, out=folder)
        for first in range(0, fitted.episodes, 4):
            delays = [row["delay_s"] for row in fitted.history[first : first + 4]]
            print(f"training episodes {first + 1:3} to {first + 4:3}: mean delay {sum(delays) / len(delays):6.3f} s")
        evaluation = evaluate([folder, "opt-ts", "capacity-proportional", "random"], scenario, episodes=4)
    print(f"4 evaluation episodes, load {evaluation.load:.2f}:")
    for name, result in evaluation.results.items():
        name = "lad-ts, trained" if name == folder else name
        print(f"  {name:22} {result.delays.mean_delay_s:6.3f} s, ratio to opt-ts {result.ratio:.3f}")


if __name__ == "__main__":
    main()
