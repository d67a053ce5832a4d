"""`Pace`: how long a model takes, learned from what it has made."""

from __future__ import annotations

NEW = 0.2
"""Weight of what was seen last."""


class Pace:
    """Seconds for an image, a step and a megapixel, as a running mean.

    Example:
        >>> pace = Pace()
        >>> pace.expected_s(2.0), pace.observe(2.0, 3.0), pace.expected_s(4.0)
        (None, None, 6.0)
    """

    def __init__(self) -> None:
        self._rate: float | None = None

    def observe(self, size: float, took_s: float) -> None:
        """Learns. Args: size: images x steps x megapixels. took_s: seconds that they took."""
        seen = took_s / size
        self._rate = seen if self._rate is None else (1 - NEW) * self._rate + NEW * seen

    def expected_s(self, size: float) -> float | None:
        """Seconds; None before anything was seen. Args: size: images x steps x megapixels."""
        return None if self._rate is None else self._rate * size
