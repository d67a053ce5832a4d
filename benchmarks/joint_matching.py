"""Held requests: one joint matching of those that wait to servers, against one binding at a time."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diffpolicy._compile import compile  # noqa: A004
from diffpolicy.edge.dispatch.held import too_slow
from diffpolicy.edge.dispatch.moment import Binding, Dispatcher, Moment
from diffpolicy.edge.dispatch.orders import Order

MOST = 16
"""Requests that are matched at once, the shortest."""
REFUSED = 1e9
"""The score of a pair that may not be."""


@compile
def matching(cost: Any) -> Any:
    """The matching of all rows to columns of the least sum, int64 `[n]` (shortest augmenting paths; Kuhn 1955).

    Args:
        cost: `[n, m]`, n at most m, finite.
    """
    n, m = cost.shape
    of_row, of_column = np.zeros(n + 1), np.zeros(m + 1)
    row_of = np.zeros(m + 1, np.int64)
    for i in range(1, n + 1):
        row_of[0], at = i, 0
        least, came = np.full(m + 1, np.inf), np.zeros(m + 1, np.int64)
        done = np.zeros(m + 1, np.bool_)
        while True:
            done[at] = True
            row, step, following = row_of[at], np.inf, 0
            for j in range(1, m + 1):
                if not done[j]:
                    slack = cost[row - 1, j - 1] - of_row[row] - of_column[j]
                    if slack < least[j]:
                        least[j], came[j] = slack, at
                    if least[j] < step:
                        step, following = least[j], j
            for j in range(m + 1):
                if done[j]:
                    of_row[row_of[j]] += step
                    of_column[j] -= step
                else:
                    least[j] -= step
            at = following
            if row_of[at] == 0:
                break
        while at:
            row_of[at] = row_of[came[at]]
            at = came[at]
    found = np.zeros(n, np.int64)
    for j in range(1, m + 1):
        if row_of[j]:
            found[row_of[j] - 1] = j - 1
    return found


def planned(service_s: Any, starts_s: Any) -> tuple[Any, Any]:
    """Servers of requests, and places from the end of each server's list, that end soonest in the sum, `[W]` each.

    A request of k-th place from the end delays k requests, itself among them: sum of k e_ij + start_j over all is the
    sum of ends, so that the best lists are a matching of requests to places (Horn 1973; Bruno, Coffman, Sethi 1974).

    Args:
        service_s: `[W, S]`, finite. starts_s: when each server is free, `[S]`.

    Example:
        >>> planned(np.array([[4.0, 9.0], [1.0, 9.0]]), np.array([0.0, 0.0]))  # both to the fast one
        (array([0, 0]), array([1, 2]))
    """
    w, s = service_s.shape
    place = np.arange(1, w + 1)
    cost = service_s[:, :, None] * place + starts_s[:, None]
    found = matching(np.ascontiguousarray(cost.reshape(w, s * w)))
    return found // w, found % w + 1


@dataclass
class Planned:
    """Matches all that wait to places on all servers, free and busy, and binds what comes first on a free one."""

    holds: bool = True
    matched: list[float] = field(default_factory=list)

    def begin(self, seed: int) -> None:
        """Nothing is drawn."""

    def decide(self, moment: Moment) -> Binding | None:
        """A binding of the plan; None where it leaves all that are free to themselves."""
        if not (moment.free > 0).any():
            return None
        rows = moment.service_s.min(-1).argsort(kind="stable")[:MOST]
        server, place = planned(moment.service_s[rows], moment.starts_s)
        for j in np.flatnonzero(moment.free > 0):
            mine = np.flatnonzero(server == j)
            if len(mine):
                return Binding(int(rows[mine[place[mine].argmax()]]), int(j))
        return None


@dataclass
class Together:
    """Binds by an order, all free servers at once: the pairs whose scores have the least sum; else as `Held`.

    Args:
        order: of requests. price: see `Held`.
        chances: counts moments with a free server, and those of them with two and two requests.
    """

    order: Order
    price: float | None = None
    holds: bool = True
    chances: list[int] = field(default_factory=lambda: [0, 0])

    def begin(self, seed: int) -> None:
        """Nothing is drawn."""

    def decide(self, moment: Moment) -> Binding | None:
        """The pair of the matching that has the least score."""
        free = np.flatnonzero(moment.free > 0)
        if not len(free):
            return None
        self.chances[0] += 1
        self.chances[1] += len(free) > 1 and len(moment.wait_s) > 1
        scores = np.asarray(self.order.scores(moment))
        if self.price is not None:
            scores = np.where(too_slow(moment, self.price), REFUSED, scores)
        scores = scores[:, free]
        few = min(scores.shape)
        found = matching(np.ascontiguousarray(scores if few == len(scores) else scores.T))
        pairs = [(i, int(j)) if few == len(scores) else (int(j), i) for i, j in enumerate(found)]
        request, at = min(pairs, key=lambda x: scores[x])
        return None if scores[request, at] >= REFUSED else Binding(request, int(free[at]))


@dataclass
class Timed:
    """A dispatcher, and the seconds of the processor that it takes. Args: of: it."""

    of: Dispatcher
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Of the dispatcher."""
        return self.of.holds

    def begin(self, seed: int) -> None:
        """Of the dispatcher."""
        self.of.begin(seed)

    def decide(self, moment: Moment) -> Binding | None:
        """Of the dispatcher."""
        begun = time.process_time()
        found = self.of.decide(moment)
        self.seconds += time.process_time() - begun
        return found
