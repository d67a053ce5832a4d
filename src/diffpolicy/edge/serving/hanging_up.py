"""`hang_up`: the end of a connection whose client reads nothing, which ASGI has no word for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

HANG_UP = "diffpolicy.hang_up"
"""Of a scope's extensions: drops the connection and what it has not sent."""


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

        if hasattr(cycle, "transport"):
            scope.setdefault("extensions", {})[HANG_UP] = drop
        await app(scope, receive, send)

    return called


def hang_up(scope: MutableMapping[str, Any]) -> None:
    """Drops a request's connection; under a server that is not ours it is left to that server.

    Args:
        scope: of the request.
    """
    drop = scope.get("extensions", {}).get(HANG_UP)
    if drop is not None:
        drop()
