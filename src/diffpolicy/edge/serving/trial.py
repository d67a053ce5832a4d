"""`Trial`: a policy that decides on a share of the requests, beside another, until it proves worse."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

LEAST = 50
"""Answers of each side before a trial may end."""
LEAST_TURNS = 5
"""Turns of each side before it may, where they take turns."""
ERRORS = 3.0
"""Standard errors by which the policy's mean must be worse; it is looked at after every answer, hence not two."""
MOST_TURNS = 2000
"""Of each side that are remembered, some weeks of them: all are looked at with each answer."""
LOST = 20.0
"""What counts for a request that failed, in units of its own service."""


@dataclass(frozen=True)
class Side:
    """What was seen of one side.

    Args:
        answers: requests, or turns where they take turns. slowdown: their mean delay over what they take alone on the
            fastest worker; None without any.
    """

    answers: int
    slowdown: float | None


class Trial:
    """Compares slowdowns, delays over what the requests take alone on the fastest worker, of the two sides.

    Which request belongs to which side is drawn from its name, so the sides meet the same mix at the same times. That
    holds for two rules that bind on arrival. A rule that holds would find all seats taken by one that does not, so
    where one of them holds, they take turns: all that arrives, and all that waits, belongs to one side for `turn_s`.

    Args:
        share: of requests, or of turns, that the policy decides on. seed: of the draws.
        turn_s: None: by request.

    Example:
        >>> trial = Trial(0.5)
        >>> for k in range(100):
        ...     ended = trial.seen(k % 2 == 0, 3.0 + k % 5 if k % 2 == 0 else 1.0 + k % 5, 0.0)
        >>> trial.share
        0.0
    """

    def __init__(self, share: float, seed: int = 0, turn_s: float | None = None) -> None:
        self.share, self.turn_s, self._seed, self._tries = share, turn_s, seed, share < 1
        self._sides = {True: _Mean(), False: _Mean()}
        self._turns: dict[bool, dict[int, _Mean]] = {True: {}, False: {}}

    @property
    def sides(self) -> dict[str, Side]:
        """What was seen of the `policy` and of what decides on the rest; nothing of a policy that decides on all."""
        if not self._tries:
            return {}
        means = {"policy": self._mean(True), "other": self._mean(False)}
        return {name: Side(mean.count, mean.mean if mean.count else None) for name, mean in means.items()}

    def verdict(self, policy: str, other: str) -> str:
        """Why the share is taken back, in a sentence. Args: policy: its name. other: of what decides on the rest."""
        ours, others = self._mean(True).mean, self._mean(False).mean
        return (
            f"the share of {policy} is taken back: its mean delay was {ours:.3g} times what its requests take alone, "
            f"that of {other} {others:.3g} times; {other} decides on all from now on"
        )

    def _mean(self, arm: bool) -> _Mean:
        """Of what counts on a side: of each turn its mean, since what arrives in one turn shares its luck."""
        if self.turn_s is None:
            return self._sides[arm]
        return _Mean.of([turn.mean for turn in self._turns[arm].values()])

    def turn(self, now_s: float) -> int:
        """The number of a turn. Args: now_s: the time."""
        return int(now_s // (self.turn_s or 1.0))

    def arm(self, number: str, now_s: float) -> bool:
        """Whether the policy decides on a request. Args: number: its name. now_s: when it arrives."""
        if self.share >= 1:
            return True
        name = number if self.turn_s is None else f"turn {self.turn(now_s)}"
        drawn = hashlib.sha256(f"{self._seed}/{name}".encode()).digest()[:8]
        return int.from_bytes(drawn, "big") / 2.0**64 < self.share

    def seen(self, arm: bool, slowdown: float, arrived_s: float) -> bool:
        """Takes up how a request ended.

        Args:
            arm: whose. slowdown: its, `LOST` if it failed. arrived_s: when it came.

        Returns:
            Whether the policy is given up with it.
        """
        if self.turn_s is None:
            self._sides[arm].add(slowdown)
        else:
            turns, turn = self._turns[arm], self.turn(arrived_s)
            turns.setdefault(turn, _Mean()).add(slowdown)
            if len(turns) > MOST_TURNS:
                del turns[min(turns)]
        if not 0 < self.share < 1:
            return False
        ours, others = self._mean(True), self._mean(False)
        if min(ours.count, others.count) < (LEAST if self.turn_s is None else LEAST_TURNS):
            return False
        error = math.sqrt(ours.variance / ours.count + others.variance / others.count)
        if ours.mean - others.mean <= ERRORS * error:
            return False
        self.share = 0.0
        return True


class _Mean:
    """A running mean and variance (Welford, 1962)."""

    def __init__(self) -> None:
        self.count, self.mean, self._squares = 0, 0.0, 0.0

    @classmethod
    def of(cls, values: Iterable[float]) -> _Mean:
        made = cls()
        for value in values:
            made.add(value)
        return made

    def add(self, value: float) -> None:
        self.count += 1
        off = value - self.mean
        self.mean += off / self.count
        self._squares += off * (value - self.mean)

    @property
    def variance(self) -> float:
        return self._squares / max(self.count - 1, 1)
