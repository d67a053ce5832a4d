"""A chain and its students of one pass on `power-allocation`: what each loses, and how fast each decides.

python benchmarks/distilling.py --seeds 3 --seconds 16 --csv docs/_static/distilling.csv
python benchmarks/distilling.py --seeds 1 --seconds 10 --csv runs/distilling.csv

A seed is one teacher, `d2sac` of the steps that are asked for, trained for the seconds of processor time, and of it a
student by `distill` and one by its control `distill-plain`, each trained for half of them on what the teacher plays.
All are judged on the same episodes, without chance, and their decisions are timed by turns on one thread. The file has
a row a policy and seed, and what is in it already is not done again; the table that is printed lies beside it, with
`_table` in its name.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import tempfile
import time
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torchrl.envs.utils import ExplorationType, set_exploration_type

from diffpolicy.experiments import evaluate, make_problem, train
from ending import EndsAfter
from timing import interleaved, machine, table, write_csv

PROBLEM, BEST, WORST = "power-allocation", "water-filling", "random"
COLUMNS = ("policy", "seed", "steps", "episodes", "cost", "score", "us alone", "us of 64", "seconds")
TIMES = ("one decision, µs", "64 decisions, µs", "times as fast")
SUMMARY = ("policy", "passes", "seeds", "lost rate, %", "standard error", "score", *TIMES)
TEACHER, STUDENTS = "d2sac", ("distill", "distill-plain")
OF_TEACHER = {"updates": 4, "batch_size": 256, "start_after": 1000, "tau": 0.02}
OF_STUDENTS = {"updates": 8}
LANES, EPISODES, ALONE, MANY, NO_END = 32, 64, 1, 64, 10**6


def of_seed(seed: int, seconds: float, steps: int) -> list[list[str]]:
    """The rows of a teacher and its students. Args: seconds: of the teacher's training. steps: of its chain."""
    problem = make_problem(PROBLEM)
    learn = partial(train, problem, episodes=NO_END, environments=LANES, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        teacher = str(Path(folder) / "teacher")
        changes: dict[str, Any] = {**OF_TEACHER, "steps": steps}
        made = {TEACHER: learn(TEACHER, callbacks=[EndsAfter(seconds)], changes=changes, out=teacher)}
        for student in STUDENTS:
            changes = {**OF_STUDENTS, "teacher": teacher}
            made[student] = learn(student, callbacks=[EndsAfter(seconds / 2)], changes=changes)
    policies = {name: fitted.policy for name, fitted in made.items()}
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        played = [
            evaluate(problem, asked, episodes=EPISODES, seed=10_000 + seed) for asked in ([WORST, BEST], policies)
        ]
    costs = {name: result.costs.mean for each in played for name, result in each.results.items()}
    alone, many = (microseconds(problem, policies, rows) for rows in (ALONE, MANY))
    rows = []
    for name, fitted in made.items():
        score = (costs[WORST] - costs[name]) / (costs[WORST] - costs[BEST])
        passes = steps if name == TEACHER else 1
        told = (f"{costs[name]:.5g}", f"{score:.4f}", f"{alone[name]:.0f}", f"{many[name]:.0f}")
        given = seconds if name == TEACHER else seconds / 2
        rows.append([name, str(seed), str(passes), str(fitted.episodes), *told, f"{given:g}"])
    return rows


def microseconds(problem: Any, policies: Mapping[str, Any], rows: int) -> dict[str, float]:
    """Of a call of each, by turns, with chance as when they are served. Args: rows: decided in a call."""
    td = problem.make_env(rows, 0).reset()
    with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
        calls = {name: partial(policy, td) for name, policy in policies.items()}
        found = interleaved(calls, rounds=15, clock=time.thread_time)
    return {name: 1e6 * seconds for name, seconds in found.items()}


def summary(rows: list[list[str]]) -> list[list[str]]:
    """Means over seeds, a row a policy, the teacher first. Args: rows: of the file."""
    groups = {name: [row for row in rows if row[0] == name] for name in (TEACHER, *STUDENTS)}
    groups = {name: each for name, each in groups.items() if each}
    lines = []
    for name, each in groups.items():
        cost, score, alone, many = ([float(row[k]) for row in each] for k in (4, 5, 6, 7))
        error = stdev(cost) / math.sqrt(len(cost)) if len(cost) > 1 else math.nan
        faster = mean(float(row[6]) for row in groups[TEACHER]) / mean(alone) if TEACHER in groups else math.nan
        told = (f"{mean(cost):.3g}", f"{error:.2g}", f"{mean(score):.4f}", f"{mean(alone):.0f}", f"{mean(many):.0f}")
        lines.append([name, each[0][2], str(len(each)), *told, f"{faster:.2f}"])
    return lines


def main() -> None:
    """Trains what is missing, writes the rows of each seed as they come, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=40.0, help="of a teacher; a student has half of it")
    parser.add_argument("--steps", type=int, default=5, help="of the teacher's chain")
    parser.add_argument("--csv", type=Path, required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    options.csv.parent.mkdir(parents=True, exist_ok=True)
    rows = list(csv.reader(options.csv.open()))[1:] if options.csv.exists() else []
    for seed in sorted(set(range(options.seeds)) - {int(row[1]) for row in rows}):
        rows += of_seed(seed, options.seconds, options.steps)
        parts = {"": [list(COLUMNS), *rows], "_table": [list(SUMMARY), *summary(rows)]}
        for ending, lines in parts.items():
            write_csv(options.csv.with_name(f"{options.csv.stem}{ending}.csv"), lines)
        print(*itertools.chain.from_iterable(", ".join(row) + "\n" for row in rows[-3:]), sep="", end="", flush=True)
    print(table(list(SUMMARY), summary(rows)))
    print(machine())


if __name__ == "__main__":
    main()
