"""`others_first`: who tells that something is free lets those go first who wait for it."""

from __future__ import annotations

import asyncio

TURNS = 3
"""Of the event loop: the first binds the next request, and the second sends it, or the third where an upstream calls in
a task."""


async def others_first() -> None:
    """Lets a request that waits for a worker be bound and sent, before its caller goes on.

    What is read, learned and told of an answer takes longer than all of that, and the worker would stand still.

    Example:
        >>> said = []
        >>> async def tells() -> None:
        ...     asyncio.get_running_loop().call_soon(said.append, "is sent")
        ...     await others_first()
        ...     said.append("goes on")
        >>> asyncio.run(tells())
        >>> said
        ['is sent', 'goes on']
    """
    for _ in range(TURNS):
        await asyncio.sleep(0)
