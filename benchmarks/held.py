"""Held requests against binding on arrival, in the simulator, on vLLM-Omni's mixed workload.

python benchmarks/held.py --out docs/_static          # five seeds of 200,000 requests, and what erodes the gain
diffpolicy plot docs/_static/held_equal.csv           # the front of mean and tail

Four sizes of image (512^2 x 20 steps 15 %, 768^2 x 20 25 %, 1024^2 x 25 45 %, 1536^2 x 35 15 %), Poisson arrivals, cost
as declared, steps x pixels, of which the largest takes 19.7 s. Changes are means over seeds of paired changes, each
against least outstanding declared cost with random ties on the same requests.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffpolicy.edge.dispatch import (
    Arrivals,
    CostMinusAge,
    Dispatcher,
    FirstCome,
    Held,
    HighestResponseRatio,
    OnArrival,
    Outcome,
    ShortestFirst,
    simulate,
)
from diffpolicy.edge.dispatch.outcome import MUCH_DEAD
from diffpolicy.edge.dispatch.several import simulate_several
from timing import table, write_csv

PIXEL_STEPS = np.array([512**2 * 20, 768**2 * 20, 1024**2 * 25, 1536**2 * 35], dtype=np.float64)
SHARES = np.array([0.15, 0.25, 0.45, 0.15])
COSTS_S = PIXEL_STEPS / PIXEL_STEPS[-1] * 19.7
BASELINE = "least-cost"
COLUMNS = [
    *("policy", "weight", "ratio", "ratio_lo", "ratio_hi", "mean_delay_s", "p99_delay_s", "p99.9_delay_s"),
    *("costliest_p99_delay_s", "p99_change", "p99.9_change", "costliest_p99_change", "p99_to_least_finish"),
    *("most_passes", "longest_refused_s", "requests", "seeds", "baseline"),
]
EROSION = ["fleet", "policy", "what", "value", "ratio", "ratio_lo", "ratio_hi", "dead_share", "requests", "seeds"]


@dataclass(frozen=True)
class Case:
    """Servers and a load. Args: name: of the file. speeds: `[S]`. load: of capacity. rules: by name and weight."""

    name: str
    speeds: tuple[float, ...]
    load: float
    rules: Mapping[tuple[str, str], Dispatcher]


ON_ARRIVAL: Mapping[tuple[str, str], Dispatcher] = {
    (BASELINE, ""): OnArrival("least-cost"),
    ("least-finish", ""): OnArrival("least-finish"),
}
CASES = (
    Case(
        "held_equal",
        (1.0, 1.0, 1.0),
        0.86,
        {
            **ON_ARRIVAL,
            ("first-come, held", ""): Held(FirstCome()),
            ("highest-response-ratio", ""): Held(HighestResponseRatio()),
            **{("shortest-first", f"cap={c}"): Held(ShortestFirst(), cap=c) for c in (2, 4, 5, 6, 7, 8, 12, 20)},
            ("shortest-first", "no cap"): Held(ShortestFirst()),
            **{("cost-minus-age", f"age={a}"): Held(CostMinusAge(a)) for a in (0.2, 0.3, 0.5, 0.7, 1.0, 2.0)},
            **{("cost-minus-age, cap=8", f"age={a}"): Held(CostMinusAge(a), cap=8) for a in (0.1, 0.2, 0.5)},
        },
    ),
    Case(
        "held_unlike",
        (2.0, 1.0, 0.5, 0.5),
        0.85,
        {
            **ON_ARRIVAL,
            ("first-come, held", ""): Held(FirstCome()),
            **{("shortest-first", f"cap={c}"): Held(ShortestFirst(), cap=c) for c in (4, 6, 8, 12, 20)},
            **{("cost-minus-age", f"age={a}"): Held(CostMinusAge(a)) for a in (0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0)},
            ("cost-minus-age, price=2", "age=0.5"): Held(CostMinusAge(0.5), price=2.0),
            ("cost-minus-age, price=2", "age=2"): Held(CostMinusAge(2.0), price=2.0),
            ("cost-minus-age, never waits", "age=0.5"): Held(CostMinusAge(0.5), price=None),
        },
    ),
)


def requests(case: Case, count: int, seed: int) -> Arrivals:
    """Requests of the mix, Poisson."""
    rng = np.random.default_rng([seed, 18])
    kind = rng.choice(len(SHARES), count, p=SHARES)
    arrival = np.cumsum(rng.exponential(COSTS_S @ SHARES / (case.load * sum(case.speeds)), count))
    cost = COSTS_S[kind]
    return Arrivals(arrival, cost[:, None] / np.array(case.speeds), cost=cost, kind=kind)


def figures(outcome: Outcome) -> np.ndarray:
    """Mean, p99, p99.9 and the costliest kind's p99 of the delay."""
    delay = outcome.delay_s
    costliest = delay[outcome.arrivals.kind == len(SHARES) - 1]
    return np.array([delay.mean(), *np.percentile(delay, [99, 99.9]), np.percentile(costliest, 99)])


def interval(values: np.ndarray) -> tuple[float, float]:
    """A 95 % interval of a mean over seeds, by Student's t."""
    t = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}.get(len(values), 2.0)
    half = t * values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return float(values.mean() - half), float(values.mean() + half)


