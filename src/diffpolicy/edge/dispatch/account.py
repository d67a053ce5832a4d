"""`Account`: what a dispatcher has sent to each server, and when it expects the answers."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from diffpolicy import _validate as check
from diffpolicy._total import total
from diffpolicy._types import Floats, Ints
from diffpolicy.errors import InputError

ROUNDING = 1e-9
"""Seconds that a clock may be off."""


@dataclass
class Sent:
    """A request at a server.

    Args:
        number: its name. expected_s: how long it should run. cost: as it was declared.
        begun_s: when it began, by the dispatcher's clock; None while it waits there.
    """

    number: Hashable
    expected_s: float
    cost: float
    begun_s: float | None


@dataclass
class Account:
    """The dispatcher's own account of the work that it sent; it asks no server.

    A server with `seats` works on so many requests at once and on the rest in the order in which they were sent.
    Where a server says how many it has, what exceeds one's own is *foreign*: somebody else's. It takes seats, and is
    supposed to take as long as one's own requests on average.

    Args:
        seats: of each server, at least 1, `[S]`.
        lead_s: a seat counts as free so many seconds before its request is expected to end.

    Attributes:
        foreign_seen: how many foreign requests have been seen, all servers together.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> account = Account([1, 1])
        >>> account.sent(0, "a", expected_s=4.0, now_s=10.0)
        >>> account.free(10.0).tolist(), account.starts_s(11.0).tolist()
        ([0, 1], [3.0, 0.0])
        >>> account.done(0, "a", now_s=13.5)
        >>> account.foreign(1, running=1, now_s=14.0)  # though nothing was sent there
        1
        >>> account.free(14.0).tolist(), account.starts_s(15.0).tolist()
        ([1, 0], [0.0, 3.0])
    """

    seats: Sequence[int]
    lead_s: float = 0.0
    servers: list[list[Sent]] = field(init=False)
    foreign_seen: int = field(init=False, default=0)
    _foreign_since_s: list[list[float]] = field(init=False, repr=False)
    """When each foreign request was first seen."""
    _sent: tuple[int, float] = field(init=False, repr=False, default=(0, 0.0))
    """How many requests were sent, and the seconds that all should run."""

    def __post_init__(self) -> None:
        self.seats = [check.integer(k, "seats", least=1) for k in self.seats]
        check.number(self.lead_s, "lead_s", least=0)
        self.servers = [[] for _ in self.seats]
        self._foreign_since_s = [[] for _ in self.seats]

    def seat(self, server: int, seats: int) -> None:
        """Changes how many requests a server works on at once, or adds a server.

        Args:
            server: which; the one after the last is new. seats: at least 1.

        Raises:
            InputError: an argument is out of range.
        """
        server = check.integer(server, "server", least=0, most=len(self.servers))
        self.seats = list(self.seats)
        self.seats[server : server + 1] = [check.integer(seats, "seats", least=1)]
        if server == len(self.servers):
            self.servers.append([])
            self._foreign_since_s.append([])

    def sent(self, server: int, number: Hashable, *, expected_s: float, now_s: float, cost: float = 0.0) -> None:
        """Notes that a request went to a server.

        Args:
            server: which. number: names the request. expected_s: how long it should run. now_s: the time.
            cost: as it was declared.
        """
        at = self.servers[server]
        at.append(Sent(number, expected_s, cost, now_s if len(at) < self.seats[server] else None))
        self._sent = (self._sent[0] + 1, self._sent[1] + expected_s)

    def begun_s(self, server: int, number: Hashable) -> float | None:
        """When a request began at a server, as far as the dispatcher knows; None while it waits there.

        Args:
            server: where it is. number: its name.
        """
        return next((sent.begun_s for sent in self.servers[server] if sent.number == number), None)

    def done(self, server: int, number: Hashable, now_s: float) -> None:
        """Notes that a request is over, answered or failed; the next one there begins.

        Args:
            server: where it ran. number: its name. now_s: the time.

        Raises:
            InputError: that server was not sent it.
        """
        at = self.servers[server]
        for place, sent in enumerate(at):
            if sent.number == number:
                del at[place]
                break
        else:
            raise InputError(f"server {server} was not sent request {check.show(number)}")
        for sent in at[: self.seats[server]]:
            if sent.begun_s is None:
                sent.begun_s = now_s

    def lost(self, server: int) -> list[Hashable]:
        """Notes that a server went down, and with it all that it had; it is masked elsewhere while it is down.

        Args:
            server: which.

        Returns:
            What the requests there are called that it was sent and has not done, in that order.
        """
        numbers = [sent.number for sent in self.servers[server]]
        self.servers[server], self._foreign_since_s[server] = [], []
        return numbers

    def foreign(self, server: int, running: int, now_s: float, *, own: int | None = None) -> int:
        """Takes up how many requests a server says that it has.

        Args:
            server: which. running: how many it has, waiting ones among them. now_s: the time.
            own: how many of these may be one's own; by default all that it was sent and has not answered. Where the
                report crosses an answer on its way, the greatest number while it was asked for.

        Returns:
            How many are foreign.
        """
        own = len(self.servers[server]) if own is None else check.integer(own, "own", least=0)
        count = max(check.integer(running, "running", least=0) - own, 0)
        since = self._foreign_since_s[server]
        self.foreign_seen += max(count - len(since), 0)
        self._foreign_since_s[server] = since[len(since) - count :] if count < len(since) else since
        self._foreign_since_s[server] += [now_s] * (count - len(since))
        return count

    @property
    def foreign_count(self) -> Ints:
        """How many foreign requests each server has, as it last said, int64 `[S]`."""
        return np.array([len(since) for since in self._foreign_since_s], np.int64)

    @property
    def has_foreign(self) -> bool:
        """Whether any server has foreign requests."""
        return any(self._foreign_since_s)

    def _foreign_left_s(self, server: int, now_s: float) -> list[float]:
        """Seconds until each foreign request there should end, as long as one's own take from when it was seen."""
        mean_s = self._sent[1] / max(self._sent[0], 1)
        return [max(since + mean_s - now_s, 0.0) for since in self._foreign_since_s[server]]

    def _ends_s(self, server: int, now_s: float) -> list[float]:
        """Seconds until each request there that has begun is expected to end, not below 0."""
        return [max(x.begun_s + x.expected_s - now_s, 0.0) for x in self.servers[server] if x.begun_s is not None]

    def free(self, now_s: float) -> Ints:
        """How many requests each server can be sent now, `[S]`. Args: now_s: the time."""
        taken = zip(self.seats, self.servers, self._foreign_since_s, strict=True)
        result = np.array([seats - len(at) - len(foreign) for seats, at, foreign in taken], np.int64)
        if self.lead_s:
            for j in range(len(result)):
                result[j] += sum(x <= self.lead_s + ROUNDING for x in self._ends_s(j, now_s))
        return np.maximum(result, 0)

    def opens_s(self, now_s: float) -> float:
        """Seconds until a seat counts as free by the clock alone, infinite where none will. Args: now_s: the time."""
        if not self.lead_s:
            return float("inf")
        coming = [x - self.lead_s for j in range(len(self.servers)) for x in self._ends_s(j, now_s)]
        return min((x for x in coming if x > ROUNDING), default=float("inf"))

    def starts_s(self, now_s: float) -> Floats:
        """Seconds until a request that is sent now would begin, 0 where a seat is free, `[S]`. Args: now_s: now."""
        result = [0.0] * len(self.servers)
        for j, (at, foreign) in enumerate(zip(self.servers, self._foreign_since_s, strict=True)):
            if at or foreign:  # of hundreds of servers many have nothing
                result[j] = self.start_s(j, now_s)
        return np.array(result, np.float64)

    def start_s(self, server: int, now_s: float) -> float:
        """As `starts_s` has it of one server. Args: server: which. now_s: the time."""
        at, seats = self.servers[server], self.seats[server]
        foreign = len(self._foreign_since_s[server])
        if len(at) + foreign < seats:
            return 0.0
        if seats == 1 and not foreign and at[0].begun_s is not None and (len(at) == 1 or at[1].begun_s is None):
            # the rest in short, since most are so
            end = max(at[0].begun_s + at[0].expected_s - now_s, 0.0)
            for sent in at[1:]:
                end += sent.expected_s
            return end
        ends = self._ends_s(server, now_s)
        if foreign:
            ends = _packed(sorted(ends) + self._foreign_left_s(server, now_s), seats)
        heapq.heapify(ends)
        for sent in at[seats:]:
            heapq.heapreplace(ends, ends[0] + sent.expected_s)
        return ends[0]

    @property
    def outstanding(self) -> Ints:
        """How many requests each server was sent and has not done, `[S]`."""
        return np.array([len(at) for at in self.servers], np.int64)

    @property
    def outstanding_cost(self) -> Floats:
        """Their declared cost, `[S]`."""
        return np.array([total([x.cost for x in at]) if at else 0.0 for at in self.servers], np.float64)


def _packed(work_s: Sequence[float], seats: int) -> list[float]:
    """When each seat is done with work of which each piece goes to the seat that is free first, `[seats]`."""
    ends = [0.0] * seats
    for seconds in work_s:
        heapq.heapreplace(ends, ends[0] + seconds)
    return ends
