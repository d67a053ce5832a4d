"""Learning curves of the paper's methods: means of blocks of ten training episodes over the seeds.

Trains them itself, as `diffpolicy compare` does, and ends at the limit of time with what there is by then:

    python benchmarks/curves.py --episodes 150 --seeds 3 --jobs 16 --minutes 4 --out docs/_static/paper_curves.csv

or reads what a comparison has written:

    python benchmarks/curves.py --read runs/full/learning_curves.csv --out runs/full/blocks.csv
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from statistics import fmean

import pictures
from timing import write_csv

METHODS = "lad-ts,lad-ts-released,d2sac-ts,sac-ts,dqn-ts"
BLOCK = 10


def blocks(rows: list[dict[str, str]]) -> list[list[str]]:
    """Rows of a file of blocks, its header first. Args: rows: of `learning_curves.csv`.

    A block that not every seed has finished is left out, so that each point is a mean over the same seeds.
    """
    column = list(rows[0])[list(rows[0]).index("episode") + 1]
    end = [rows[0]["baseline"], rows[0]["measure"]]
    lines = [["method", "kind", "first_episode", "last_episode", column, "seeds", "baseline", "measure"]]
    for name in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == name]
        if not mine[0]["episode"]:  # a rule: the mean of its evaluation
            lines.append([name, mine[0]["kind"], "", "", f"{float(mine[0][column]):.3f}", "", *end])
            continue
        seeds = len({row["seed"] for row in mine})
        played = [(int(float(row["episode"])), float(row[column])) for row in mine]
        for first in range(1, max(k for k, _ in played) + 1, BLOCK):
            costs = [cost for k, cost in played if first <= k < first + BLOCK]
            if len(costs) == BLOCK * seeds:
                last = str(first + BLOCK - 1)
                lines.append([name, mine[0]["kind"], str(first), last, f"{fmean(costs):.2f}", str(seeds), *end])
    return lines


def trained(options: argparse.Namespace, started: float) -> Path:
    """The `learning_curves.csv` of a comparison of its own. Args: options: parsed. started: of `time.monotonic`."""
    from diffpolicy.edge import OffloadingProblem
    from diffpolicy.experiments import Plan, compare

    plan = Plan(
        OffloadingProblem("lad-ts"),
        methods=options.methods.split(","),
        out=options.runs,
        episodes=options.episodes,
        seeds=options.seeds,
        seconds=60 * options.minutes,
        processes=options.jobs,
        policies=(),
    )
    compare(plan, lambda text: print(text, flush=True), started)
    return options.runs / "learning_curves.csv"


def main() -> None:
    """Writes the file and its picture."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--read", type=Path, help="a comparison's learning_curves.csv, instead of training")
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--episodes", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    parser.add_argument("--minutes", type=float, default=240.0, help="for all of it")
    parser.add_argument("--runs", type=Path, default=Path("runs/curves"), help="folder of the comparison")
    parser.add_argument("--out", type=Path, default=Path("runs/paper_curves.csv"))
    options = parser.parse_args()
    with (options.read or trained(options, started)).open(newline="", encoding="utf-8") as file:
        lines = blocks(list(csv.DictReader(file)))
    write_csv(options.out, lines)
    if any(line[2] for line in lines[1:]):  # where time ended before the first block there is nothing to draw
        pictures.write(options.out)
    print(f"{options.out}: {len(lines) - 1} rows, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
