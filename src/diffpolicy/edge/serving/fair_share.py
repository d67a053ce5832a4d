"""`FairShare`: whose turn it is, where several clients wait."""

from __future__ import annotations

from collections.abc import Iterable

MOST = 256
"""Clients above which those that are owed nothing are forgotten."""


class FairShare:
    """Start-time fair queueing (Goyal, Vin and Cheng, 1996) over clients: the one that was given least goes first.

    Shortest first alone rewards a flood of small requests. A client that comes back after a pause begins where the
    others are, so that nobody saves up turns.

    Example:
        >>> share = FairShare()
        >>> share.given("a", 8.0, among=["a", "b"])
        >>> share.turns(["a", "b"])
        ['b', 'a']
    """

    def __init__(self) -> None:
        self._given: dict[str, float] = {}
        self._now = 0.0

    def turns(self, clients: Iterable[str]) -> list[str]:
        """Clients that wait, in the order of their turns; of equals the first. Args: clients: in order of arrival."""
        return sorted(clients, key=self._start)

    def _start(self, client: str) -> float:
        """When the next request of a client would start, in seconds of work that it was given."""
        return max(self._given.get(client, 0.0), self._now)

    def given(self, client: str, seconds: float, *, among: Iterable[str]) -> None:
        """Notes work that was begun for a client.

        Args:
            client: whose. seconds: expected. among: clients that wait, that one included.
        """
        start = self._start(client)
        self._now = min(self._start(x) for x in (*among, client))
        self._given[client] = start + seconds
        if len(self._given) > MOST:  # those that are owed nothing more than newcomers are newcomers
            owed = {x: given for x, given in self._given.items() if given > self._now}
            self._given = dict(sorted(owed.items(), key=lambda entry: -entry[1])[:MOST])
