"""Rules on identical arrivals, at two loads: which information is worth what.

The same from the command line: `diffpolicy evaluate opt-ts least-work-own ... --tasks 25 --eval-episodes 2`.
"""

from __future__ import annotations

import torch

from diffpolicy.edge import Scenario, evaluate

RULES = ["opt-ts", "least-work-own", "capacity-proportional", "slot-greedy", "random"]


def main() -> None:
    torch.set_num_threads(1)
    paper = Scenario.load("lad-ts")
    print(f"{'mean delay, s (ratio to opt-ts)':34}", *(f"{rule:>22}" for rule in RULES))
    for tasks in (25, 50):
        scenario = paper.override(tasks=tasks)
        evaluation = evaluate(RULES, scenario, episodes=2)
        cells = (f"{result.delays.mean_delay_s:13.3f} ({result.ratio:6.3f})" for result in evaluation.results.values())
        print(f"at most {tasks} tasks, load {evaluation.load:4.2f}         ", *cells)


if __name__ == "__main__":
    main()
