"""`Held`: requests wait at the dispatcher, and a free server is given one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from diffpolicy import _validate as check
from diffpolicy._types import Bools
from diffpolicy.edge.dispatch.drain import drain_s
from diffpolicy.edge.dispatch.moment import Binding, Moment
from diffpolicy.edge.dispatch.orders import Order, Refuses, Remembers, ShortestFirst
from diffpolicy.errors import InputError

ServerChoice = Callable[[Moment, int, Bools], int]
"""From a moment, a request's place among those that wait, and the servers it may go to, bool `[S]`, to one of them."""


def too_slow(moment: Moment, price: float) -> Bools:
    """Which bindings to a free server are worse than to wait for a faster one that is busy, bool `[W, S]`.

    Server j is refused to a request where its service there exceeds `f + price x (seconds in which all servers do what
    waits)`, f being the earliest end on a faster server that has no free seat. A second for which a server is left free
    costs all that wait, hence the price; without one the queue grows until nobody is refused anything.

    Args:
        moment: of W requests and S servers. price: at least 0.

    Example:
        >>> moment = Moment.of(service_s=[[1.0, 9.0]], wait_s=[0.0], starts_s=[2.0, 0.0])
        >>> too_slow(moment, price=2.0)
        array([[False,  True]])
    """
    service, busy = moment.service_s, moment.free <= 0
    refused = np.zeros(service.shape, dtype=bool)
    if not busy.any():
        return refused
    ends = moment.starts_s + service
    worth, free = price * drain_s(service), np.flatnonzero(~busy)
    if len(free) > len(service):  # the fewer rounds
        for i, row in enumerate(service):
            faster = busy & (row < row[free, None])
            refused[i, free] = row[free] > np.where(faster, ends[i], np.inf).min(-1) + worth
        return refused
    for j in free:
        faster = busy & (service < service[:, j : j + 1])
        refused[:, j] = service[:, j] > np.where(faster, ends, np.inf).min(-1) + worth
    return refused


@dataclass(frozen=True)
class Held:
    """Binds as late as it can: when a server becomes free, to the request that the order puts first.

    Of all requests that wait and all free servers, the pair of the smallest score is bound; of equal scores the one
    that ends soonest, then the earlier request, then the server of the lower number. A request that `cap` later ones
    have passed goes before all others as soon as a server is free that can run it.

    Args:
        order: which request goes first.
        cap: how many later arrivals may be bound before a request; None: any number.
        price: of leaving a slow server free for a request, see `too_slow`; None: no server that is free is refused.
        choose: which of the free servers a request that goes first gets; None: that of the smallest score.

    Raises:
        InputError: an argument is out of range; or, while it decides, a score or a choice is none.

    Example:
        >>> held = Held(ShortestFirst(), cap=2)
        >>> held.decide(Moment.of(service_s=[[4.0], [1.0]], wait_s=[3.0, 0.5], starts_s=[0.0]))
        Binding(request=1, server=0)
        >>> held.decide(Moment.of(service_s=[[4.0], [1.0]], wait_s=[3.0, 0.5], starts_s=[0.0], passes=[2, 0]))
        Binding(request=0, server=0)
        >>> held.decide(Moment.of(service_s=[[4.0]], wait_s=[3.0], starts_s=[1.0])) is None  # nobody is free
        True
    """

    order: Order = field(default_factory=ShortestFirst)
    cap: int | None = None
    price: float | None = 3.0
    choose: ServerChoice | None = None
    _remembers: bool = field(init=False, repr=False, compare=False)
    _refuses: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # asked once, since to ask a protocol takes as long as a good part of a decision
        object.__setattr__(self, "_remembers", isinstance(self.order, Remembers))
        object.__setattr__(self, "_refuses", isinstance(self.order, Refuses))
        if self.cap is not None:
            object.__setattr__(self, "cap", check.integer(self.cap, "cap", least=0))
        if self.price is not None:
            check.number(self.price, "price", least=0)

    @property
    def holds(self) -> bool:
        """Yes."""
        return True

    def begin(self, seed: int) -> None:
        """Nothing is drawn, and what the order remembers is forgotten. Args: seed: is not read."""
        if self._remembers:
            cast(Remembers, self.order).begin()

    def decide(self, moment: Moment) -> Binding | None:
        """The pair of the smallest score; None where no server is free, or all that are free are worth refusing.

        Args:
            moment: at least one request waits.
        """
        feasible = moment.feasible
        if self._remembers and (moment.free > 0).any():
            cast(Remembers, self.order).see(moment)
        if not feasible.any():
            return None
        feasible = self._allowed(moment, feasible)
        if not feasible.any():
            return None
        scores: Any = np.asarray(self.order.scores(moment))
        if scores.shape != feasible.shape or np.isnan(scores[feasible]).any():
            raise InputError(
                f"an order must give a number for each of {feasible.shape[0]} requests on each of {feasible.shape[1]} "
                f"servers, got {check.show(scores.tolist())}"
            )
        pairs = np.argwhere(feasible & (scores == scores[feasible].min()))
        ends = (moment.starts_s + moment.service_s + moment.link_s)[pairs[:, 0], pairs[:, 1]]
        request, server = (int(x) for x in pairs[ends.argmin()])
        if self.choose is not None:
            server = self.choose(moment, request, feasible[request])
            if not (0 <= server < feasible.shape[1] and feasible[request, server]):
                raise InputError(f"a request was given server {server}, which is not free or cannot run it")
        return Binding(request, server)

    def _allowed(self, moment: Moment, feasible: Bools) -> Bools:
        """Of the bindings that could be, those that may: of a request that too many have passed, or worth it."""
        if self.cap is not None:
            overdue = np.flatnonzero((moment.passes >= self.cap) & feasible.any(-1))
            if len(overdue):
                only = np.zeros_like(feasible)
                only[overdue[0]] = feasible[overdue[0]]
                return only
        if self._refuses:
            feasible = feasible & ~cast(Refuses, self.order).refused(moment)
        return feasible if self.price is None else feasible & ~too_slow(moment, self.price)
