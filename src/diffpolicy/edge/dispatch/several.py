"""`simulate_several`: several dispatchers before the same servers, which see each other or do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from diffpolicy import _validate as check
from diffpolicy._types import Ints
from diffpolicy.edge.dispatch.arrivals import Arrivals
from diffpolicy.edge.dispatch.moment import Dispatcher, Moment
from diffpolicy.edge.dispatch.outcome import Outcome
from diffpolicy.edge.dispatch.simulation import Simulation
from diffpolicy.errors import InputError


class Shared(Simulation):
    """A fleet with several dispatchers, each with a queue and an account of its own.

    Args:
        arrivals: K requests. of: which dispatcher meets each, int64 `[K]`. count: of dispatchers.
        sees_counts: whether each knows how many requests of the others every server has.
    """

    def __init__(self, arrivals: Arrivals, of: Ints, count: int, sees_counts: bool) -> None:
        super().__init__(arrivals)
        self.of, self.sees_counts = of, sees_counts
        self.views = [Simulation(arrivals) for _ in range(count)]

    def advance(self, by_clock: bool = True) -> None:
        """As of one dispatcher; each learns of its own requests alone."""
        ends = list(self.running)
        super().advance(by_clock)
        for end_s, number, server in sorted(ends):
            if end_s <= self.now_s:
                self.views[self.of[number]].account.done(server, number, end_s)

    def seen(self, dispatcher: int) -> tuple[list[int], Moment | None]:
        """Whom a dispatcher lets wait, and what it knows; None where nobody waits for it."""
        own = [i for i in self.waiting if self.of[i] == dispatcher]
        if not own:
            return own, None
        whole, account = self.moment(), self.views[dispatcher].account
        rows = np.isin(self.waiting, own)
        if self.sees_counts:
            for server, count in enumerate(self.account.outstanding.tolist()):
                account.foreign(server, count, self.now_s)
        by_request = {
            name: getattr(whole, name)[rows]
            for name in ("wait_s", "service_s", "rest_s", "link_s", "passes", "deadline_s", "weight", "cost", "number")
        }
        return own, replace(
            whole,
            **by_request,
            free=account.free(self.now_s),
            starts_s=account.starts_s(self.now_s),
            outstanding=account.outstanding,
            outstanding_cost=account.outstanding_cost,
            foreign=account.foreign_count,
        )


def simulate_several(
    arrivals: Arrivals,
    dispatchers: Sequence[Dispatcher],
    *,
    sees_counts: bool = False,
    seed: int = 0,
    of: Ints | None = None,
) -> Outcome:
    """Plays requests that reach several dispatchers before the same servers, one at a time each.

    A dispatcher that does not see the others takes a server for free that works for one of them; what it then sends
    waits there, out of all order.

    Args:
        arrivals: K requests on S servers.
        dispatchers: each meets a share of the requests.
        sees_counts: whether each knows how many requests every server has; those of others are foreign to it.
        seed: of what they draw, and of the shares. of: which dispatcher meets each, int64 `[K]`; drawn by default.

    Returns:
        Where and when each ran.

    Raises:
        InputError: there is no dispatcher, or one leaves requests waiting for ever.

    Example:
        >>> arrivals = Arrivals([0.0, 0.0], [[1.0, 1.0]] * 2)
        >>> simulate_several(arrivals, [Held(), Held()], sees_counts=True).delay_s.tolist()
        [1.0, 1.0]
    """
    count = check.integer(len(dispatchers), "the number of dispatchers", least=1)
    if of is None:
        of = np.random.default_rng(seed).integers(0, count, len(arrivals))
    shared = Shared(arrivals, of, count, sees_counts)
    for number, dispatcher in enumerate(dispatchers):
        dispatcher.begin(seed + number)
    while not shared.over:
        if shared.next == len(arrivals) and not shared.running:
            raise InputError(
                f"the dispatchers leave {len(shared.waiting)} requests waiting though all servers are free"
            )
        shared.advance()
        for number, dispatcher in enumerate(dispatchers):
            while True:
                own, moment = shared.seen(number)
                binding = None if moment is None else dispatcher.decide(moment)
                if binding is None or moment is None:
                    break
                place = shared.waiting.index(own[binding.request])
                whole = shared.moment()
                i = shared.bind(binding._replace(request=place), whole)
                expected = float(whole.service_s[place, binding.server])
                shared.views[number].account.sent(
                    binding.server, i, expected_s=expected, cost=float(arrivals.cost[i]), now_s=shared.now_s
                )
        shared.note_refusals()
    return shared.outcome()
