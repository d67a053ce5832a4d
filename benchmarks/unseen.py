"""Rules and bundled policies on task files of another law than they were told, written here and replayed.

The first table is of two files of another law altogether, the second of files of LAD-TS with fewer tasks than the 50
that were told, and with stations that come mixed: ratios to `opt-ts`, means over seeds. "Believed" is a policy that
learns nothing of what it sees (`learns=False`).

python benchmarks/unseen.py                                # some minutes on one core
python benchmarks/unseen.py --csv docs/_static             # writes unseen_other.csv and unseen.csv there
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from diffpolicy.edge import Scenario, TaskList, make_policy, replay
from diffpolicy.edge.workload.seeds import Stream
from timing import table, write_csv

RULES = ("opt-ts", "price", "pretrained:live", "pretrained:stale", "pretrained:private")
LEARNING = RULES[2:]
TASKS = (25, 40, 50)
TOLD = 50
SAYS = f"{TOLD} tasks"
GIVEN = (SAYS, "the true law", f"{SAYS}, believed")
OTHER = ["arrivals", "tasks", "load", "policy", "mean, s", "ratio to opt-ts"]
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
        write_csv(file, [[name, "origin", *SIZES], *rows])
    return files


def write_lad_ts(path: Path, scenario: Scenario, seed: int, mixed: bool) -> Path:
    """A file of a scenario's own arrivals, station by station or mixed."""
    rng, law, stations = np.random.default_rng(seed), scenario.workload, len(scenario.stations)
    rows = []
    for t in range(scenario.slots or 0):
        drawn = law.draw(seed, Stream.EVALUATION, 0, t, stations)
        origin = np.repeat(np.arange(stations), drawn.counts)
        had = [0] * stations
        for b in rng.permutation(origin) if mixed else origin:
            i, had[b] = had[b], had[b] + 1
            sizes = (f"{x[b, i]:.6f}" for x in (drawn.input_mbit, drawn.result_mbit))
            rows.append([str(t), str(b), *sizes, str(law.gcycles_per_step[i]), str(law.steps[i])])
    write_csv(path, [["slot", "origin", *SIZES], *rows])
    return path


def told_wrongly(path: Path, seeds: int, first: int) -> list[dict[str, str]]:
    """A row for each number of tasks, order of stations and law that was told."""
    whole, rows = Scenario.load("lad-ts"), []
    for tasks in TASKS:
        true = whole if tasks == TOLD else whole.override(tasks=tasks)
        for mixed in (False, True):
            for told in GIVEN[: 1 if tasks == TOLD else None]:
                scenario = true if told == "the true law" else whole
                ratios: dict[str, list[float]] = {name: [] for name in LEARNING}
                for seed in range(first, first + seeds):
                    file = write_lad_ts(path / f"{tasks}-{mixed}-{seed}.csv", true, seed, mixed)
                    given = TaskList.read(file, scenario)
                    base = replay(scenario, given, make_policy("opt-ts", scenario)).delay_s.mean()
                    for name, of in ratios.items():
                        policy = make_policy(name, scenario)
                        policy.rule.learns = not told.endswith("believed")
                        of.append(replay(scenario, given, policy).delay_s.mean() / base)
                means = {name: f"{np.mean(of):.3f}" for name, of in ratios.items()}
                order = "mixed" if mixed else "in turn"
                rows.append({"tasks": str(tasks), "stations come": order, "told": told, **means})
    return rows


def main() -> None:
    """Writes both files and prints the mean delays."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=20261125)
    parser.add_argument("--seeds", type=int, default=4, help="files of each row of the second table")
    parser.add_argument("--csv", type=Path, metavar="FOLDER", help="write both tables there too")
    parser.add_argument("--out", type=Path, default=Path("runs/unseen"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    scenario, other = Scenario.load("lad-ts"), []
    for title, file in write(options.out, scenario, Law(options.seed)).items():
        tasks = TaskList.read(file, scenario)
        played = [replay(scenario, tasks, make_policy(name, scenario), name=name) for name in RULES]
        means = [run.delay_s.mean() for run in played]
        other += [
            [title, str(len(tasks)), f"{run.load:.2f}", name, f"{mean:.4f}", f"{mean / means[0]:.4f}"]
            for name, run, mean in zip(RULES, played, means, strict=True)
        ]
    print(table(OTHER, other), end="\n\n")
    rows = told_wrongly(options.out, options.seeds, 101)
    print(table(list(rows[0]), [list(row.values()) for row in rows]))
    if options.csv:
        options.csv.mkdir(parents=True, exist_ok=True)
        write_csv(options.csv / "unseen_other.csv", [OTHER, *other])
        write_csv(options.csv / "unseen.csv", [list(rows[0]), *(list(row.values()) for row in rows)])


if __name__ == "__main__":
    main()