def front(case: Case, count: int, seeds: int) -> list[list[object]]:
    """A row a rule."""
    arrivals = [requests(case, count, seed) for seed in range(seeds)]
    rows: list[list[object]] = []
    of: dict[str, np.ndarray] = {}
    for (name, weight), rule in case.rules.items():
        outcomes = [simulate(a, rule, seed=seed) for seed, a in enumerate(arrivals)]
        of[name + weight] = found = np.array([figures(x) for x in outcomes])
        ratio, finish = found / of[BASELINE], of.get("least-finish", found)
        passes = max(int(x.passes.max()) for x in outcomes)
        refused = max(float(x.refused_s.max()) for x in outcomes)
        low, high = interval(ratio[:, 0])
        numbers = [ratio[:, 0].mean(), low, high, *found.mean(0), *(ratio[:, 1:].mean(0) - 1)]
        tail = (found[:, 1] / finish[:, 1]).mean()
        rows.append([name, weight, *(round(float(x), 4) for x in (*numbers, tail)), passes, round(refused, 1)])
        rows[-1] += [count, seeds, BASELINE]
        if len(rows) > 1:
            print(shown(rows[-1]), flush=True)
    return rows


def shown(row: list[object]) -> str:
    """A row in words."""
    of = dict(zip(COLUMNS, row, strict=True))
    changes = [f"{name} {float(str(of[f'{key}_change'])):+.1%}" for name, key in
               (("p99", "p99"), ("p99.9", "p99.9"), ("costliest p99", "costliest_p99"))]  # fmt: skip
    return (
        f"{of['policy']} {of['weight']}: mean {float(str(of['ratio'])) - 1:+.1%}, {', '.join(changes)}, "
        f"p99 {float(str(of['p99_to_least_finish'])):.3f} of least finish's, passes {of['most_passes']}, "
        f"refused {of['longest_refused_s']} s"
    )


def erosion(case: Case, age: float, count: int, seeds: int) -> list[list[object]]:
    """What takes the gain away: dead time, depth, several dispatchers, noise of the service times."""
    mean_s, held = float(COSTS_S @ SHARES) / case.speeds[0], Held(CostMinusAge(age))
    few = max(count // 20, 1)

    def noisy(arrivals: Arrivals, sigma: float, seed: int) -> Arrivals:
        luck = np.exp(sigma * np.random.default_rng([seed, 19]).standard_normal((len(arrivals), 1)) - sigma**2 / 2)
        return Arrivals(
            arrivals.arrival_s,
            arrivals.service_s * luck,
            arrivals.service_s,
            cost=arrivals.cost,
            kind=arrivals.kind,
        )

    def plain(arrivals: Arrivals, seed: int) -> Outcome:
        return simulate(arrivals, held, seed=seed)

    def dead(share: float, lead: float = 0.0) -> Callable[[Arrivals, int], Outcome]:
        return lambda a, seed: simulate(a, held, seed=seed, dead_s=share * mean_s, lead_s=lead * mean_s)

    def several(number: int, sees: bool) -> Callable[[Arrivals, int], Outcome]:
        return lambda a, seed: simulate_several(a.until(few), [held] * number, sees_counts=sees, seed=seed)

    kinds: list[tuple[str, str, Callable[[Arrivals, int], Outcome], float]] = [("nothing", "", plain, 0.0)]
    kinds += [("dead time a binding, share of the mean service", f"{x:g}", dead(x), 0.0) for x in (0.01, 0.02, 0.05)]
    kinds += [("the same, sent as much earlier", f"{x:g}", dead(x, x), 0.0) for x in (0.02, 0.05)]
    kinds += [("requests that wait at a busy server", "1", deep(held), 0.0)]
    kinds += [("dispatchers that do not see each other", f"{n}", several(n, False), 0.0) for n in (2, 3)]
    kinds += [("dispatchers that see each other's counts", f"{n}", several(n, True), 0.0) for n in (2, 3)]
    kinds += [("noise of service times, sigma", f"{x:g}", plain, x) for x in (0.2, 0.5)]
    rows: list[list[object]] = []
    arrivals = [requests(case, count, seed) for seed in range(seeds)]
    for what, value, run, sigma in kinds:
        ratios, shares = [], []
        size = few if "dispatchers" in what else count
        for seed, given in enumerate(arrivals):
            a = noisy(given.until(size), sigma, seed) if sigma else given.until(size)
            outcome = run(a, seed)
            base = simulate(a, OnArrival("least-cost"), seed=seed)
            ratios.append(outcome.delay_s.mean() / base.delay_s.mean())
            shares.append(outcome.dead_share)
        low, high = interval(np.array(ratios))
        ratio = float(np.mean(ratios))
        rows.append([case.name, f"cost-minus-age age={age:g}", what, value])
        rows[-1] += [*(round(x, 4) for x in (ratio, low, high, float(np.mean(shares)))), size, seeds]
        dead = float(np.mean(shares))
        much = ", of which less than 1 % is wise" if dead > MUCH_DEAD else ""
        print(f"{what} {value}: mean {ratio - 1:+.1%}, dead time {dead:.1%}{much}", flush=True)
    return rows


def deep(held: Held) -> Callable[[Arrivals, int], Outcome]:
    """One request more at each server than it works on: it is bound early, and waits there."""
    return lambda arrivals, seed: simulate(arrivals, held, seed=seed, lead_s=1e9)


def main() -> None:
    """Plays, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/held"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        print(f"\n{case.name}: speeds {case.speeds}, load {case.load}")
        rows = front(case, options.requests, options.seeds)
        write(options.out / f"{case.name}.csv", COLUMNS, rows)
        few = [[str(row[0]), str(row[1]), f"{row[5]:.2f}", f"{row[6]:.1f}", f"{row[7]:.1f}"] for row in rows]
        print(table(["rule", "", "mean s", "p99 s", "p99.9 s"], few))
    print("\nwhat erodes the gain")
    write(options.out / "held_erosion.csv", EROSION, erosion(CASES[0], 0.5, options.requests, options.seeds))


def write(path: Path, columns: list[str], rows: list[list[object]]) -> None:
    """A CSV."""
    write_csv(path, [columns, *rows])


if __name__ == "__main__":
    main()
