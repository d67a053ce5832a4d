"""The order that was learned, `pretrained:dispatch`, beside rules by hand, on arrivals and fleets that it never saw.

python benchmarks/held_learned.py --out docs/_static     # five seeds of 200,000 requests, and twenty random fleets

The two fleets are those of `held.py`, with its limits: the 99th and 99.9th percentile at most those of least cost
(equal servers) or of least finish (unlike ones), the costliest kind's 99th at most 5 % (10 %) above. On a random fleet
the best simple rule is the one of the least mean delay of those that keep such limits there, within 1 %; the learned
order need not keep them, so that the page tells what it is beside rules that have the same freedom, too.

python benchmarks/held_learned.py --part patience --fleets 60 --out docs/_static

sets on sixty more fleets, by which the form of the order was chosen, the bundled one beside the one that was bundled
before it: its patience was four usual services divided by the seats, however many requests waited. And beside that one
with a patience of so many usual services, not divided.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from diffpolicy.edge.dispatch import Dispatcher, OnArrival, make_held, simulate
from diffpolicy.edge.dispatch.learned_order import PATIENCE, LearnedFile
from diffpolicy.edge.dispatch.learning import SIMPLE, learned, limit_of, play
from diffpolicy.edge.dispatch.training_fleets import Played, random_fleet
from held import CASES, Case, figures, interval, requests, write
from timing import table

LEARNED = "pretrained:dispatch"
RULES: Mapping[str, tuple[str, ...]] = {
    "held_equal": ("shortest-first:cap=6", "cost-minus-age:age=0.2,cap=8"),
    "held_unlike": ("cost-minus-age:age=1", "cost-minus-age:age=1,price=2"),
}
TAILS = ("", ":tail=0.95", ":tail=0.9", ":tail=0.7", ":tail=1.5")
COLUMNS = ["fleet", "rule", "ratio", "ratio_lo", "ratio_hi", "p99", "p99.9", "costliest_p99", "most_passes"]
ROOM = "costliest_p99_of_allowed"
"""In relation to the limit, which is above that of `costliest_p99` by what a fleet allows, see `limit_of`."""
FLEETS = [
    *("fleet", "servers", "seats", "alike", "models", "requests", "mean", "p99", "p99.9", ROOM, "best"),
    *("mean_to_as_free", "mean_to_any"),
]
"""`mean` is in relation to the best simple rule within every limit, the last two to the best of more, see `means`."""
NEAR = 0.01
"""How far beyond a limit figures of 20,000 requests may be by chance."""
FIRST = 1_000
"""Number of the first random fleet; training draws others."""
FIRST_MORE = 2_000
"""Number of the first of the fleets on which patience is looked at, none of which is among the twenty."""
EARLIER = (
    *(0.333, 0.7951, 0.6171, 1.4961, 2.479, 0.3158, 2.506, 0.1611, 1.3108, 0.0693, 5.7074),
    *(4.0328, 0.0196, 0.0489, 0.0),
)
"""The weights that were bundled before those of today; the last one did not exist."""
PATIENCES = (0.5, 0.75, 1.0)
"""Of the earlier order, in usual services."""
BUNDLED = "bundled"
PATIENCE_COLUMNS = ["fleet", "servers", "seats", "alike", "models", "patience", "mean", "worst_tail", "best"]


def rows_of(case: Case, count: int, seeds: int) -> list[list[object]]:
    """A row a rule: the mean in relation to least cost, the percentiles in relation to what limits them."""
    streams = [requests(case, count, seed) for seed in range(seeds)]
    limited_by = "least-cost" if len(set(case.speeds)) == 1 else "least-finish"
    rules: dict[str, Dispatcher] = {name: OnArrival(name) for name in ("least-cost", "least-finish")}
    rules |= {name: make_held(name) for name in (*RULES[case.name], *(LEARNED + tail for tail in TAILS))}
    rows: list[list[object]] = []
    of: dict[str, np.ndarray] = {}
    for name, rule in rules.items():
        outcomes = [simulate(a, rule, seed=seed) for seed, a in enumerate(streams)]
        of[name] = np.array([figures(x) for x in outcomes])
        passes = max(int(x.passes.max()) for x in outcomes)
        if name == "least-cost":
            continue
        ratio = of[name][:, 0] / of["least-cost"][:, 0]
        tails = (of[name] / of[limited_by])[:, 1:].mean(0)
        numbers = [round(float(x), 4) for x in (ratio.mean(), *interval(ratio), *tails)]
        rows.append([case.name, name, *numbers, passes])
        print(*rows[-1], flush=True)
    return rows


def best_of(fleet: Played, limit: np.ndarray, room: np.ndarray | float = NEAR) -> tuple[str, np.ndarray]:
    """The simple rule of the least mean delay among those that exceed no limit by more than `room`, and its figures."""
    found = {name: play(fleet, rule) for name, rule in SIMPLE.items()}
    fair = [name for name, figure in found.items() if ((figure - limit)[1:] < room).all()]
    best = min(fair, key=lambda name: found[name][0])
    return best, found[best]


def means(fleet: Played, limit: np.ndarray, order: np.ndarray) -> list[float]:
    """An order's mean in relation to the best rule that exceeds no limit by more than it or 1 %, and to the best."""
    rooms = (np.maximum((order - limit)[1:] + 1e-12, NEAR), np.inf)
    return [round(float(np.exp(order[0] - best_of(fleet, limit, room)[1][0])), 4) for room in rooms]


