"""When servers are up: intervals of outage that are given or drawn, and what happens to the tasks that one strikes."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy.edge.workload.seeds import Stream
from diffpolicy.errors import InputError


@dataclass(frozen=True)
class Availability:
    """Outages of one server: at given times of every episode, or drawn anew for each.

    Args:
        down_s: intervals `[from, to)` in seconds from the start of an episode, increasing and apart.
        mtbf_s: mean time between a repair and the next failure, of an exponential law, seconds; a server is up at the
            start of an episode.
        mttr_s: mean time to repair, likewise. Either these two or `down_s`.

    Raises:
        InputError: a time is out of range, both or neither are given, or intervals are not apart; on reading, also a
            key is unknown or missing; while playing, there are more outages in an episode than can be drawn.

    Example:
        >>> Availability(mtbf_s=90.0, mttr_s=10.0).share_up()
        0.9
    """

    down_s: tuple[tuple[float, float], ...] | None = None
    mtbf_s: float | None = None
    mttr_s: float | None = None

    def __post_init__(self) -> None:
        means = {name: getattr(self, name) for name in ("mtbf_s", "mttr_s")}
        given = [name for name, value in means.items() if value is not None]
        if self.down_s is not None and given:
            raise InputError(f"down_s and {given[0]} must not both be given")
        if self.down_s is not None:
            object.__setattr__(self, "down_s", _apart(self.down_s))
            return
        for name, value in means.items():
            if value is None:
                raise InputError("down_s, or mtbf_s and mttr_s, must be given")
            object.__setattr__(self, name, check.number(value, name, above=0, most=_limits.MOST))

    @classmethod
    def from_dict(cls, data: Any, key: str) -> Availability:
        """The `availability` of a scenario's server.

        Args:
            data: as it stands in the file. key: names it in messages.

        Raises:
            InputError: a key is unknown or missing or a value is out of range; the sentence names it.
        """
        given = tuple(data) if isinstance(data, Mapping) else ()
        names = ("down_s",) if "down_s" in given else ("mtbf_s", "mttr_s")
        data = check.mapping(data, key, allowed=names, required=names)
        for name in names:
            if data[name] is None:
                raise InputError(f"{key}.{name} must be {'a list' if name == 'down_s' else 'a number'}, got None")
        with check.within(key):
            return cls(**data)

    def to_dict(self) -> dict[str, Any]:
        """The `availability` of a scenario file."""
        if self.down_s is not None:
            return {"down_s": [list(interval) for interval in self.down_s]}
        return {"mtbf_s": self.mtbf_s, "mttr_s": self.mttr_s}

    def share_up(self) -> float:
        """Long-run share of the time in which the server is up; 1 for given intervals."""
        if self.mtbf_s is None or self.mttr_s is None:
            return 1.0
        return self.mtbf_s / (self.mtbf_s + self.mttr_s)

    def intervals(self, rng: np.random.Generator) -> Iterator[tuple[float, float]]:
        """The outages of one episode, in order.

        Args:
            rng: draws them, where they are not given.

        Yields:
            When each begins and when it ends, seconds.
        """
        if self.down_s is not None:
            yield from self.down_s
            return
        assert self.mtbf_s is not None
        assert self.mttr_s is not None
        now = 0.0
        for _ in range(_limits.OUTAGES):
            start = now + rng.exponential(self.mtbf_s)
            now = start + rng.exponential(self.mttr_s)
            yield start, now
        raise InputError(
            f"availability has more than {_limits.OUTAGES:,} outages in the first {now:g} s of an episode: "
            f"mtbf_s {self.mtbf_s:g} and mttr_s {self.mttr_s:g} are too short"
        )


def _apart(intervals: Any) -> tuple[tuple[float, float], ...]:
    """Intervals of outage, increasing and apart."""
    found: list[tuple[float, float]] = []
    for i, interval in enumerate(check.sequence(intervals, "down_s")):
        at = f"down_s[{i}]"
        start, end = (check.number(x, at, least=0, most=_limits.MOST) for x in check.sequence(interval, at, length=2))
        if not (start < end and (not found or start > found[-1][1])):
            raise InputError(f"{at} must be [from, to] after the interval before it, got {check.show(interval)}")
        found.append((start, end))
    return tuple(found)


class Timeline:
    """The outages of one server in one episode, drawn as far as they are asked for.

    Args:
        availability: None: the server is always up.
        seed, stream, episode, server: what the draws depend on.
    """

    def __init__(self, availability: Availability | None, seed: int, stream: Stream, episode: int, server: int) -> None:
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, int(stream), episode, server, 1))))
        self._more = iter(()) if availability is None else availability.intervals(rng)
        self._starts: list[float] = []
        self._ends: list[float] = []
        self._exhausted = False

    def _until(self, t: float) -> None:
        while not self._exhausted and (not self._starts or self._starts[-1] <= t):
            try:
                start, end = next(self._more)
            except StopIteration:
                self._exhausted = True
                return
            self._starts.append(start)
            self._ends.append(end)

    def back_s(self, t: float) -> float:
        """When the server is up again, `t` itself if it is up at t."""
        self._until(t)
        i = bisect_right(self._starts, t) - 1
        return self._ends[i] if i >= 0 and t < self._ends[i] else t

    def failure_s(self, after: float, until: float) -> float:
        """The first failure in `(after, until]`, infinite if there is none."""
        self._until(after)  # which draws one beyond
        i = bisect_right(self._starts, after)
        return self._starts[i] if i < len(self._starts) and self._starts[i] <= until else math.inf


class Outages:
    """The timelines of a fleet in the episodes that are being played.

    Args:
        servers: the availability of each, S of them. seed, stream: as of the arrivals.
    """

    def __init__(self, servers: Sequence[Availability | None], seed: int, stream: Stream) -> None:
        self.servers, self.seed, self.stream = list(servers), seed, stream
        self._known: dict[int, list[Timeline]] = {}

    def of(self, episode: int) -> list[Timeline]:
        """A timeline for each server."""
        if episode not in self._known:
            if len(self._known) > 4096:
                self._known.clear()
            self._known[episode] = [Timeline(x, self.seed, self.stream, episode, a) for a, x in enumerate(self.servers)]
        return self._known[episode]
