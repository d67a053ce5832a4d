"""`end_silent`: ends connections on which no request comes, which a server of uvicorn would keep for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

LOOKS = 4
"""In the time after which a connection is ended."""


async def end_silent(connections: Collection[Any], after_s: float) -> None:
    """Goes on until it is cancelled. Each connection is a file that this process may have open, of some thousand.

    A connection on which a request has come, whole or without the end of its body, is the app's to end.

    Args:
        connections: of uvicorn, as they are at each time.
        after_s: for which a connection may lack the end of a request's head.
    """
    loop = asyncio.get_running_loop()
    since: dict[Any, tuple[Any, float]] = {}
    """Of each that has no request, after which one that was, and since when."""
    while True:
        now, before = loop.time(), since
        waits = [each for each in connections if each.cycle is None or each.cycle.response_complete]
        since = {each: (each.cycle, now) for each in waits}
        since |= {each: told for each, told in before.items() if each in since and told[0] is each.cycle}
        for each, (_, since_s) in since.items():
            if now - since_s >= after_s:
                each.transport.abort()
        await asyncio.sleep(after_s / LOOKS)
