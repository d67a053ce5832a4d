"""`LearnedOrder`: scores of requests on servers that were learnt in the simulator, for fleets of any size."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from diffpolicy import _validate as check
from diffpolicy._types import Floats
from diffpolicy.edge.dispatch.drain import drain_s, rates
from diffpolicy.edge.dispatch.moment import Moment
from diffpolicy.errors import InputError

KEEP = 2000
"""Requests and decisions after which the means that an order remembers forget."""
LEAST_BACKLOG = 0.1
"""Added to the usual backlog, in usual services of one server: at low load nothing waits, and all is in relation to it.
"""
FEATURES = (
    *("log cost", "share cost", "seconds", "usual seconds", "service", "log seconds"),
    *("slowness", "late", "slowness of a large one"),
    *("age", "age above 1", "age above 3", "age of a large one", "great age of a large one", "age in services"),
    *("passes", "passes above 2", "log cost in a queue", "age in a queue", "link", "slowness in a queue"),
)
"""What a score weighs, in this order; see `LearnedOrder`."""
SEEN, SERVICES, SERVICE_S, DECISIONS, BACKLOG_S = range(5)
"""Places of an order's memory: the last number seen, of how many the usual service is the mean, and so on."""


def rough_log2(x: Floats) -> Floats:
    """The logarithm to base 2, straight between powers of two, so that all machines agree on each bit.

    Args:
        x: any shape; what is below 1e-6 counts as that.

    Example:
        >>> rough_log2(np.array([1.0, 3.0, 4.0])).tolist()
        [0.0, 1.5, 2.0]
    """
    mantissa, exponent = np.frexp(x.clip(min=1e-6))
    result: Floats = exponent + 2.0 * mantissa - 2.0
    return result


