"""Means of blocks of ten training episodes over the seeds: what is kept of a long comparison's learning curves.

diffpolicy compare --full --compile --methods lad-ts,lad-ts-released,d2sac-ts,sac-ts,dqn-ts --out runs/full
python benchmarks/curves.py runs/full/learning_curves.csv --out docs/_static/full_curves.csv
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from statistics import fmean

import pictures

KEPT = (1, 11, 21, 31, 41, 51, 91, 141, 191, 291, 491)
"""First episodes of the blocks."""
BLOCK = 10


def blocks(rows: list[dict[str, str]]) -> list[list[str]]:
    """Rows of a file of blocks, its header first. Args: rows: of `learning_curves.csv`."""
    column = list(rows[0])[list(rows[0]).index("episode") + 1]
    end = [rows[0]["baseline"], rows[0]["measure"]]
    lines = [["method", "kind", "first_episode", "last_episode", column, "seeds", "baseline", "measure"]]
    for name in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == name]
        if not mine[0]["episode"]:  # a rule: the mean of its evaluation
            lines.append([name, mine[0]["kind"], "", "", f"{float(mine[0][column]):.3f}", "", *end])
            continue
        seeds = len({row["seed"] for row in mine})
        for first in KEPT:
            costs = [float(row[column]) for row in mine if first <= int(float(row["episode"])) < first + BLOCK]
            if len(costs) == BLOCK * seeds:
                last = str(first + BLOCK - 1)
                lines.append([name, mine[0]["kind"], str(first), last, f"{fmean(costs):.2f}", str(seeds), *end])
    return lines


def main() -> None:
    """Writes the file and its picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("curves", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/full_curves.csv"))
    options = parser.parse_args()
    with options.curves.open(newline="", encoding="utf-8") as file:
        lines = blocks(list(csv.DictReader(file)))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)
    pictures.write(options.out)


if __name__ == "__main__":
    main()
