"""Rules and bundled policies on two task files of another law than their scenario's, written here and replayed.

python benchmarks/unseen.py --out runs/unseen              # some minutes on one core
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch

from diffpolicy.edge import Scenario, TaskList, make_policy, replay
from timing import table

RULES = ("opt-ts", "price", "pretrained:live", "pretrained:stale")
SIZES = ("input_mbit", "result_mbit", "gcycles_per_step", "steps")


class Law:
    """Log-normal steps, four kinds of work a step, and larger inputs and results than those of LAD-TS."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        steps, per_step = self.draw(100_000)
        self.mean_gcycles = float((steps * per_step).mean())

    def draw(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Steps and Gcycles a step of so many tasks."""
        steps = np.clip(self.rng.lognormal(1.6, 0.7, number).round(), 1, 40).astype(int)
        return steps, self.rng.choice([0.12, 0.2, 0.3, 0.45], number, p=[0.4, 0.3, 0.2, 0.1])

    def row(self, steps: int, per_step: float) -> list[str]:
        """The sizes of a task, in the order of `SIZES`."""
        return [f"{self.rng.uniform(1, 8):.3f}", f"{self.rng.uniform(0.5, 2):.3f}", str(per_step), str(int(steps))]


def write(path: Path, scenario: Scenario, law: Law) -> dict[str, Path]:
    """A file of slots, whose stations' tasks come interleaved, and one of single requests at a dispatcher."""
    capacity, stations = scenario.capacity_gcycles_per_s, len(scenario.stations)
    slots, times = [], []
    each = 0.79 * capacity / stations / law.mean_gcycles
    for t in range(59):
        counts = law.rng.poisson(each, stations)
        origin = law.rng.permutation(np.repeat(np.arange(stations), counts))
        steps, per_step = law.draw(len(origin))
        slots += [[str(t), str(b), *law.row(steps[i], per_step[i])] for i, b in enumerate(origin)]
    number = 8000
    arrival_s = np.cumsum(law.rng.exponential(law.mean_gcycles / capacity / 0.9, number))
    steps, per_step = law.draw(number)
    times = [[f"{arrival_s[i]:.5f}", "", *law.row(steps[i], per_step[i])] for i in range(number)]
    files = {"slots of 20 stations": path / "slots.csv", "single requests": path / "times.csv"}
    for file, name, rows in zip(files.values(), ("slot", "arrival_s"), (slots, times), strict=True):
        with file.open("w", newline="") as opened:
            csv.writer(opened, lineterminator="\n").writerows([[name, "origin", *SIZES], *rows])
    return files


def main() -> None:
    """Writes both files and prints the mean delays."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=20261125)
    parser.add_argument("--out", type=Path, default=Path("runs/unseen"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    scenario, lines = Scenario.load("lad-ts"), []
    for title, file in write(options.out, scenario, Law(options.seed)).items():
        tasks = TaskList.read(file, scenario)
        played = [replay(scenario, tasks, make_policy(name, scenario), name=name) for name in RULES]
        means = [run.delay_s.mean() for run in played]
        cells = [f"{m:.4f} ({m / means[0]:.2f})" for m in means]
        lines.append([title, str(len(tasks)), f"{played[0].load:.2f}", *cells])
    print(table(["mean delay, s (ratio)", "tasks", "load", *RULES], lines))


if __name__ == "__main__":
    main()
