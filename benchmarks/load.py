"""Every rule and the bundled policies at several loads: the ratio of the mean delay to that of the greedy rule.

python benchmarks/load.py --out docs/_static/load.csv && diffpolicy plot docs/_static/load.csv
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import torch

from diffpolicy.edge import Scenario, evaluate
from diffpolicy.edge.names import HEURISTIC_NAMES
from diffpolicy.edge.problem import BUNDLED
from timing import table

COLUMNS = [
    *("load", "tasks", "policy", "kind", "episodes", "mean_delay_s", "ci95_s", "p99_delay_s"),
    *("ratio", "ratio_lo", "ratio_hi", "baseline", "measure"),
]


def rows_of(tasks: int, episodes: int) -> list[list[object]]:
    """A row a policy, on `lad-ts` with up to so many tasks a station and slot."""
    found = evaluate([*HEURISTIC_NAMES, *BUNDLED], Scenario.load("lad-ts").override(tasks=tasks), episodes=episodes)
    rows: list[list[object]] = []
    for name, result in found.results.items():
        kind = "pretrained" if name in BUNDLED else "heuristic"
        figures = [result.costs.mean, result.ci95, result.costs.p99, result.ratio, *(result.ratio_ci95 or ("", ""))]
        rows.append([found.load, tasks, name, kind, episodes, *figures, found.baseline, "delay, s"])
    return rows


def main() -> None:
    """Plays, prints and writes; after each load, so that what is there can be drawn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=[10, 20, 30, 40, 50, 60, 70])
    parser.add_argument("--episodes", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("runs/load.csv"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[list[object]] = []
    for tasks in options.tasks:
        rows += rows_of(tasks, options.episodes)
        with options.out.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(
                [COLUMNS, *sorted(rows, key=lambda row: float(str(row[0])))]
            )
        shown = [[str(row[2]), f"{row[5]:.3f}", f"{row[8]:.3f}"] for row in rows if row[1] == tasks]
        print(table([f"{tasks} tasks, load {rows[-1][0]:.2f}", "mean s", "ratio"], shown), flush=True)


if __name__ == "__main__":
    main()
