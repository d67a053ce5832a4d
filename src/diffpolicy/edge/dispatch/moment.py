"""`Moment`: what a dispatcher knows when it decides, as arrays; and `Binding`, what it decides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from diffpolicy._types import Bools, Floats, Ints


class Binding(NamedTuple):
    """A waiting request goes to a server: `request`, its place among those that wait, and `server`, its number.

    Example:
        >>> Binding(request=0, server=2).server
        2
    """

    request: int
    server: int


@dataclass(frozen=True)
class Moment:
    """What a dispatcher knows of W requests that wait, in order of arrival, and of S servers.

    Args:
        wait_s: seconds since each request arrived, `[W]`.
        service_s: expected seconds on each server as it is, loading its model included, `[W, S]`; infinite where it
            cannot run, or may not go now.
        rest_s: expected seconds of all parts of the same request that have not been sent, this one among them,
            `[W, S]`; of a request of one part `service_s`.
        link_s: seconds that the links add, and that keep no server busy, `[W, S]`.
        passes: how many later arrivals were bound before each request, int64 `[W]`.
        deadline_s: seconds that are left to each, infinite without a deadline, `[W]`.
        weight: importance of each, `[W]`.
        cost: of each as it was declared, in any unit, `[W]`.
        free: how many requests each server can be sent now, int64 `[S]`.
        starts_s: seconds until a request that is sent now would begin, 0 where a seat is free, `[S]`.
        outstanding: requests that each server was sent and has not answered, int64 `[S]`.
        outstanding_cost: the declared cost of these, `[S]`.
        number: what the dispatcher calls each request, int64 `[W]`.
        loaded: number of the model that each server has, -1 for none, int64 `[S]`.
        foreign: requests that each server has from others, int64 `[S]`; empty where nobody counts them.
        seats: requests that each server works on at once, 0 where it is down, int64 `[S]`; empty where nobody says,
            which then are taken to be those that are free and those of what it was sent.

    Example:
        >>> moment = Moment.of(service_s=[[4.0, 8.0], [1.0, 2.0]], wait_s=[3.0, 0.5], starts_s=[0.0, 6.0])
        >>> moment.free.tolist(), moment.feasible.tolist()
        ([1, 0], [[True, False], [True, False]])
    """

    wait_s: Floats
    service_s: Floats
    rest_s: Floats
    link_s: Floats
    passes: Ints
    deadline_s: Floats
    weight: Floats
    cost: Floats
    free: Ints
    starts_s: Floats
    outstanding: Ints
    outstanding_cost: Floats
    number: Ints
    loaded: Ints
    foreign: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    seats: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def of(
        cls,
        service_s: Floats | list[list[float]],
        wait_s: Floats | list[float],
        starts_s: Floats | list[float],
        *,
        passes: Ints | list[int] | None = None,
        deadline_s: Floats | list[float] | None = None,
        weight: Floats | list[float] | None = None,
    ) -> Moment:
        """A moment of servers with one seat each, from what most rules read.

        Args:
            service_s: `[W, S]`. wait_s: `[W]`. starts_s: `[S]`; a server is free where it is 0.
            passes: `[W]`, 0 by default. deadline_s: `[W]`, none by default. weight: `[W]`, 1 by default.
        """
        service, wait, starts = (np.asarray(x, dtype=np.float64) for x in (service_s, wait_s, starts_s))
        one = np.ones(len(wait))
        busy = (starts > 0).astype(np.int64)
        return cls(
            wait,
            service,
            service,
            np.zeros_like(service),
            np.zeros(len(wait), np.int64) if passes is None else np.asarray(passes, np.int64),
            one * np.inf if deadline_s is None else np.asarray(deadline_s, np.float64),
            one if weight is None else np.asarray(weight, np.float64),
            np.where(np.isfinite(service), service, 0.0).max(-1),
            1 - busy,
            starts,
            busy,
            starts,
            np.arange(len(wait)),
            np.full(len(starts), -1),
        )

    @property
    def runs(self) -> Bools:
        """Which server can run which request at all, bool `[W, S]`."""
        result: Bools = np.isfinite(self.service_s)
        return result

    @property
    def feasible(self) -> Bools:
        """Which request may be bound to which server now, bool `[W, S]`."""
        result: Bools = self.runs & (self.free > 0)
        return result


@runtime_checkable
class Dispatcher(Protocol):
    """Decides which waiting request goes to which server; knows nothing of clocks, HTTP or processes.

    It is a function of the moment and of what it has drawn, so the same seed and the same moments give the same
    bindings.

    Example:
        >>> class Fastest:
        ...     holds = False
        ...     def begin(self, seed): ...
        ...     def decide(self, moment):
        ...         return Binding(0, int(moment.service_s[0].argmin()))
        >>> simulate(Arrivals([0.0, 0.0], [[2.0, 1.0], [2.0, 1.0]]), Fastest()).delay_s.tolist()
        [1.0, 2.0]
    """

    @property
    def holds(self) -> bool:
        """Whether requests may wait for a server to become free; otherwise each is bound when it arrives.

        It may change with the moments that are seen, see `FallsBack`: it is read before each, and after it for whether
        servers that are not free may be named. So ask where it is false, a server is free or foreign work is seen.
        """

    def decide(self, moment: Moment) -> Binding | None:
        """The next binding; None: all that wait go on waiting. It is asked again until then.

        Args:
            moment: at least one request waits.
        """

    def begin(self, seed: int) -> None:
        """Forgets what it remembers, and draws from a seed.

        Args:
            seed: at least 0.
        """
