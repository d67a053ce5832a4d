"""The service over HTTP beside the simulator on the same arrivals.

python benchmarks/service.py --out docs/_static/service.csv     # 400 requests a rule; it says first how long that takes

Plays Poisson arrivals of vLLM-Omni's mixed workload on emulated workers at a tenth of real time, under rules that bind
on arrival and two that hold, and prints the mean delay beside the simulator's. Both have the same arrivals and service
times, so what differs is dead time: of HTTP, of processes that wait for the processor, of sleeps that end late. The
dispatcher counts it, and the simulator is asked a second time with as much before each request: what is left then is
not dead time. A rule that draws among equal servers has another delay with each seed of its draws, and over HTTP soon
draws at other moments: the simulator's mean is over many seeds, and its spread over them stands beside. How late a
sleep of 10 ms ended meanwhile is printed too, as a share of the mean service: above half a hundredth the machine was
too busy for the first comparison to mean anything.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffpolicy.edge.serving.demo import Contender, Emulated, demonstrate, load_of, simulated_s
from diffpolicy.edge.serving.load.plan import Ask
from diffpolicy.edge.serving.load.report import Outcome
from diffpolicy.errors import WorkError
from timing import table

PROFILE = "mlenergy-a100-sd3-medium"
SPEEDS = "1.2,0.6,0.6"
SLOWEST, FASTEST, MOST_WORKERS = 0.01, 100.0, 64
RULES = (
    Contender("least finish", "least-finish"),
    Contender("least outstanding cost", "least-cost"),
    Contender("cost-minus-age, held", "least-finish", "free", "cost-minus-age:age=0.5"),
    Contender("shortest-first, held", "least-finish", "free", "shortest-first:cap=6"),
)
WARM = 60
SLEEP_S = 0.01
START_S = 4.0
"""That a rule takes beside its load: the dispatcher starts and ends."""
DRAWS = 200
"""Seeds of what rules draw."""
TOLD = 10
"""Times that progress is told of each rule."""
MOST_DEAD = 0.005
"""Share of the mean service by which sleeps may end late; see `diffpolicy worker --time-scale`."""


def fleet_of(text: str) -> tuple[Emulated, ...]:
    """Workers by their speeds, in relation to the profile; slow ones have longer services for the same dead time.

    Args:
        text: numbers, with commas between them.

    Raises:
        argparse.ArgumentTypeError: they are none.
    """
    try:
        speeds = [float(part) for part in text.split(",")]
    except ValueError:
        speeds = []
    if not 0 < len(speeds) <= MOST_WORKERS or not all(SLOWEST <= speed <= FASTEST for speed in speeds):
        raise argparse.ArgumentTypeError(
            f"must be 1 to {MOST_WORKERS} numbers from {SLOWEST:g} to {FASTEST:g} with commas between them, "
            f"as {SPEEDS}, got {text!r}"
        )
    return tuple(Emulated(PROFILE, speed) for speed in speeds)


async def compared(options: argparse.Namespace) -> list[dict[str, object]]:
    """Means over HTTP beside the simulator's, a row a rule."""
    asks = load_of(options.requests, options.load, warm=WARM, seed=options.seed, fleet=options.speeds)
    service_s = options.time_scale * float(np.mean([worker.service_s(asks).mean() for worker in options.speeds]))
    each_s = START_S + options.time_scale * asks[-1].at_s
    late: dict[str, list[float]] = {}
    answered: Counter[str] = Counter()
    said, begun = "", time.perf_counter()

    def told(text: str) -> None:
        nonlocal said
        said = text
        print(text, file=sys.stderr, flush=True)

    def done(rule: Contender, outcome: Outcome) -> None:
        answered[rule.label] += 1
        if answered[rule.label] % math.ceil(len(asks) / TOLD) == 0:
            left_s = len(RULES) * each_s - (time.perf_counter() - begun)
            told_of = f"{rule.label}: {answered[rule.label]} of {len(asks)}"
            print(f"{told_of}, {max(left_s, 0.0):.0f} s left of all", file=sys.stderr, flush=True)

    async def sleeping() -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(SLEEP_S)
            late.setdefault(said, []).append(time.perf_counter() - begun - SLEEP_S)

    told(f"{len(RULES)} rules of {len(asks)} requests: {len(RULES) * each_s:.0f} s")
    watching = asyncio.create_task(sleeping())
    made = await demonstrate(
        RULES, asks, scale=options.time_scale, warm=WARM, seed=options.seed, fleet=options.speeds, told=told, done=done
    )
    watching.cancel()
    rows: list[dict[str, object]] = []
    for row, rule in zip(made, RULES, strict=True):
        of = row.report.row()
        simulated, spread_s = drawn_s(rule, asks, options.speeds)
        with_dead_s, _ = drawn_s(rule, asks, options.speeds, dead_s=row.dead_s)
        rows.append(
            {
                "rule": row.label,
                "http_mean_s": of["mean_s"],
                "simulator_mean_s": simulated,
                "simulator_spread_s": spread_s,
                "ratio": of["mean_s"] / simulated if of["mean_s"] else None,
                "dead_ms": 1e3 * row.dead_s * options.time_scale,
                "ratio_with_dead": of["mean_s"] / with_dead_s if of["mean_s"] else None,
                "http_p99_s": of["p99_s"],
                "requests": of["requests"],
                "failed": of["failed"],
                "sleeps_late": float(np.mean(late[f"serving by {row.label}"])) / service_s,
                "load_average": os.getloadavg()[0],
                "time_scale": options.time_scale,
                "load": options.load,
                "seed": options.seed,
                "speeds": ",".join(f"{worker.speed:g}" for worker in options.speeds),
            }
        )
    return rows


