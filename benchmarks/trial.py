"""How soon a trial (`serve --share`) takes a worse policy back, and how seldom one that is no worse.

python benchmarks/trial.py --csv docs/_static/trial.csv      # some minutes on one core

Delays follow a law, whoever decides: the policy's are the same, or twice as long. Or requests go to two servers, the
second four times slower, by Poisson arrivals: the other rule sends each where it ends first, and the policy does so
too, or sends each where it ends last. A row is of many trials, each with seeds of its own.
"""

from __future__ import annotations

import argparse
import heapq
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from diffpolicy.edge.serving.trial import Trial
from timing import table, write_csv

COLUMNS = ["share", "delays", "policy", "trials", "requests each", "ended", "its answers, median", "90 % within"]
SHARES = {0.1: 3000, 0.5: 1500}
"""Shares of the policy, and requests of a trial."""
QUEUED = 2000
"""Requests of a trial of servers."""
SPEEDS = (1.0, 4.0)
"""Seconds of a unit of work on either server."""
LAWS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "exponential": lambda rng, n: rng.exponential(1.0, n),
    "log-normal, sigma 1": lambda rng, n: np.exp(rng.normal(0, 1, n)),
    "log-normal, sigma 1.5": lambda rng, n: np.exp(rng.normal(0, 1.5, n)),
    "Pareto, index 1.5": lambda rng, n: rng.pareto(1.5, n) + 1,
    "a queue that grows": lambda rng, n: np.maximum(np.cumsum(rng.normal(0.1, 1, n)), 0) + rng.exponential(1.0, n) + 1,
}


def of_law(law: str, factor: float, share: float, requests: int, seed: int) -> int | None:
    """Answers of the policy until it was taken back; None: it was not.

    Args:
        law: by name. factor: of the policy's delays. share: of the policy. requests: at most. seed: of all that is
            drawn.
    """
    delays = LAWS[law](np.random.default_rng(seed), requests)
    trial, answers = Trial(share, seed), 0
    for number, delay in enumerate(delays.tolist()):
        arm = trial.arm(f"r{number}", 0.0)
        answers += arm
        if trial.seen(arm, factor * delay if arm else delay, 0.0):
            return answers
    return None


def of_servers(last: bool, load: float, share: float, requests: int, seed: int) -> int | None:
    """The same where requests wait for two servers. Args: last: whether the policy sends to where it ends last."""
    rng = np.random.default_rng(seed)
    work = np.exp(rng.normal(-0.5, 1, requests)).tolist()  # of mean 1
    gaps = rng.exponential(1 / (load * sum(1 / speed for speed in SPEEDS)), requests).tolist()
    trial, answers, now, free = Trial(share, seed), 0, 0.0, [0.0 for _ in SPEEDS]
    running: list[tuple[float, bool, float]] = []
    for number in range(requests):
        now += gaps[number]
        while running and running[0][0] <= now:
            _, whose, slowdown = heapq.heappop(running)
            answers += whose
            if trial.seen(whose, slowdown, 0.0):
                return answers
        arm = trial.arm(f"r{number}", 0.0)
        ends = [max(at, now) + work[number] * speed for at, speed in zip(free, SPEEDS, strict=True)]
        end = max(ends) if last and arm else min(ends)
        free[ends.index(end)] = end
        heapq.heappush(running, (end, arm, (end - now) / work[number]))
    return None


def row(names: Sequence[str], requests: int, ends: Sequence[int | None]) -> list[str]:
    """A row of the table. Args: names: its first columns. requests: of each trial. ends: of each, see `of_law`."""
    ended = [math.inf if end is None else end for end in ends]
    told = [f"{found:.0f}" if math.isfinite(found) else "" for found in np.percentile(ended, (50, 90), method="lower")]
    return [*names, str(len(ends)), str(requests), str(sum(map(math.isfinite, ended))), *told]


def rows(trials: int) -> list[list[str]]:
    """All of them. Args: trials: of each row."""
    found = []
    for share, requests in SHARES.items():
        cases: list[tuple[str, str, int, Callable[[int], int | None]]] = []
        for law in LAWS:
            for name, factor in (("the same", 1.0), ("twice as slow", 2.0)):
                cases.append((law, name, requests, partial(of_law, law, factor, share, requests)))
        for load in (0.7, 1.1):
            for name, last in (("the same", False), ("ends last", True)):
                play = partial(of_servers, last, load, share, QUEUED)
                cases.append((f"two servers, load {load}", name, QUEUED, play))
        for delays, name, count, play in cases:
            found.append(row([f"{share:g}", delays, name], count, [play(seed) for seed in range(trials)]))
            print(", ".join(found[-1]), flush=True)
    return found


def main() -> None:
    """Plays the trials, prints the table and writes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200, help="of each row")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    if options.trials < 1:
        parser.error(f"--trials must be at least 1, got {options.trials}")
    found = rows(options.trials)
    print(f"\n{table(COLUMNS, found)}")
    if options.csv:
        write_csv(options.csv, [COLUMNS, *found])


if __name__ == "__main__":
    main()
