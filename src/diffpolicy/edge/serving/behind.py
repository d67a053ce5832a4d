"""`Behind`: calls that nobody waits for, in a thread beside the event loop, and no more of them than a number."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from diffpolicy.edge.serving.aside import Aside

WAITING = 10_000
"""Calls that may wait, at most."""
END_S = 5.0
"""For which an end waits for calls that are not made yet."""
LOOKS_S = 0.005


class Behind:
    """Makes calls one after the other, of which so many may wait, such as writing lines to a disk that may be slow.

    Any thread may give calls, and ask how many are left.

    Args:
        name: of the thread. most: calls that may wait.

    Example:
        >>> said = []
        >>> behind = Behind("saying")
        >>> behind.submit(lambda: said.append("a line")), behind.close(within_s=5.0), said
        (True, 0, ['a line'])
        >>> behind.submit(lambda: said.append("another"))
        False
    """

    def __init__(self, name: str, most: int = WAITING) -> None:
        self._aside, self._most = Aside(name), most
        self._giving = threading.RLock()  # a handler of a signal may give a call amid another
        self._given, self._made, self._closed = 0, 0, False

    def submit(self, call: Callable[[], Any]) -> bool:
        """Takes a call, which raises nothing.

        Args:
            call: of no arguments.

        Returns:
            Whether it will be made: not where too many wait, or after the end.
        """
        with self._giving:
            if self._closed or self._given - self._made >= self._most:
                return False
            self._given += 1
            self._aside.submit(lambda: self._make(call))
            return True

    def _make(self, call: Callable[[], Any]) -> None:
        try:
            call()
        finally:
            self._made += 1

    def flush(self, within_s: float) -> int:
        """Waits until all calls are made. Args: within_s: at most so long. Returns: how many are not."""
        until = time.monotonic() + within_s
        while self._given > self._made and time.monotonic() < until:
            time.sleep(LOOKS_S)
        return self._given - self._made

    def close(self, within_s: float) -> int:
        """Takes no more calls, and waits for those that it has. Args: within_s: at most so long.

        Returns:
            How many are not made by then; they may still be.
        """
        with self._giving:
            self._closed = True
            self._aside.close()
        return self.flush(within_s)
