"""Trains a `LearnedOrder`: antithetic evolution on simulated fleets of all sizes (Salimans et al., 2017; Adam's steps).

`diffpolicy train-fleet dispatch --out DIR` writes `order.json`, which `--order` takes; the same seed, the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diffpolicy import _validate as check
from diffpolicy._types import Floats, Ints
from diffpolicy.edge.dispatch.arrivals import Arrivals
from diffpolicy.edge.dispatch.held import Held
from diffpolicy.edge.dispatch.learned_order import FEATURES, LearnedFile, LearnedOrder
from diffpolicy.edge.dispatch.on_arrival import OnArrival
from diffpolicy.edge.dispatch.outcome import Outcome
from diffpolicy.edge.dispatch.simulate import simulate

SHARES = np.array([0.15, 0.25, 0.45, 0.15])
COSTS = np.array([512**2 * 20, 768**2 * 20, 1024**2 * 25, 1536**2 * 35], dtype=np.float64)
"""vLLM-Omni's mixed workload, a quarter of the random fleets' and all of the two that are always among them."""
SERVERS = (2, 50)
LOADS = (0.5, 0.95)
START = {"seconds": 1.0, "age": -1.0, "passes above 2": -1.0}
PRICE = 2.0
"""Near `CostMinusAge`."""


@dataclass(frozen=True)
class Played:
    """Servers and what they are asked to do.

    Args:
        arrivals: they. seats: of each server. alike: whether all servers are, and the tail is measured by least cost
            rather than by least finish. room: how much longer the costliest kind's tail may be.
    """

    arrivals: Arrivals
    seats: tuple[int, ...]
    alike: bool
    room: float


@dataclass(frozen=True)
class Recipe:
    """How an order is trained.

    Args:
        generations, pairs: of perturbations. random, requests: fleets a generation, and requests of each.
        known: requests of each of the two fleets that are always played. deviation: of perturbations. rate: of Adam.
        tail: what the logarithm of a tail beyond its limit costs, that of the mean being 1.
        slack: what the limits are narrowed by, as figures of few requests are rough.
    """

    generations: int = 40
    pairs: int = 6
    random: int = 2
    requests: int = 3_000
    known: int = 8_000
    deviation: float = 0.15
    rate: float = 0.1
    tail: float = 2.0
    slack: float = 0.005

    def __post_init__(self) -> None:
        for name in ("generations", "pairs", "random", "requests", "known"):
            check.integer(getattr(self, name), name, least=0 if name == "random" else 1)


def random_fleet(rng: np.random.Generator, count: int) -> Played:
    """2 to 50 servers at a load of .5 to .95, equal or not, some with seats or with models that they load.

    Args:
        rng: draws it. count: how many requests; fewer where more than 12 servers make them slow to play.

    Example:
        >>> played = random_fleet(np.random.default_rng(0), 10)
        >>> len(played.arrivals), len(played.seats) == played.arrivals.servers
        (10, True)
    """
    servers = int(np.exp(rng.uniform(*np.log(np.array(SERVERS) + np.array([0.0, 0.999])))))
    alike = rng.random() < 0.25
    speed = np.ones(servers) if alike else np.exp(rng.uniform(0.2, 0.7) * rng.standard_normal(servers))
    seats = rng.integers(1, 5, servers) if rng.random() < 0.25 else np.ones(servers, np.int64)
    if rng.random() < 0.25:
        costs, shares = COSTS / (COSTS @ SHARES), SHARES
    else:
        kinds = int(rng.integers(2, 7))
        costs = np.sort(np.exp(rng.uniform(0.4, 1.2) * rng.standard_normal(kinds)))
        shares = rng.dirichlet(np.full(kinds, 3.0))
        costs = costs / (costs @ shares)
    load, switches = rng.uniform(*LOADS), rng.random() < 0.25
    load, count = min(load, 0.8) if switches else load, max(min(count, 12 * count // servers), 10)
    return Played(
        poisson(rng, count, costs, shares, speed, seats, load, rng.uniform(0.05, 0.3) if switches else 0.0),
        tuple(int(x) for x in seats),
        alike and int(seats.min()) == int(seats.max()),
        0.05 if alike else 0.1,
    )


def poisson(
    rng: np.random.Generator,
    count: int,
    costs: Floats,
    shares: Floats,
    speed: Floats,
    seats: Floats | Ints | None = None,
    load: float = 0.85,
    switch: float = 0.0,
) -> Arrivals:
    """Poisson requests of some kinds.

    Args:
        rng: draws them. count: how many. costs, shares: of each kind. speed, seats: of each server. load: of capacity.
        switch: seconds in which a server loads another one of two models, over the mean service; 0: there is one.
    """
    kind = rng.choice(len(shares), count, p=shares)
    capacity = float((speed * (1 if seats is None else seats)).sum())
    arrival = np.cumsum(rng.exponential(float(costs @ shares) / (load * capacity), count))
    cost = costs[kind]
    model = (rng.random(count) < 0.3).astype(np.int64) if switch else np.zeros(count, np.int64)
    load_s = np.full(len(speed), switch * float(costs @ shares))
    return Arrivals(arrival, cost[:, None] / speed, cost=cost, kind=kind, model=model, switch_s=load_s)


def known_fleets(rng: np.random.Generator, count: int) -> list[Played]:
    """Three equal servers at a load of .86, and speeds 2, 1, .5, .5 at .85. Args: rng: draws. count: requests."""
    costs = COSTS / COSTS[-1] * 19.7
    fleets = ((np.ones(3), 0.86, 0.05), (np.array([2.0, 1.0, 0.5, 0.5]), 0.85, 0.1))
    return [
        Played(poisson(rng, count, costs, SHARES, speed, load=load), (1,) * len(speed), room == 0.05, room)
        for speed, load, room in fleets
    ]


def figures(outcome: Outcome) -> Floats:
    """Logarithms of the mean delay, and of what stands for p99, p99.9 and the costliest kind's p99, smoothed.

    Args:
        outcome: of at least 1,000 requests, so that each tail has some.
    """
    delay, kind = np.sort(outcome.delay_s), outcome.arrivals.kind
    costliest = np.sort(outcome.delay_s[kind == kind[outcome.arrivals.cost.argmax()]])

    def between(values: Floats, low: float, high: float) -> float:
        first, last = int(low * len(values)), int(high * len(values))
        return float(values[first : max(last, first + 1)].mean())

    tails = between(delay, 0.985, 0.995), between(delay, 0.998, 1.0), between(costliest, 0.985, 0.995)
    result: Floats = np.log(np.array([float(delay.mean()), *tails]))
    return result


def held(theta: Floats) -> Held:
    """What parameters stand for. Args: theta: weights and the logarithm of the price, `[F + 1]`."""
    return Held(LearnedOrder(theta[:-1].tolist()), price=float(np.exp(theta[-1])))


def start() -> Floats:
    """Parameters that training begins with, `[F + 1]`."""
    return np.array([*(START.get(name, 0.0) for name in FEATURES), np.log(PRICE)])


def cost(found: Floats, mean: Floats, limit: Floats, recipe: Recipe) -> float:
    """The logarithm of the ratio of means, and that of each tail beyond its limit, `tail` times.

    Args:
        found, mean, limit: of `figures`, `[4]`: of what is judged, of least cost, and of what limits the tails.
        recipe: see `tail` and `slack`.
    """
    beyond = (found - limit + recipe.slack)[1:].clip(min=0.0)
    return float(found[0] - mean[0] + recipe.tail * beyond.sum())


def judge(fleets: list[Played], recipe: Recipe) -> Callable[[Floats], float]:
    """A function from parameters to their cost on fleets, of which the known ones count as much as all others.

    Args:
        fleets: the last two are the known ones. recipe: see `cost`.
    """

    def play(played: Played, rule: Held | OnArrival) -> Floats:
        return figures(simulate(played.arrivals, rule, seats=played.seats))

    least = [play(x, OnArrival("least-cost")) for x in fleets]
    limits = [
        (mean if x.alike else play(x, OnArrival("least-finish"))) + np.array([0, 0, 0, x.room])
        for x, mean in zip(fleets, least, strict=True)
    ]

    def worth(theta: Floats) -> float:
        rule = held(theta)
        each = [cost(play(x, rule), mean, limit, recipe) for x, mean, limit in zip(fleets, least, limits, strict=True)]
        others = each[:-2]
        return float(np.mean(each[-2:]) + (np.mean(others) if others else 0.0))

    return worth


def train(
    recipe: Recipe | None = None, seed: int = 0, report: Callable[[str], None] = lambda line: None
) -> LearnedFile:
    """Trains from `start`; the mean of the last third of the generations is kept.

    Args:
        recipe: how; see its defaults. seed: of all draws. report: is told of the progress.

    Example:
        >>> recipe = Recipe(generations=1, pairs=1, random=0, known=1000)
        >>> train(recipe) == train(recipe)
        True
    """
    recipe = Recipe() if recipe is None else recipe
    theta = start()
    first, second, kept = np.zeros_like(theta), np.zeros_like(theta), []
    for generation in range(1, recipe.generations + 1):
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, 20, generation))))
        fleets = [random_fleet(rng, recipe.requests) for _ in range(recipe.random)]
        worth = judge([*fleets, *known_fleets(rng, recipe.known)], recipe)
        steps = rng.standard_normal((recipe.pairs, len(theta)))
        slopes = []
        for step in steps:
            up, down = (worth(theta + sign * recipe.deviation * step) for sign in (1, -1))
            slopes.append((up - down) / (2 * recipe.deviation) * step)
        slope = np.mean(slopes, 0)
        first, second = 0.9 * first + 0.1 * slope, 0.99 * second + 0.01 * slope**2
        rate = recipe.rate * (1 - (generation - 1) / recipe.generations)
        theta = theta - rate * (first / (1 - 0.9**generation)) / (np.sqrt(second / (1 - 0.99**generation)) + 1e-3)
        if generation > recipe.generations * 2 / 3:
            kept.append(theta)
        if generation % 5 == 0:
            report(f"generation {generation}: cost {worth(theta):.4f}, {np.round(theta, 2).tolist()}")
    final = np.mean(kept, 0) if kept else theta
    return LearnedFile(tuple(round(float(x), 4) for x in final[:-1]), round(float(np.exp(final[-1])), 4))
