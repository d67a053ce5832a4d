"""`ComfyQueue`: what runs and what waits at a ComfyUI, looked at once for all who want to know."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from diffpolicy.edge.serving import health_report
from diffpolicy.edge.serving.upstream import Answer, UpstreamError

MOST_BYTES = 2**26
"""Of a queue: each request in it is there with its whole workflow."""
AT_ONCE = 2**18
"""Bytes up to which it is read in the event loop; more would keep all other requests waiting for milliseconds."""


@dataclass(frozen=True)
class Look:
    """What was there. Args: begun_s: when it was asked. running, waiting: names of requests, in their order."""

    begun_s: float
    running: tuple[str, ...]
    waiting: tuple[str, ...]


class ComfyQueue:
    """Looks at `/queue`.

    A hundred requests that wait at one ComfyUI would otherwise each ask for all hundred workflows, several times a
    second, of the process that also makes the images.

    Args:
        ask: for the answer of `/queue`. clock: seconds that only go up.

    Example:
        >>> async def ask() -> Answer:
        ...     return Answer(200, {}, b'{"queue_running": [[0, "a", {}, {}, []]], "queue_pending": []}')
        >>> asyncio.run(ComfyQueue(ask).look(0.0)).running
        ('a',)
    """

    def __init__(self, ask: Callable[[], Awaitable[Answer]], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask, self._clock = ask, clock
        self._last: Look | None = None
        self._looking: asyncio.Task[None] | None = None

    async def look(self, since_s: float) -> Look:
        """A look that began at some time or later, of whoever asked for it.

        Args:
            since_s: the time, of the clock.

        Raises:
            UpstreamError: there is none.
        """
        while self._last is None or self._last.begun_s < since_s:
            if self._looking is None or self._looking.done():
                self._looking = asyncio.ensure_future(self._look())
                self._looking.add_done_callback(lambda look: look.cancelled() or look.exception())  # maybe nobody waits
            await asyncio.shield(self._looking)
        return self._last

    async def _look(self) -> None:
        begun_s = self._clock()
        answer = await self._ask()
        if answer.status != 200:
            raise UpstreamError(f"answers with status {answer.status} for its queue", reached=True)
        body = answer.body
        running, waiting = _names(body) if len(body) <= AT_ONCE else await asyncio.to_thread(_names, body)
        self._last = Look(begun_s, running, waiting)

    async def aclose(self) -> None:
        """Ends a look that is on its way."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])


def _names(body: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the requests that run and that wait."""
    told = health_report.as_object(body)
    running, waiting = (
        tuple(str(entry[1]) for entry in (listed if isinstance(listed, list) else []) if _is_entry(entry))
        for listed in (told.get(name) for name in ("queue_running", "queue_pending"))
    )
    return running, waiting


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) > 1
