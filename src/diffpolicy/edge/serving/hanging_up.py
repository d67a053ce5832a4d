"""`hang_up` and `emptied`: the end of a connection whose client reads nothing, and what it holds until then.

ASGI has no words for either.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

HANG_UP = "diffpolicy.hang_up"
"""Of a scope's extensions: drops the connection and what it has not sent."""
HOLDS = "diffpolicy.holds"
"""Of a scope's extensions: sets the bytes that the connection may hold in this process before a message waits."""


def with_hang_up(app: Any) -> Callable[..., Awaitable[None]]:
    """An app whose requests can be hung up on; it must be the first that uvicorn calls.

    uvicorn itself only closes a connection, which waits until the client has read what is buffered.

    Args:
        app: of ASGI.
    """

    async def called(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        cycle: Any = getattr(send, "__self__", None)

        def drop() -> None:
            cycle.disconnected = True  # otherwise uvicorn answers 500 where nothing was sent yet
            cycle.transport.abort()

        def holds(most: int | None) -> None:
            if not cycle.transport.is_closing():
                cycle.transport.set_write_buffer_limits(high=most)

        if hasattr(cycle, "transport"):
            scope.setdefault("extensions", {}).update({HANG_UP: drop, HOLDS: holds})
        await app(scope, receive, send)

    return called


@contextmanager
def emptied(scope: MutableMapping[str, Any]) -> Iterator[None]:
    """A message that is sent within waits until its connection holds nothing more in this process.

    Others wait for what is above 64 KiB alone, since to have all that is small go out at once is quicker.

    Args:
        scope: of the request.
    """
    holds = scope.get("extensions", {}).get(HOLDS)
    if holds is None:
        yield
        return
    holds(0)
    try:
        yield
    finally:
        holds(None)


def hang_up(scope: MutableMapping[str, Any]) -> None:
    """Drops a request's connection; under a server that is not ours it is left to that server.

    Args:
        scope: of the request.
    """
    drop = scope.get("extensions", {}).get(HANG_UP)
    if drop is not None:
        drop()
