"""`ShownSpeeds`: how fast servers are, as a policy of the offloading problem is shown them. Loads no torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from diffpolicy._types import Floats

KEPT = 256
"""Requests by whose times servers and work are known."""
DRIFT = 0.2
"""Share by which a server's speed must change before the policy is shown other servers."""
LOAD = 0.8
"""Of the servers, for a policy that asks how much arrives: a moment does not tell."""
NEVER = 1e3
"""Stands for endless: how many times as long as on the slowest server."""


class ShownSpeeds:
    """The servers that a policy is shown; they stay as they are until one has become another.

    Args:
        servers: their number at first, all as fast.

    Attributes:
        speed: of each, the fastest having 1, `[S]`. every_s: seconds between two requests.

    Example:
        >>> shown = ShownSpeeds(2)
        >>> shown.take(np.array([2.0, 4.0])), shown.speed.tolist(), round(shown.every_s, 3)
        (True, [1.0, 0.5], 1.667)
        >>> shown.take(np.array([2.0, 4.1]))
        False
    """

    def __init__(self, servers: int) -> None:
        self.rows: deque[Floats] = deque(maxlen=KEPT)
        self._show(np.ones(servers))

    def take(self, service_s: Floats) -> bool:
        """Takes up what a request takes on each server.

        Args:
            service_s: finite, `[S]`.

        Returns:
            Whether servers have changed, so that the policy is to be shown others from now on.
        """
        if len(service_s) != len(self.speed):
            self.rows.clear()
        self.rows.append(service_s)
        speed = speeds(self.rows)
        if len(speed) == len(self.speed) and (np.abs(speed / self.speed - 1) <= DRIFT).all():
            return False
        self._show(speed)
        return True

    def _show(self, speed: Floats) -> None:
        rows = np.stack(list(self.rows) or [1 / speed])
        self.speed, self.every_s = speed, float(rows.min(-1).mean() / speed.sum() / LOAD)


def finite(service_s: Floats) -> Floats:
    """Times of which a policy may compute: a server that cannot run the request is very slow, `[S]`.

    Args:
        service_s: seconds, infinite where it cannot.

    Example:
        >>> finite(np.array([2.0, np.inf])).tolist()
        [2.0, 2000.0]
    """
    ends = np.isfinite(service_s)
    return np.where(ends, service_s, NEVER * service_s[ends].max(initial=1e-9))


def speeds(rows: Sequence[Floats] | deque[Floats]) -> Floats:
    """How fast servers are in relation to the fastest, `[S]`. Args: rows: seconds of requests on each, `[S]`."""
    mean_s = np.median(np.stack(list(rows)) / np.stack(list(rows)).min(-1, keepdims=True), axis=0)
    speed: Floats = mean_s.min() / mean_s
    return speed
