"""Orders: which of the waiting requests goes first, as scores of requests on servers; the smallest goes first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from diffpolicy import _validate as check
from diffpolicy._types import Bools, Floats
from diffpolicy.edge.dispatch.moment import Moment


@runtime_checkable
class Order(Protocol):
    """Says which waiting request goes first.

    Example:
        >>> class LongestFirst:
        ...     def scores(self, moment):
        ...         return -moment.rest_s
        >>> simulate(Arrivals([0.0, 0.0], [[1.0], [2.0]]), Held(LongestFirst())).delay_s.tolist()
        [3.0, 2.0]
    """

    def scores(self, moment: Moment) -> Floats:
        """Of each request on each server, `[W, S]`, finite where it runs there; the smallest goes first."""


@runtime_checkable
class Remembers(Order, Protocol):
    """An order that remembers what it saw; `Held` shows it each moment before its scores are asked for.

    Example:
        >>> isinstance(FirstCome(), Remembers)
        False
    """

    def begin(self) -> None:
        """Forgets it."""

    def see(self, moment: Moment) -> None:
        """Takes up a moment in which a server is free. Args: moment: as everywhere."""


@runtime_checkable
class Refuses(Order, Protocol):
    """An order that also says which free server is not worth taking; `Held` heeds its `price` besides.

    Example:
        >>> isinstance(FirstCome(), Refuses)
        False
    """

    def refused(self, moment: Moment) -> Bools:
        """Which requests go on waiting though a server is free, `[W, S]`. Args: moment: as everywhere."""


@dataclass(frozen=True)
class FirstCome:
    """The longest wait first; of servers the fastest.

    Example:
        >>> moment = Moment.of(service_s=[[4.0], [1.0]], wait_s=[3.0, 0.5], starts_s=[0.0])
        >>> int(FirstCome().scores(moment).argmin())
        0
    """

    name: ClassVar[str] = "first-come"

    def scores(self, moment: Moment) -> Floats:
        """Minus the seconds waited, `[W, S]`. Args: moment: as everywhere."""
        return 0.0 * moment.rest_s.clip(max=1.0) - moment.wait_s[:, None]


@dataclass(frozen=True)
class ShortestFirst:
    """The least work that is left of the request first.

    It has the smallest mean delay of all orders that know no more, and lets long requests wait without a bound, so
    `Held` gives it a cap on passes.

    Example:
        >>> moment = Moment.of(service_s=[[4.0], [1.0]], wait_s=[3.0, 0.5], starts_s=[0.0])
        >>> int(ShortestFirst().scores(moment).argmin())
        1
    """

    name: ClassVar[str] = "shortest-first"

    def scores(self, moment: Moment) -> Floats:
        """Seconds of what is left of the request, `[W, S]`. Args: moment: as everywhere."""
        return moment.rest_s


@dataclass(frozen=True)
class HighestResponseRatio:
    """The greatest (wait + service) / service first (Brinch Hansen, 1971).

    Example:
        >>> moment = Moment.of(service_s=[[4.0], [1.0]], wait_s=[3.0, 0.5], starts_s=[0.0])
        >>> HighestResponseRatio().scores(moment).tolist()
        [[-1.75], [-1.5]]
    """

    name: ClassVar[str] = "highest-response-ratio"

    def scores(self, moment: Moment) -> Floats:
        """Minus the ratio, `[W, S]`. Args: moment: as everywhere."""
        rest = moment.rest_s.clip(min=1e-9, max=1e300)
        ratio: Floats = (moment.wait_s[:, None] + moment.rest_s.clip(max=1e300)) / rest
        return -ratio


@dataclass(frozen=True)
class CostMinusAge:
    """The least service seconds minus `age` times the seconds waited first.

    With `age` 0 it is `ShortestFirst`, and the greater it is the closer to `FirstCome`: one weight moves along the
    front of mean and tail.

    Args:
        age: weight of a second waited, at least 0.

    Raises:
        InputError: `age` is below 0.

    Example:
        >>> moment = Moment.of(service_s=[[4.0], [1.0]], wait_s=[3.0, 0.5], starts_s=[0.0])
        >>> CostMinusAge(0.5).scores(moment).tolist()
        [[2.5], [0.75]]
    """

    age: float = 0.5
    name: ClassVar[str] = "cost-minus-age"

    def __post_init__(self) -> None:
        check.number(self.age, "age", least=0)

    def scores(self, moment: Moment) -> Floats:
        """Seconds, `[W, S]`. Args: moment: as everywhere."""
        result: Floats = moment.rest_s - self.age * moment.wait_s[:, None]
        return result


@dataclass(frozen=True)
class WeightedShortest:
    """The least service seconds per weight first (Smith's rule: weighted shortest processing time).

    Example:
        >>> moment = Moment.of(service_s=[[4.0], [1.0]], wait_s=[3.0, 0.5], starts_s=[0.0], weight=[8.0, 1.0])
        >>> int(WeightedShortest().scores(moment).argmin())
        0
    """

    name: ClassVar[str] = "weighted-shortest"

    def scores(self, moment: Moment) -> Floats:
        """Seconds per weight, `[W, S]`. Args: moment: as everywhere."""
        return moment.rest_s / moment.weight[:, None]


@dataclass(frozen=True)
class EarliestDeadline:
    """The least time to the deadline first; what has none comes last, in order of arrival.

    Example:
        >>> moment = Moment.of(service_s=[[4.0], [1.0]], wait_s=[3.0, 0.5], starts_s=[0.0], deadline_s=[9.0, 20.0])
        >>> int(EarliestDeadline().scores(moment).argmin())
        0
    """

    name: ClassVar[str] = "earliest-deadline"

    def scores(self, moment: Moment) -> Floats:
        """Seconds left, and for those without a deadline a great number minus the seconds waited, `[W, S]`."""
        left = moment.deadline_s.clip(max=1e12)
        score = left - (left >= 1e12) * moment.wait_s
        return 0.0 * moment.rest_s.clip(max=1.0) + score[:, None]


ORDERS: Mapping[str, type[Order]] = {
    order.name: order
    for order in (FirstCome, ShortestFirst, HighestResponseRatio, CostMinusAge, WeightedShortest, EarliestDeadline)
}
"""Orders by name."""
