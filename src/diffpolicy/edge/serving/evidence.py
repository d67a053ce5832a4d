"""`Evidence`: that one of two sides, drawn by lot, is slower; it may be looked at after every answer."""

from __future__ import annotations

import math
from collections import deque

POWERS = (0.8, 0.6, 0.4, 0.2)
"""Alternatives that are bet on, as far as one knows nothing of how much slower: see `Evidence`."""
COMPARED = 50
"""Last answers of the other side among which one is ranked: few, so that all of them met about the same load."""
MOST = 1e9
"""Where evidence is cut, so that it stays a number; a bet that gives away a part of its gain proves no less."""


class Evidence:
    r"""Bets, answer by answer, on whose answer it was, knowing only how slow it was.

    Were the sides the same, an answer would be the policy's with probability p, the share, however slow it was and
    whatever came before: that was drawn by lot. So a bet which pays r / (p r + 1 - p) of its stake for an answer of
    the policy, and 1 / (p r + 1 - p) for one of the other, is fair for every r > 0, and by Ville's inequality the stake
    ever becomes x-fold with probability of at most 1 / x. That holds for any law of delays, with heavy tails and queues
    that grow, and however often one looks (Shafer, Testing by betting, 2021).

    How much it gains if the policy is slower depends on r. Here an answer is ranked among the last ones of the other
    side. If a part :math:`s` of them are slower, :math:`r(s) = c s^{c-1}`, the ratio of densities where the policy's
    :math:`P(\text{slower than } x)` is the other's to the power c (Lehmann, 1953; the scores of the log-rank test): for
    exponential delays a mean that is 1 / c times as long. The stake is spread over several c, and half of it over all
    answers at which the difference could have begun, so that a policy that gets worse late is found, too.

    Args:
        share: of the policy, above 0 and below 1. powers: values of c, in the same range.

    Example:
        >>> evidence = Evidence(0.5)
        >>> for k in range(60):
        ...     evidence.seen(k % 2 == 0, 20.0 + k % 7 if k % 2 == 0 else 10.0 + k % 7)
        >>> evidence.value > 100
        True
    """

    def __init__(self, share: float, powers: tuple[float, ...] = POWERS) -> None:
        self._share, self._powers = share, powers
        self._stakes = [0.5] * len(powers)
        self._kept, self._count = 0.5, 0
        self._others: deque[float] = deque(maxlen=COMPARED)

    @property
    def value(self) -> float:
        """How many times the stake there is now."""
        return self._kept + sum(self._stakes) / len(self._stakes)

    def seen(self, arm: bool, slowdown: float) -> None:
        """Takes up an answer. Args: arm: whether the policy's. slowdown: how slow; only its order counts."""
        others = self._others
        slower = sum(other > slowdown for other in others)
        as_slow = 1 + sum(other == slowdown for other in others)
        self._count += 1
        begins = 0.5 / (self._count * (self._count + 1))
        self._kept -= begins
        for i, power in enumerate(self._powers):
            # the mean of r over the places that the answer may have among the others
            ratio = (slower + as_slow) ** power - slower**power
            ratio *= (len(others) + 1) ** (1 - power) / as_slow
            fair = self._share * ratio + 1 - self._share
            self._stakes[i] = min((self._stakes[i] + begins) * (ratio if arm else 1.0) / fair, MOST)
        if not arm:
            others.append(slowdown)

    def left(self, count: int, proof: float) -> int | None:
        """How many more answers of the policy it takes at the rate so far; None where it does not grow.

        Args:
            count: of the policy's answers so far. proof: the evidence that is needed.
        """
        grown = math.log(self.value)
        if grown <= 0 or not count:
            return None
        return max(math.ceil(count * (math.log(proof) / grown - 1)), 0)