@dataclass(frozen=True)
class LearnedOrder:
    """A weighted sum of features of request i on server j, none of which has a unit or counts servers.

    With service e_ij, h_i the harmonic mean of it over servers, H the running mean of h over requests, D the seconds in
    which all servers do what waits, B the running mean of D over decisions (plus H / 10 S), c = h_i / H of what is left
    of the request, b = wait / B, k = c / (1 + c), q = min(D / B, 5) and p = passes / S, the features are

        log2 c, k, e_ij / B, h_i / B, e_ij / H, log2 (e_ij / H), s = e_ij / least e_i - 1 up to 10, how much later it
        ends there than on its best server over H up to 10, s k, b, (b - 1)+, (b - 3)+, b k, (b - 2)+ k, wait / H, p,
        (p - 2)+, q log2 c, q b, link / B, q s

    where e and h in the first six are of all that is left of the request. It can be Yu and Scully's boost (2023), whose
    score log (1 - exp(-e / B)) - wait / B has the lightest tail on one server, or `CostMinusAge`.

    It remembers H and B, so that nothing needs to be told; `begin` forgets them.

    Args:
        weights: one a feature, of `FEATURES`.
        tail: multiplies waits and passes: the greater it is the shorter the tail and the longer the mean.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> order = LearnedOrder([float(name in ("log cost",)) - (name == "age") for name in FEATURES])
        >>> moment = Moment.of(service_s=[[4.0], [1.0]], wait_s=[3.0, 0.5], starts_s=[0.0])
        >>> order.see(moment)
        >>> int(order.scores(moment).argmin())
        1
    """

    name: ClassVar[str] = "learned"
    weights: Sequence[float]
    tail: float = 1.0
    memory: Floats = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.weights) != len(FEATURES):
            raise InputError(f"weights must be {len(FEATURES)} numbers, got {len(self.weights)}")
        object.__setattr__(self, "weights", tuple(check.number(w, "weights") for w in self.weights))
        check.number(self.tail, "tail", least=0)
        object.__setattr__(self, "memory", np.zeros(5))
        self.begin()

    def begin(self) -> None:
        """Forgets what is usual."""
        self.memory[:] = (-1.0, 0.0, 0.0, 0.0, 0.0)

    def see(self, moment: Moment) -> None:
        """Takes up what is usual. Args: moment: of a decision; requests of numbers that it knows count once."""
        m, each_s = self.memory, _usual_s(moment)
        for number, seconds in zip(moment.number, each_s, strict=True):
            if number > m[SEEN]:
                m[SEEN], m[SERVICES] = number, min(m[SERVICES] + 1.0, KEEP)
                m[SERVICE_S] += (seconds - m[SERVICE_S]) / m[SERVICES]
        m[DECISIONS] = min(m[DECISIONS] + 1.0, KEEP)
        m[BACKLOG_S] += (drain_s(moment.service_s) - m[BACKLOG_S]) / m[DECISIONS]

    def scores(self, moment: Moment) -> Floats:
        """The weighted sums, `[W, S]`. Args: moment: as everywhere; `see` has taken it up."""
        servers = moment.service_s.shape[1]
        usual = max(self.memory[SERVICE_S], 1e-9)
        backlog = self.memory[BACKLOG_S] + LEAST_BACKLOG * usual / servers
        service = moment.service_s.clip(max=1e300)
        rest = moment.rest_s.clip(max=1e300)
        best = service.min(-1, keepdims=True).clip(min=1e-9)
        end = moment.starts_s + service + moment.link_s
        parts = (moment.rest_s.min(-1) / moment.service_s.min(-1).clip(min=1e-9))[:, None].clip(min=1.0)
        left = _usual_s(moment)[:, None] * np.floor(parts + 0.5)
        c, log = left / usual, rough_log2(left / usual)
        large = c / (1.0 + c)
        wait = (moment.wait_s * self.tail)[:, None]
        b, p = wait / backlog, (moment.passes * self.tail / servers)[:, None]
        q = min(drain_s(moment.service_s) / backlog, 5.0)
        slow = (service / best - 1.0).clip(max=10.0)
        features = (
            log,
            large,
            rest / backlog,
            left / backlog,
            rest / usual,
            rough_log2(rest / usual),
            slow,
            ((end - end.min(-1, keepdims=True)) / usual).clip(max=10.0),
            slow * large,
            b,
            (b - 1.0).clip(min=0.0),
            (b - 3.0).clip(min=0.0),
            b * large,
            (b - 2.0).clip(min=0.0) * large,
            wait / usual,
            p,
            (p - 2.0).clip(min=0.0),
            q * log,
            q * b,
            moment.link_s / backlog,
            q * slow,
        )
        total = np.zeros(service.shape)
        for weight, value in zip(self.weights, features, strict=True):
            total = total + weight * value
        return total


def _usual_s(moment: Moment) -> Floats:
    """The harmonic mean of a request's service over the servers that can run it, `[W]`."""
    result: Floats = moment.runs.sum(-1) / rates(moment.service_s)
    return result


@dataclass(frozen=True)
class LearnedFile:
    """What a file of a learned order holds. Args: weights: of `LearnedOrder`. price: of `Held`."""

    weights: tuple[float, ...]
    price: float

    @classmethod
    def read(cls, path: str | Path) -> LearnedFile:
        """From a file of `diffpolicy train-fleet dispatch`.

        Args:
            path: of the file.

        Raises:
            InputError: it cannot be read, lacks a feature or the price, or one is no number.
        """
        what, data = f"order file {Path(path).name}", check.read_json(Path(path), "order file")
        weights = data.get("weights") if isinstance(data, Mapping) else None
        if not isinstance(data, Mapping) or not isinstance(weights, Mapping) or set(weights) != set(FEATURES):
            raise InputError(f"{what} must hold 'price' and 'weights', one of each of: {', '.join(FEATURES)}")
        with check.within(what):
            price = check.number(data.get("price"), "price", least=0)
            return cls(tuple(check.number(weights[name], name) for name in FEATURES), price)

    def text(self) -> str:
        """As it is written."""
        weights = dict(zip(FEATURES, self.weights, strict=True))
        return json.dumps({"weights": weights, "price": self.price}, indent=2) + "\n"