def drawn_s(
    rule: Contender, asks: Sequence[Ask], fleet: Sequence[Emulated], *, dead_s: float = 0.0
) -> tuple[float, float]:
    """Mean delay in the simulator over seeds of what a rule draws, and its standard deviation over them, seconds."""
    means = [simulated_s(rule, asks, WARM, fleet, seed, dead_s=dead_s) for seed in range(DRAWS)]
    return float(np.mean(means)), float(np.std(means))


def main() -> None:
    """Reads options, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--load", type=float, default=0.8)
    parser.add_argument("--time-scale", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--speeds", type=fleet_of, default=SPEEDS, help=f"of the workers; {SPEEDS} by default")
    parser.add_argument("--out", type=Path, help="CSV")
    options = parser.parse_args()
    begun = time.perf_counter()
    try:
        rows = asyncio.run(compared(options))
    except WorkError as error:  # as of a time scale at which this machine is too slow, which says what would do
        parser.exit(1, f"{error}\n")
    shown = []
    for row in rows:
        of = {key: float(str(value)) for key, value in row.items() if key not in ("rule", "speeds")}
        seconds = [f"{of[key]:.3f}" for key in ("http_mean_s", "simulator_mean_s", "simulator_spread_s", "ratio")]
        dead = [f"{of['dead_ms']:.1f}", f"{of['ratio_with_dead']:.3f}", f"{100 * of['sleeps_late']:.2f} %"]
        shown.append([str(row["rule"]), *seconds, *dead, str(row["failed"])])
    columns = [
        "rule",
        "HTTP mean s",
        "simulator mean s",
        "its spread",
        "ratio",
        "dead ms",
        "ratio with it",
        "sleeps late",
        "failed",
    ]
    print(table(columns, shown))
    worst = max(float(row["sleeps_late"]) for row in rows)  # type: ignore[arg-type]
    if worst > MOST_DEAD:
        print(f"the machine was too busy: sleeps ended late by {100 * worst:.1f} % of the mean service")
    print(f"{time.perf_counter() - begun:.0f} s, load average {os.getloadavg()[0]:.1f}")
    if options.out:
        with options.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
