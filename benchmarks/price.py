"""Decisions a second of the learned price in `evaluate` and `replay`, compiled (numba) and by the law's tensors.

python benchmarks/price.py                       # three minutes on one core
python benchmarks/price.py --slots 59 --episodes 16
python benchmarks/price.py --csv docs/_static/price_speed.csv

All that the commands do but reading and writing files is timed: arrivals, physics, decisions, statistics. Both forms
play the same tasks, and the benchmark ends if they choose other servers. Two files are replayed: one of a task a step,
and one whose tasks come by the slot; then longer ones of both kinds in compiled form alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from unittest.mock import patch

import numpy as np
import torch

from diffpolicy.edge import Scenario, make_policy
from diffpolicy.edge.evaluation import play_episodes, replay
from diffpolicy.edge.workload.task_file import TaskList
from timing import machine, table, write_csv

POLICIES = ("price", "pretrained:live", "pretrained:stale")
LAW, COMPILED = "law", "compiled"


@contextmanager
def form(name: str) -> Iterator[None]:
    """While it lasts, the price decides in a form. Args: name: `LAW` or `COMPILED`."""
    if name == COMPILED:
        yield
        return
    with patch("diffpolicy.edge.pricing.state.compiled_form", lambda: None):
        yield


def tasks_of(scenario: Scenario, number: int, a_slot: int) -> TaskList:
    """Tasks of random stations and sizes at four fifths of the scenario's capacity. Args: a_slot: of them a step."""
    rng = np.random.default_rng(0)
    work = rng.uniform(0.5, 3.5, number)
    steps = -(-number // a_slot)
    mean_s = work.sum() / (0.8 * scenario.capacity_gcycles_per_s * steps)
    return TaskList(
        slot=np.arange(number) // a_slot,
        duration_s=rng.uniform(0.5 * mean_s, 1.5 * mean_s, steps),
        origin=rng.integers(0, len(scenario.stations), number),
        input_mbit=rng.uniform(2, 5, number),
        result_mbit=rng.uniform(0.6, 1, number),
        work_gcycles=work,
        steps=np.full(number, 10),
    )


def main() -> None:
    """Times both forms in turn, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--episodes", type=int, default=2)
    parser.add_argument("--slots", type=int, default=10)
    parser.add_argument("--tasks", type=int, default=400, help="of each file")
    parser.add_argument("--long", type=int, default=20_000, help="tasks of each longer file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--csv", type=Path, help="write the table there too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    scenario = Scenario.load("lad-ts").override(slots=options.slots)
    files = {
        "replay, one a step": tasks_of(scenario, options.tasks, 1),
        "replay, by the slot": tasks_of(scenario, options.tasks, 100),
    }
    longer = {f"{how}, long": tasks_of(scenario, options.long, n) for how, n in zip(files, (1, 100), strict=True)}
    rows = []
    for policy in options.policies.split(","):
        for how in ("evaluate", *files, *longer):

            def run(policy: str = policy, how: str = how) -> np.ndarray:
                made = make_policy(policy, scenario)
                if how == "evaluate":
                    return play_episodes(scenario, made, options.episodes).cost
                return replay(scenario, (files | longer)[how], made).delay_s

            forms = (COMPILED,) if how in longer else (LAW, COMPILED)
            rows.append([policy, how, *measured(run, options.rounds, forms)])
    print(f"the learned price, decisions a second; {machine()}")
    columns = ["policy", "in", "tasks", LAW, COMPILED, "ratio"]
    print(table(columns, rows))
    if options.csv:
        write_csv(options.csv, [columns, *rows])


def measured(run: Callable[[], np.ndarray], rounds: int, forms: Sequence[str]) -> list[str]:
    """Tasks, decisions a second in each form, and their ratio, as texts. Args: run: gives the tasks' delays."""
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    with form(COMPILED):
        run()  # loads the machine code
    for _ in range(rounds):
        delays = {}
        for name, times in seconds.items():
            with form(name):
                start = time.process_time()
                delays[name] = run()
                times.append(time.process_time() - start)
        if not all(np.array_equal(delays[COMPILED], other) for other in delays.values()):
            raise SystemExit("the two forms choose other servers")
    number = len(delays[COMPILED])
    speed = {name: number / median(times) for name, times in seconds.items()}
    ratio = f"{speed[COMPILED] / speed[LAW]:.1f}" if LAW in speed else ""
    return [str(number), f"{speed[LAW]:.0f}" if LAW in speed else "", f"{speed[COMPILED]:.0f}", ratio]


if __name__ == "__main__":
    main()
