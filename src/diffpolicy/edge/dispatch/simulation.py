"""`Simulation`: a simulated fleet and what its dispatcher sees of it, event by event."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from diffpolicy import _validate as check
from diffpolicy._types import Floats, Ints
from diffpolicy.edge.dispatch.account import Account
from diffpolicy.edge.dispatch.arrivals import Arrivals
from diffpolicy.edge.dispatch.moment import Binding, Moment
from diffpolicy.edge.dispatch.outcome import Outcome
from diffpolicy.errors import InputError

MOST_WAITING = 50_000
"""Requests that may wait at once."""


class Outage(Protocol):
    """When a server is down, such as a scenario's `Timeline`."""

    def back_s(self, t: float) -> float:
        """When it is up again, `t` itself if it is up at t."""

    def failure_s(self, after: float, until: float) -> float:
        """The first failure in `(after, until]`, infinite if there is none."""


class Simulation:
    """The state of a simulated fleet and its dispatcher's view of it; `simulate` runs it to the end.

    Args:
        arrivals: K requests on S servers.
        seats: requests that each server works on at once, `[S]`, or one number for all.
        dead_s: seconds between a binding and the earliest start. lead_s: a seat counts as free so much before its
            request is expected to end.
        outages: of each server, `[S]`; None: none ever fails.

    Raises:
        InputError: an argument is out of range.
    """

    def __init__(
        self,
        arrivals: Arrivals,
        *,
        seats: int | Sequence[int] = 1,
        dead_s: float = 0.0,
        lead_s: float = 0.0,
        outages: Sequence[Outage] | None = None,
    ) -> None:
        self.arrivals, self.dead = arrivals, check.number(dead_s, "dead_s", least=0)
        self.seats = [seats] * arrivals.servers if isinstance(seats, int) else list(seats)
        if len(self.seats) != arrivals.servers:
            raise InputError(
                f"seats must be one number, or one for each of {arrivals.servers} servers, got {self.seats}"
            )
        self.account = Account(self.seats, check.number(lead_s, "lead_s", least=0))
        k = len(arrivals)
        self.now_s, self.next = 0.0, 0
        self.waiting: list[int] = []
        self.running: list[tuple[float, int, int]] = []
        """Ends, numbers and servers of what was sent, a heap."""
        self.idle_from = [[-np.inf] * n for n in self.seats]
        """When each seat has done all that it was sent."""
        self.loaded = np.full(arrivals.servers, -1)
        self.loads = bool(arrivals.switch_s.any() or arrivals.cold_s.any())
        _, whole = np.unique(arrivals.request, return_inverse=True)
        self.whole: Ints = whole.reshape(-1)
        self.parts_left = np.bincount(self.whole)
        self.server, self.passes = np.full(k, -1), np.zeros(k, np.int64)
        self.bound_s, self.start_s, self.finish_s, self.dead_s = (np.zeros(k) for _ in range(4))
        self.since_s, self.refused_s = np.full(k, np.nan), np.zeros(k)
        self.sendings = np.zeros(k, np.int64)
        self.outages = outages
        if outages is not None and len(outages) != arrivals.servers:
            raise InputError(f"outages must be given for each of {arrivals.servers} servers, got {len(outages)}")
        self.up = np.ones(arrivals.servers, dtype=bool)
        self.turns_s = np.full(arrivals.servers, np.inf)
        """When each server fails, or is up again."""
        for j in range(arrivals.servers if outages is not None else 0):
            self._turn(j)

    @property
    def _load_s(self) -> Floats:
        """Seconds in which each server would load another model than it has, `[S]`."""
        return np.where(self.loaded < 0, self.arrivals.cold_s, self.arrivals.switch_s)

    @property
    def over(self) -> bool:
        """Whether all have arrived and been bound, and none can come back from a server that fails."""
        return self.next == len(self.arrivals) and not self.waiting and (self.outages is None or not self.running)

    @property
    def stuck(self) -> bool:
        """Whether nothing will happen any more by itself."""
        return self.next == len(self.arrivals) and not self.running and bool(self.up.all())

    @property
    def free(self) -> Ints:
        """How many requests each server can be sent now, `[S]`."""
        return self.account.free(self.now_s) * self.up

    def _turn(self, j: int) -> None:
        """Finds out whether a server is up now, and until when; takes back what it had if it failed."""
        assert self.outages is not None
        back_s = self.outages[j].back_s(self.now_s)
        self.up[j] = back_s <= self.now_s
        self.turns_s[j] = self.outages[j].failure_s(self.now_s, np.inf) if self.up[j] else back_s
        if self.up[j]:
            return
        self.account.lost(j)
        struck = [i for _, i, at in self.running if at == j]
        self.running = [x for x in self.running if x[2] != j]
        heapq.heapify(self.running)
        self.idle_from[j], self.loaded[j] = [-np.inf] * self.seats[j], -1
        for i in struck:
            insort(self.waiting, i)
            self.parts_left[self.whole[i]] += 1

    def advance(self, by_clock: bool = True) -> None:
        """Goes to the next time at which something happens, and lets all of it happen. Args: by_clock: see `lead_s`."""
        coming = self.arrivals.arrival_s[self.next] if self.next < len(self.arrivals) else np.inf
        ending = self.running[0][0] if self.running else np.inf
        opening = self.now_s + self.account.opens_s(self.now_s) if by_clock and self.waiting else np.inf
        self.now_s = float(min(coming, ending, opening, self.turns_s.min()))
        while self.running and self.running[0][0] <= self.now_s:
            end_s, number, server = heapq.heappop(self.running)
            self.account.done(server, number, end_s)
        for j in np.flatnonzero(self.turns_s <= self.now_s):
            self._turn(int(j))
        while self.next < len(self.arrivals) and self.arrivals.arrival_s[self.next] <= self.now_s:
            self.waiting.append(self.next)
            self.next += 1
        if len(self.waiting) > MOST_WAITING:
            raise InputError(f"more than {MOST_WAITING:,} requests wait at once; the servers are too slow for the load")

    def moment(self) -> Moment:
        """What the dispatcher knows now; a request that no server that is up can run is not shown."""
        rows, a, account = np.array(self.waiting, dtype=np.int64), self.arrivals, self.account
        if not self.up.all():
            rows = rows[np.isfinite(a.expected_s[rows][:, self.up]).any(-1)]
        service = np.where(self.up, a.expected_s[rows], np.inf)
        if self.loads:
            service = service + np.where(self.loaded == a.model[rows, None], 0.0, self._load_s)
        return Moment(
            self.now_s - a.arrival_s[rows],
            service,
            service * self.parts_left[self.whole[rows], None],
            a.link_s[rows],
            self.passes[rows],
            a.deadline_s[rows] - self.now_s,
            a.weight[rows],
            a.cost[rows],
            self.free,
            account.starts_s(self.now_s),
            account.outstanding,
            account.outstanding_cost,
            rows,
            self.loaded.copy(),
            account.foreign_count,
            np.array(account.seats, np.int64) * self.up,
        )

    def bind(self, binding: Binding, moment: Moment) -> int:
        """Sends a waiting request to a server. Args: binding: of the moment. Returns: its number."""
        place, j = binding
        i, a = int(moment.number[place]), self.arrivals
        at = bisect_left(self.waiting, i)
        del self.waiting[at]
        for earlier in self.waiting[:at]:
            self.passes[earlier] += 1
        seat = int(np.argmin(self.idle_from[j]))
        before = max(self.idle_from[j][seat], self.now_s)
        start = max(before, self.now_s + self.dead)
        end = start + a.service_s[i, j] + (0.0 if self.loaded[j] == a.model[i] else self._load_s[j])
        self.idle_from[j][seat] = end
        self.loaded[j] = a.model[i]
        self.parts_left[self.whole[i]] -= 1
        self.server[i], self.bound_s[i], self.start_s[i], self.finish_s[i] = j, self.now_s, start, end
        self.dead_s[i] = start - before
        self.sendings[i] += 1
        if not np.isnan(self.since_s[i]):
            self.refused_s[i] = max(self.refused_s[i], self.now_s - self.since_s[i])
        expected = float(moment.service_s[place, j])
        self.account.sent(j, i, expected_s=expected, cost=float(a.cost[i]), now_s=self.now_s)
        heapq.heappush(self.running, (end, i, j))
        return i

    def note_refusals(self) -> None:
        """Who goes on waiting though a server is free that can run it, and who does no longer."""
        rows = np.array(self.waiting, dtype=np.int64)
        free = self.free > 0
        could = (np.isfinite(self.arrivals.service_s[rows]) & free).any(-1)
        since = self.since_s[rows]
        ended = ~could & ~np.isnan(since)
        self.refused_s[rows[ended]] = np.maximum(self.refused_s[rows[ended]], self.now_s - since[ended])
        self.since_s[rows] = np.where(could, np.where(np.isnan(since), self.now_s, since), np.nan)

    def outcome(self) -> Outcome:
        """What became of all."""
        return Outcome(
            self.arrivals,
            self.server,
            self.bound_s,
            self.start_s,
            self.finish_s,
            self.passes,
            self.refused_s,
            self.dead_s,
            self.sendings,
        )