def fleets(count: int, number: int) -> list[list[object]]:
    """A row a random fleet: the learned order's mean in relation to the best simple rule's, its tails to the limits."""
    rows: list[list[object]] = []
    for i in range(FIRST, FIRST + number):
        fleet = random_fleet(np.random.default_rng(i), count)
        limit, order = limit_of(fleet), play(fleet, make_held(LEARNED))
        best, figure = best_of(fleet, limit)
        ratios = np.exp([order[0] - figure[0], *(order - limit)[1:]])
        rows.append([i, len(fleet.seats), sum(fleet.seats), fleet.alike, bool(fleet.arrivals.switch_s.any())])
        rows[-1] += [len(fleet.arrivals), *(round(float(x), 4) for x in ratios), best]
        rows[-1] += means(fleet, limit, order)
        print(*rows[-1], flush=True)
    return rows


def patient(services: float, seats: int) -> tuple[float, ...]:
    """The earlier weights, with a patience of so many usual services; its weight is in those of all seats together."""
    weights = list(EARLIER)
    weights[PATIENCE] = services * seats
    return tuple(weights)


def patience(count: int, number: int) -> list[list[object]]:
    """A row a fleet and patience: the mean in relation to the best simple rule's, the worst tail to its limit."""
    rows: list[list[object]] = []
    for i in range(FIRST_MORE, FIRST_MORE + number):
        fleet = random_fleet(np.random.default_rng(i), count)
        seats, limit = sum(fleet.seats), limit_of(fleet)
        best, figure = best_of(fleet, limit)
        each = {BUNDLED: LearnedFile.bundled().weights, "earlier": EARLIER}
        each |= {f"{x:g}": patient(x, seats) for x in PATIENCES}
        for name, weights in each.items():
            found = learned(fleet, weights)
            ratios = np.exp([found[0] - figure[0], (found - limit)[1:].max()])
            rows.append([i, len(fleet.seats), seats, fleet.alike, bool(fleet.arrivals.switch_s.any()), name])
            rows[-1] += [*(round(float(x), 4) for x in ratios), best]
            print(*rows[-1], flush=True)
    return rows


def main() -> None:
    """Plays, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--fleets", type=int, default=20)
    parser.add_argument("--fleet-requests", type=int, default=20_000)
    parser.add_argument("--part", choices=("fleets", "held", "patience", "all"), default="all")
    parser.add_argument("--out", type=Path, default=Path("runs/held"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.part == "patience":
        found = patience(options.fleet_requests, options.fleets)
        write(options.out / "held_learned_patience.csv", PATIENCE_COLUMNS, found)
    if options.part in ("fleets", "all"):
        found = fleets(options.fleet_requests, options.fleets)
        write(options.out / "held_learned_fleets.csv", FLEETS, found)
        ratios = np.array([float(str(row[6])) for row in found])
        print(
            f"mean against the best simple rule's: {ratios.mean() - 1:+.1%} on average, {ratios.max() - 1:+.1%} at most"
        )
    if options.part in ("held", "all"):
        rows = [row for case in CASES for row in rows_of(case, options.requests, options.seeds)]
        write(options.out / "held_learned.csv", COLUMNS, rows)
        print(table(COLUMNS, [[str(x) for x in row] for row in rows]))


if __name__ == "__main__":
    main()
