"""How far below Opt-TS the bundled rules are: loads, capacities, horizons, and fleets that they never saw.

Plays the evaluation stream's arrivals (the same as `diffpolicy evaluate`) by the compiled player, which tests hold to
the decisions of the tensors. The inputs of the tasks that stale stations imagine are drawn with other bits than there.

python benchmarks/fleets.py --out runs/fleets              # some twenty minutes on one core

`fleets.csv` has every row, `deciding_rows.csv` those of named problems without the controls; docs/_static has both.
"""

from __future__ import annotations

import argparse
import csv
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from diffpolicy.edge import Workload
from diffpolicy.edge.pricing.bundled import load_bundled
from diffpolicy.edge.pricing.compiled import network_of
from diffpolicy.edge.pricing.training.player import Arrivals, Player, RandomFleet
from diffpolicy.edge.pricing.training.train import RECIPES
from diffpolicy.edge.scenario import released
from diffpolicy.edge.workload.seeds import Stream
from diffpolicy.evaluation import Played, ratio_interval
from timing import table

RULES = ("price", "live", "live-one-pass", "live-gated", "stale", "stale-one-pass", "stale-gated")
CONTROLS = ("live-one-pass", "stale-one-pass")
PERCENTS = (50, 95, 99, 100)
COLUMNS = ("problem", "load", "rule", "mean, s", "ratio to opt-ts", "± 95 %", "p50, s", "p95, s", "p99, s", "max, s")


@dataclass(frozen=True)
class Problem:
    """One row. Args: group: rows of one group are averaged. episodes: of each."""

    name: str
    law: Workload
    capacity: np.ndarray
    rate: np.ndarray
    slots: int = 59
    episodes: int = 16
    group: str = ""


def problems(quick: bool) -> list[Problem]:
    """The rows, in order."""
    f, slow, v, rows = released.capacities(20), released.capacities(20, 10, 20), released.rates(20), []
    names = {50: "lad-ts (50 tasks)"}
    for tasks in (50, 25, 40, 10, 20, 30, 60, 70):
        rows.append(Problem(names.get(tasks, f"{tasks} tasks"), released.workload(tasks), f, v))
    rows.insert(3, Problem("capacities 10..20", released.workload(50), slow, v))
    for slots in (20, 40, 80, 120, 240, 590):
        rows.append(Problem(f"{slots} slots", released.workload(50), f, v, slots))
    for tasks in (60, 70):
        rows.append(Problem(f"{tasks} tasks, 590 slots", released.workload(tasks), f, v, 590))
    rows.append(Problem("capacities 10..20, 590 slots", released.workload(50), slow, v, 590))
    rng = np.random.Generator(np.random.PCG64(2024))
    for servers in (5, 50, 200):
        for load in (0.6, 0.98, 1.24):
            for number in range(5):
                rows.append(random_problem(rng, servers, load, number))
    return rows[:3] if quick else rows


def random_problem(rng: np.random.Generator, servers: int, load: float, number: int) -> Problem:
    """Capacities U{10..50}, rates U{400..500}, new task tables, and work per step scaled to the load."""
    capacity = rng.integers(10, 50, servers, endpoint=True).astype(np.float64)
    rate = rng.integers(400, 500, servers, endpoint=True).astype(np.float64)
    steps, result = rng.integers(1, 15, 50), rng.uniform(0.6, 1.0, 50)
    per_step = rng.uniform(0.1024, 0.3072, 50)
    chance = np.minimum(1, (50 - np.arange(50)) / 50)
    per_step *= load * capacity.sum() / (servers * (chance @ (per_step * steps)))
    law = Workload((1, 50), (2.0, 5.0), tuple(per_step.tolist()), tuple(steps.tolist()), tuple(result.tolist()))
    name = f"{servers} servers, load {load}"
    return Problem(f"{name}, fleet {number}", law, capacity, rate, episodes=4 if servers == 200 else 16, group=name)


