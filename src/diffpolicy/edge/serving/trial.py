"""`Trial`: a policy that decides on a share of the requests, beside another, until it proves worse."""

from __future__ import annotations

import hashlib
import math

LEAST = 50
"""Answers of each side before a trial may end."""
ERRORS = 3.0
"""Standard errors by which the policy's mean must be worse; it is looked at after every answer, hence not two."""
LOST = 20.0
"""What counts for a request that failed, in units of its own service."""


class Trial:
    """Compares slowdowns, delays over what the requests would take alone, of the two sides.

    Which request belongs to which side is drawn from its name, so the sides meet the same mix at the same times.

    Args:
        share: of requests that the policy decides on. seed: of the draws.

    Example:
        >>> trial = Trial(0.5)
        >>> for k in range(100):
        ...     ended = trial.seen(k % 2 == 0, 3.0 + k % 5 if k % 2 == 0 else 1.0 + k % 5)
        >>> trial.share
        0.0
    """

    def __init__(self, share: float, seed: int = 0) -> None:
        self.share, self._seed = share, seed
        self._sides = {True: _Mean(), False: _Mean()}

    def arm(self, number: str) -> bool:
        """Whether the policy decides on a request. Args: number: its name."""
        if self.share >= 1:
            return True
        drawn = hashlib.sha256(f"{self._seed}/{number}".encode()).digest()[:8]
        return int.from_bytes(drawn, "big") / 2.0**64 < self.share

    def lost(self, arm: bool) -> None:
        """A request failed. Args: arm: whose."""
        self._sides[arm].add(LOST)

    def seen(self, arm: bool, slowdown: float) -> bool:
        """Takes an answer up. Args: arm: whose. slowdown: its. Returns: whether the policy is given up with it."""
        self._sides[arm].add(slowdown)
        ours, others = self._sides[True], self._sides[False]
        if not 0 < self.share < 1 or min(ours.count, others.count) < LEAST:
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

    def add(self, value: float) -> None:
        self.count += 1
        off = value - self.mean
        self.mean += off / self.count
        self._squares += off * (value - self.mean)

    @property
    def variance(self) -> float:
        return self._squares / max(self.count - 1, 1)
