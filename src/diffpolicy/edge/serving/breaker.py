"""`Breaker`: keeps requests from a worker that fails them, and lets one try whether it still does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Breaker:
    """A circuit breaker (Nygard, Release It!, 2007).

    Closed, it counts faults in a row; after `faults` of them it opens for `open_s`, twice as long each time. Then it is
    half open: one request may try, whose success closes it and whose fault opens it again.

    Args:
        faults: in a row. open_s: of the first time. longest_s: at most.

    Example:
        >>> breaker = Breaker(faults=1, open_s=2.0, longest_s=60.0)
        >>> breaker.fault(10.0)
        >>> breaker.state(11.0), breaker.state(12.5)
        ('open', 'half-open')
    """

    faults: int
    open_s: float
    longest_s: float
    in_a_row: int = 0
    openings: int = 0
    until_s: float | None = None
    """When it is half open; None while it is closed."""

    def state(self, now_s: float) -> str:
        """closed, open or half-open. Args: now_s: the time."""
        if self.until_s is None:
            return "closed"
        return "open" if now_s < self.until_s else "half-open"

    def fault(self, now_s: float) -> None:
        """A call failed. Args: now_s: the time."""
        self.in_a_row += 1
        state = self.state(now_s)
        if state == "half-open" or (state == "closed" and self.in_a_row >= self.faults):
            self.until_s = now_s + min(self.open_s * 2.0**self.openings, self.longest_s)
            self.openings += 1

    def forgive(self) -> None:
        """A fault that was counted was none of the server's."""
        self.in_a_row = max(self.in_a_row - 1, 0)
        if self.until_s is not None and self.in_a_row < self.faults:
            self.until_s, self.openings = None, max(self.openings - 1, 0)

    def success(self) -> None:
        """A call was answered."""
        self.in_a_row, self.openings, self.until_s = 0, 0, None
