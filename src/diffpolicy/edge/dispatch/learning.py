"""Trains a `LearnedOrder` on simulated fleets of all sizes: evolution with a full covariance under limits of the tail.

`diffpolicy train-fleet dispatch --out DIR` writes `order.json`, which `--order` takes; the same seed, the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from diffpolicy import _validate as check
from diffpolicy._types import Floats
from diffpolicy.edge.dispatch.adaptation import Adaptation, Limits
from diffpolicy.edge.dispatch.arrivals import Arrivals
from diffpolicy.edge.dispatch.compiled import knows
from diffpolicy.edge.dispatch.held import Held
from diffpolicy.edge.dispatch.learned_order import WEIGHTS, LearnedFile, LearnedOrder
from diffpolicy.edge.dispatch.moment import Dispatcher
from diffpolicy.edge.dispatch.named import make_held
from diffpolicy.edge.dispatch.on_arrival import OnArrival
from diffpolicy.edge.dispatch.simulate import simulate
from diffpolicy.edge.dispatch.training_fleets import Played, known_fleets, random_fleet

START = {
    "share": 2.4,
    "age": 0.43,
    "age of a large one": 1.6,
    "great age": 6.2,
    "great age from": 2.4,
    "passes": 0.065,
    "passes from": 1.0,
    "passes from, a share": -1.0,
    "slowness": 1.8,
    "late": 0.27,
    "late from": 7.4,
    "patience": 1.0,
    "patience a backlog": 0.04,
    "impatience": 1.2,
    "patience when busy": 0.38,
}
"""Near what an earlier search ended with, which began near what searches on one fleet each found."""
POSITIVE = ("age", "great age", "passes", "late", "patience", "patience a backlog", "impatience", "patience when busy")
"""Weights of which the logarithm is searched."""
SIMPLE: Mapping[str, Dispatcher] = {
    **{name: OnArrival(name) for name in ("least-cost", "least-finish")},
    **{name: make_held(name) for name in ("first-come", "shortest-first:cap=6")},
    **{f"cost-minus-age:{of}": make_held(f"cost-minus-age:{of}") for of in ("age=0.5", "age=1")},
    **{f"cost-minus-age:{of}": make_held(f"cost-minus-age:{of}") for of in ("age=1,price=2", "age=2,price=2")},
}
"""What the learned order is to be better than: the best of them, fleet by fleet."""


@dataclass(frozen=True)
class Recipe:
    """How an order is trained.

    Args:
        generations, draws: of evolution, and orders judged in each.
        random, requests: fleets that were drawn, and requests of each.
        streams, known: of arrivals on each of the two fleets that are known, and requests of each.
        deviation: of the first draws.
        front: how many times the mean on the two counts, for all fleets that were drawn together count once.
        worse: how many times more the excess counts where the order costs more than the best simple rule.
        tail: on a fleet that was drawn, what the logarithm of a tail beyond its limit costs, that of the mean being 1.
        slack: what the limits are narrowed by, as figures of few requests are rough.
    """

    generations: int = 45
    draws: int = 16
    random: int = 100
    requests: int = 12_000
    streams: int = 6
    known: int = 50_000
    deviation: float = 0.25
    front: float = 3.0
    worse: float = 2.0
    tail: float = 2.0
    slack: float = 0.003

    def __post_init__(self) -> None:
        for name in ("generations", "random", "requests", "streams", "known"):
            least = 0 if name == "random" else 1
            object.__setattr__(self, name, check.integer(getattr(self, name), name, least=least))
        object.__setattr__(self, "draws", check.integer(self.draws, "draws", least=4))


def figures(delay_s: Floats, arrivals: Arrivals) -> Floats:
    """Logarithms of the mean delay, and of what stands for p99, p99.9 and the costliest kind's p99, smoothed.

    Args:
        delay_s: of each request, `[K]`; at least 1,000, so that each tail has some. arrivals: they.
    """
    delay, kind = np.sort(delay_s), arrivals.kind
    costliest = np.sort(delay_s[kind == kind[arrivals.cost.argmax()]])

    def between(values: Floats, low: float, high: float) -> float:
        first, last = int(low * len(values)), int(high * len(values))
        return float(values[first : max(last, first + 1)].mean())

    tails = between(delay, 0.985, 0.995), between(delay, 0.9985, 0.9995), between(costliest, 0.985, 0.995)
    result: Floats = np.log(np.array([float(delay.mean()), *tails]))
    return result


def weights_of(point: Floats) -> tuple[float, ...]:
    """A point of the search as weights. Args: point: `[F]`."""
    each = zip(WEIGHTS, point, strict=True)
    return tuple(float(np.exp(x)) if name in POSITIVE else float(x) for name, x in each)


def start() -> Floats:
    """The point that the search begins with, `[F]`."""
    return np.array([np.log(START[name]) if name in POSITIVE else START[name] for name in WEIGHTS])


def cost(found: Floats, limit: Floats, recipe: Recipe) -> float:
    """The logarithm of the mean delay, and that of each tail beyond its limit, `tail` times.

    Args:
        found, limit: of `figures`, `[4]`. recipe: see `tail` and `slack`.
    """
    beyond = (found - limit + recipe.slack)[1:].clip(min=0.0)
    return float(found[0] + recipe.tail * beyond.sum())


def play(played: Played, rule: Dispatcher) -> Floats:
    """`figures` of a rule on a fleet, quick where numba is installed. Args: played: the fleet. rule: any."""
    if knows(rule):
        from diffpolicy.edge.dispatch.quick_rules import holds_simply, rule_delays

        if holds_simply(rule):
            return figures(rule_delays(played.arrivals, rule, played.seats), played.arrivals)
    return figures(simulate(played.arrivals, rule, seats=played.seats).delay_s, played.arrivals)


def learned(played: Played, weights: Sequence[float]) -> Floats:
    """`play` of a `LearnedOrder`, quick where numba is installed. Args: played: the fleet. weights: of it."""
    rule = Held(LearnedOrder(weights), price=None)
    if not knows(rule):
        return play(played, rule)
    from diffpolicy.edge.dispatch.quick import delays

    return figures(delays(played.arrivals, np.array(weights), played.seats), played.arrivals)


def limit_of(played: Played) -> Floats:
    """What the figures of a rule on a fleet may be, `[4]`; the first is the mean of least cost. Args: played: it."""
    least = play(played, OnArrival("least-cost"))
    tails = least if played.alike else play(played, OnArrival("least-finish"))
    return np.array([least[0], *(tails[1:3]), tails[3] + played.room])


class Judge:
    """What orders are worth.

    Args:
        known: streams of arrivals on each fleet whose limits hold each for itself. random: fleets on each of which the
            order is set against the best of `SIMPLE`. recipe: see `cost`.
    """

    def __init__(self, known: Sequence[Sequence[Played]], random: Sequence[Played], recipe: Recipe) -> None:
        self.known, self.random, self.recipe = known, random, recipe
        self.known_limits = [[limit_of(x) for x in streams] for streams in known]
        self.limits = [limit_of(x) for x in random]
        self.best = [
            min(cost(play(x, rule), limit, recipe) for rule in SIMPLE.values())
            for x, limit in zip(random, self.limits, strict=True)
        ]

    def __call__(self, weights: Sequence[float]) -> tuple[float, Floats]:
        """What it lowers, and by how much it exceeds the limits of the known fleets, `[3 fleets]`.

        The first is the mean logarithm of the ratio of means on the known fleets, `front` times, and of the cost on the
        others in relation to the best simple rule; what it is worse than that counts `worse` times more.

        Args:
            weights: of `LearnedOrder`.
        """
        recipe = self.recipe
        found = [
            np.mean([learned(x, weights) - limit for x, limit in zip(streams, limits, strict=True)], 0)
            for streams, limits in zip(self.known, self.known_limits, strict=True)
        ]
        value = recipe.front * float(np.mean([x[0] for x in found]))
        if self.random:
            each = zip(self.random, self.limits, self.best, strict=True)
            apart = np.array([cost(learned(x, weights), limit, recipe) - best for x, limit, best in each])
            value += float((apart + recipe.worse * apart.clip(min=0.0)).mean())
        return value, np.concatenate([x[1:] for x in found]) + recipe.slack


def train(
    recipe: Recipe | None = None, seed: int = 0, report: Callable[[str], None] = lambda line: None
) -> LearnedFile:
    """Trains from `start`; the mean of the search over the last third of the generations is kept.

    Args:
        recipe: how; see its defaults. seed: of all draws. report: is told of the progress.

    Example:
        >>> recipe = Recipe(generations=1, draws=4, random=0, streams=1, known=1000)
        >>> train(recipe) == train(recipe)
        True
    """
    recipe = Recipe() if recipe is None else recipe

    def generator(*key: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, 20, *key))))

    streams = [known_fleets(generator(1, i), recipe.known) for i in range(recipe.streams)]
    fleets = [random_fleet(generator(2, i), recipe.requests) for i in range(recipe.random)]
    judge = Judge(list(zip(*streams, strict=True)), fleets, recipe)
    search, kept = Adaptation(start(), recipe.deviation, recipe.draws, generator(3)), []
    limits = Limits(6)
    for generation in range(1, recipe.generations + 1):
        judged = [judge(weights_of(point)) for point in search.ask()]
        search.tell([value + limits.price(beyond) for value, beyond in judged])
        value, beyond = judge(weights_of(search.mean))
        limits.learn(beyond)
        if generation > recipe.generations * 2 / 3:
            kept.append(search.mean)
        if generation % 5 == 0:
            report(
                f"generation {generation}: {value:.4f}, beyond the limits {np.round(beyond, 3).tolist()}, step "
                f"{search.step:.3f}"
            )
    found = weights_of(np.mean(kept, 0) if kept else search.mean)
    return LearnedFile(tuple(round(x, 4) for x in found))
