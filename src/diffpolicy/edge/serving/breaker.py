"""`Breaker`: keeps requests from a worker that fails them, and lets one try whether it still does."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

LAST = 64
"""Faults in a row that may be forgiven."""


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
    _before: deque[tuple[float, tuple[int, int, float | None]]] = field(default_factory=lambda: deque(maxlen=LAST))
    """Times of the last faults in a row, and what was counted before each."""

    def state(self, now_s: float) -> str:
        """closed, open or half-open. Args: now_s: the time."""
        if self.until_s is None:
            return "closed"
        return "open" if now_s < self.until_s else "half-open"

    def fault(self, now_s: float) -> None:
        """A call failed. Args: now_s: the time."""
        self._before.append((now_s, (self.in_a_row, self.openings, self.until_s)))
        self.in_a_row += 1
        state = self.state(now_s)
        if state == "half-open" or (state == "closed" and self.in_a_row >= self.faults):
            self.until_s = now_s + min(self.open_s * 2.0**self.openings, self.longest_s)
            self.openings += 1

    def forgive(self, fault_s: float) -> None:
        """A fault was none of the server's: all is as if it had not been. Args: fault_s: when it was."""
        later = []
        for _ in range(len(self._before)):
            time_s, before = self._before.pop()
            if time_s == fault_s:
                self.in_a_row, self.openings, self.until_s = before
                break
            later.append((time_s, before))
        else:  # an answer has ended its row since
            self._before.extend(reversed(later))
            return
        for time_s, _ in reversed(later):
            self.fault(time_s)

    def success(self) -> None:
        """A call was answered."""
        self.in_a_row, self.openings, self.until_s = 0, 0, None
        self._before.clear()
