"""`Bell`: what one task waits for, at most so long."""

from __future__ import annotations

import asyncio


class Bell:
    """An event for one who waits, without a task for each time that he does: a dispatcher waits after every binding.

    Attributes:
        rung: whether it has rung since it was cleared.

    Example:
        >>> async def once() -> None:
        ...     bell = Bell()
        ...     bell.ring()
        ...     await bell.wait(None)
        >>> asyncio.run(once())
    """

    def __init__(self) -> None:
        self.rung = False
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wakes who waits, or who will."""
        self.rung = True
        _end(self._waiter)

    def clear(self) -> None:
        """What has rung is forgotten."""
        self.rung = False

    async def wait(self, within_s: float | None) -> None:
        """Waits until it rings. Args: within_s: at most so long; None: for ever."""
        if self.rung:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = None if within_s is None else loop.call_later(within_s, _end, waiter)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()


def _end(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