def joined(parts: list[np.ndarray]) -> Played:
    """Episodes of which each part holds one's delays."""
    return Played(np.concatenate(parts), np.repeat(np.arange(len(parts)), list(map(len, parts))), 0.0, {})


def write(path: Path, rows: list[list[str]]) -> None:
    """A file of rows, `COLUMNS` each."""
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])


def main() -> None:
    """Prints the table, and writes the rows into two files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/fleets"))
    parser.add_argument("--rules", default=",".join(RULES))
    parser.add_argument("--named", action="store_true", help="the rows of lad-ts alone, without the random fleets")
    parser.add_argument("--quick", action="store_true", help="three rows only")
    options = parser.parse_args()
    rules = options.rules.split(",")
    players = {}
    for rule in rules:
        policy = load_bundled(rule)
        recipe = replace(RECIPES[rule], information=policy.information)
        players[rule] = (Player(recipe, policy.hidden), network_of(policy.coefficients().to(torch.float64)))
    greedy = Player(RECIPES["price"], 32)
    options.out.mkdir(parents=True, exist_ok=True)
    lines, groups = [], {}
    written: list[list[str]] = []
    named: list[list[str]] = []
    for problem in problems(options.quick):
        if options.named and problem.group:
            continue
        law, n = problem.law, problem.law.max_tasks
        work = (np.array(law.gcycles_per_step) * np.array(law.steps))[:n]
        fleet = RandomFleet(problem.capacity, problem.rate, work, np.array(law.result_mbit)[:n], problem.slots)
        stations = len(problem.capacity)
        load = stations * law.mean_work_gcycles() / problem.capacity.sum()
        costs: dict[str, list[np.ndarray]] = {name: [] for name in ("opt-ts", *rules)}
        for episode in range(problem.episodes):
            drawn = [law.draw(0, Stream.EVALUATION, episode, t, stations) for t in range(problem.slots)]
            counts = np.stack([x.counts for x in drawn]).astype(np.int64)
            rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((7, episode))))
            inputs = np.stack([x.input_mbit for x in drawn])
            inputs = np.stack([inputs, rng.uniform(2.0, 5.0, inputs.shape)])
            for name in costs:
                delays = np.zeros(int(counts.sum()))
                player, theta = players.get(name, (greedy, np.zeros(2000)))
                mode = greedy.sim.GREEDY if name == "opt-ts" else None
                player.play_arrivals(theta, fleet, Arrivals(counts, inputs), mode, delays=delays)
                costs[name].append(delays)
        base = joined(costs["opt-ts"])
        cells = []
        for name, parts in costs.items():
            delays = np.concatenate(parts)
            ratio, interval = ratio_interval(joined(parts), base)
            half = math.nan if interval is None else interval[1] - ratio
            shown = [f"{x:.4g}" for x in (load, delays.mean(), ratio, half, *np.percentile(delays, PERCENTS))]
            row = [problem.name, shown[0], name, *shown[1:]]
            written.append(row)
            if not problem.group and name not in CONTROLS:
                named.append(row)
            if name == "opt-ts":
                cells.append(f"{delays.mean():.3f}")
            else:
                cells.append(f"{ratio:.3f} ± {half:.3f}")
                groups.setdefault(problem.group, {}).setdefault(name, []).append(ratio)
        # after each problem, so that what was played is there where a run is ended
        write(options.out / "fleets.csv", written)
        write(options.out / "deciding_rows.csv", named)
        if not problem.group:
            lines.append([problem.name, f"{load:.2f}", *cells])
    for group, of in groups.items():
        if group:
            cells = [f"{np.mean(x):.3f} ({max(x):.3f})" for x in of.values()]
            lines.append([f"{group}, five fleets: mean (worst)", "", "", *cells])
    print(table(["ratio of mean delay to opt-ts", "load", "opt-ts s", *rules], lines))


if __name__ == "__main__":
    main()
