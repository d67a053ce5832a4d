"""`OnArrival`: each request is bound the moment it arrives, as routers of image requests do today."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from diffpolicy import _validate as check
from diffpolicy._types import Floats
from diffpolicy.edge.dispatch.moment import Binding, Moment
from diffpolicy.errors import InputError

Weighing = Callable[[Moment], Floats]
"""From a moment to what each server costs the request that came first, `[S]`; the smallest is taken."""


def least_finish(moment: Moment) -> Floats:
    """When each server would have done the request, links included, `[S]`.

    Args:
        moment: of the request first in it.

    Example:
        >>> least_finish(Moment.of(service_s=[[4.0, 1.0]], wait_s=[0.0], starts_s=[0.0, 2.0]))
        array([4., 3.])
    """
    finish: Floats = moment.starts_s + moment.service_s[0] + moment.link_s[0]
    return finish


def least_cost(moment: Moment) -> Floats:
    """The declared cost that each server was sent and has not done, `[S]` (llm-d-router #2053). Args: moment: any."""
    return moment.outstanding_cost


def least_outstanding(moment: Moment) -> Floats:
    """How many requests each server was sent and has not answered, `[S]`. Args: moment: any."""
    return moment.outstanding.astype(np.float64)


def any_server(moment: Moment) -> Floats:
    """The same for all, `[S]`. Args: moment: any."""
    return np.zeros(len(moment.free))


WEIGHINGS: Mapping[str, Weighing] = {
    "least-finish": least_finish,
    "least-cost": least_cost,
    "least-outstanding": least_outstanding,
    "random": any_server,
}
"""What servers are weighed by, by name; ties are drawn."""


@dataclass(frozen=True)
class OnArrival:
    """Sends each request to the server that costs least when it arrives; of equal ones it draws.

    Args:
        weigh: a name of `WEIGHINGS`, or a function of a moment.
        seed: of the draws.

    Raises:
        InputError: there is no such name; while it decides: no server can run the request.

    Example:
        >>> moment = Moment.of(service_s=[[4.0, 1.0]], wait_s=[0.0], starts_s=[0.0, 5.0])
        >>> OnArrival("least-finish").decide(moment)
        Binding(request=0, server=0)
    """

    weigh: str | Weighing = "least-finish"
    seed: int = 0
    _drawn: list[np.random.Generator] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.weigh, str):
            check.choice(self.weigh, "weigh", WEIGHINGS)
        object.__setattr__(self, "_drawn", [np.random.default_rng(self.seed)])

    @property
    def holds(self) -> bool:
        """No."""
        return False

    def begin(self, seed: int) -> None:
        """Draws from another seed. Args: seed: at least 0."""
        self._drawn[0] = np.random.default_rng(seed)

    def decide(self, moment: Moment) -> Binding | None:
        """Where the longest waiting request goes. Args: moment: at least one request waits."""
        costs = (WEIGHINGS[self.weigh] if isinstance(self.weigh, str) else self.weigh)(moment)
        costs = np.where(moment.runs[0], costs, np.inf)
        if not np.isfinite(costs).any():
            raise InputError("a request arrived that no server can run")
        best = np.flatnonzero(costs == costs.min())
        return Binding(0, int(best[0] if len(best) == 1 else best[self._drawn[0].integers(len(best))]))
