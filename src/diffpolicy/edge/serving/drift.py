"""`Drift`: how many times as long as expected a server takes of late."""

from __future__ import annotations

import math

MEMORY = 20
"""Answers over which the mean runs."""
MOST = 16.0
"""Greatest factor either way."""


class Drift:
    """A running mean of log(measured / expected), which notices a server that slows down at once.

    The means of `CostModel` run over ten times as many answers, for each kind of request; what they have not learned
    yet is the same factor for all kinds of a server.

    Attributes:
        factor: what to multiply expected seconds by.

    Example:
        >>> drift = Drift()
        >>> for _ in range(40):
        ...     drift.observe(4.0, expected_s=2.0)
        >>> round(drift.factor, 1)  # and 2.0 in the end
        1.8
    """

    def __init__(self) -> None:
        self._mean, self.factor = 0.0, 1.0

    def observe(self, seconds: float, *, expected_s: float) -> None:
        """Takes an answer up. Args: seconds: measured. expected_s: without this factor."""
        if seconds <= 0 or not 0 < expected_s < math.inf:
            return
        ratio = min(max(math.log(seconds / expected_s), -math.log(MOST)), math.log(MOST))
        self._mean += (ratio - self._mean) / MEMORY
        self.factor = math.exp(self._mean)
