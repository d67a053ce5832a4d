"""The fluid's best fixed split of task sizes over servers under overload, at a short and a long horizon.

python benchmarks/fixed_split.py --csv docs/_static/fixed_split.csv      # a minute on one core
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from diffpolicy.edge import Scenario, make_policy, play_episodes
from diffpolicy.edge.bounds.fixed_split import best_static_split
from timing import table, write_csv

PROBLEMS: dict[str, dict[str, Any]] = {
    "lad-ts (50 tasks)": {},
    "60 tasks": {"tasks": 60},
    "70 tasks": {"tasks": 70},
    "capacities 10..20": {"capacity": (10, 20)},
}


def main() -> None:
    """Prints the ratios of the fluid's mean delay to that of opt-ts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slots", type=int, nargs="+", default=[59, 590])
    parser.add_argument("--episodes", type=int, default=16)
    parser.add_argument("--csv", type=Path, help="write a row for each problem and horizon there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines, rows = [], []
    for name, changes in PROBLEMS.items():
        cells = []
        for slots in options.slots:
            scenario = Scenario.load("lad-ts").override(slots=slots, **changes)
            greedy = play_episodes(scenario, make_policy("opt-ts", scenario), options.episodes).cost.mean()
            split = best_static_split(scenario)
            rows.append([name, slots, f"{split.mean_delay_s / greedy:.4f}", f"{split.residual:.2g}"])
            cells.append(f"{split.mean_delay_s / greedy:.3f} (residual {split.residual:.2g})")
        lines.append([name, f"{scenario.load_factor():.2f}", *cells])
    print(table(["ratio to opt-ts", "load", *(f"{t} slots" for t in options.slots)], lines))
    if options.csv:
        write_csv(options.csv, [["scenario", "slots", "ratio to opt-ts", "residual"], *rows])


if __name__ == "__main__":
    main()
