"""`raise_limit` and `FewClients`: each connection is an open file, and those to workers must not lack any."""

from __future__ import annotations

import contextlib
import importlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from itertools import islice
from typing import Any

from starlette.responses import JSONResponse

from diffpolicy.edge.serving.api_error import ApiError

logger = logging.getLogger("diffpolicy.serving")
MOST = 65_536
"""Open files that a service asks the system for, where it may have so many."""
OWN = 32
"""That are no connection of a request: the port, the log, the event loop's, looks at a few workers."""
FEW, LOOKS = 8, 3
"""The few workers, and files for looks at each further one: three paths are asked, and two connections kept."""
PART = 0.4
"""Of the others, for requests under way: each may have a connection to a worker too, and some are spare."""
SPARE = 1.25
"""Times as many connections, without a request too: each further one costs the one that was idle for longest, or is
dropped at once."""
LOOKED = 1000
"""Connections among which an idle one is looked for."""
AGAIN_S = 60.0
"""Between two lines about it."""
ALWAYS = ("/live", "/health", "/metrics")
"""Paths that are answered all the same, to whoever watches the service."""


def limit() -> int | None:
    """How many files this process may have open; None: nobody says, or any number."""
    resource = _resource()
    if resource is None:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else int(soft)


def raise_limit() -> None:
    """Raises the limit of open files as far as this process may, and no further than `MOST`.

    Shells give 1,024 of what are often a million, for the sake of programs that use `select`.
    """
    resource = _resource()
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # macOS has another limit beside this one
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def clients_of(files: int | None, workers: int = 0) -> int | None:
    """How many requests at a time leave files for connections to workers.

    Args:
        files: that may be open; None: any number. workers: that are looked at.

    Example:
        >>> clients_of(1024), clients_of(1024, workers=200), clients_of(64), clients_of(None)
        (396, 166, 12, None)
    """
    return None if files is None else max(int(PART * (files - OWN - LOOKS * max(workers - FEW, 0))), 1)


def warn_of_files(queue: int, workers: int = 0) -> None:
    """Says so where there are not files enough for as many clients as may wait.

    Args:
        queue: how many may. workers: that are looked at.
    """
    files = limit()
    clients = clients_of(files, workers)
    if clients is not None and clients < queue:
        logger.warning(
            "%d open files (ulimit -n) are enough for %d clients at a time, fewer than the %d that may wait; further"
            " ones are refused",
            *(files, clients, queue),
        )


class FewClients:
    """An app that refuses requests while too many are under way; without it workers could not be reached.

    Args:
        app: of ASGI. most: tells how many requests may be under way now; None: any number.
    """

    def __init__(self, app: Any, most: Callable[[], int | None]) -> None:
        self._app, self._most = app, most
        self._under_way, self._told_s = 0, -AGAIN_S
        self.connections: Collection[Any] = ()
        """Those that there are, with a request or without, as the server keeps them."""

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        if scope.get("path") not in ALWAYS and self._too_many(self._under_way + 1, 1.0):
            self._tell()
            error = ApiError(429, "too many connections are open", code="connections_full", retry_after_s=2.0)
            headers = {**error.headers(), "connection": "close"}  # it is what there are too many of
            await JSONResponse(error.body(), error.status, headers)(scope, receive, send)
            return
        self._under_way += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._under_way -= 1

    def _too_many(self, number: int, times: float) -> bool:
        """Whether that is more than there may be. Args: number: of them. times: as many as `most`."""
        most = self._most()
        return most is not None and number > times * most

    def _tell(self) -> None:
        """Says now and then that clients are refused."""
        now_s = time.monotonic()
        if now_s - self._told_s >= AGAIN_S:
            self._told_s = now_s
            logger.warning(
                "clients are refused: more than %d requests at a time would leave too few open files for workers"
                " (ulimit -n is %s)",
                *(self._most(), limit()),
            )

    def _longest_idle(self) -> Any:
        """The transport of a connection that is only kept for its next request; None: there is none."""
        some = [each for each in islice(self.connections, LOOKED) if each.timeout_keep_alive_task is not None]
        idle = [each for each in some if not each.transport.is_closing()]
        return min(idle, key=lambda each: each.timeout_keep_alive_task.when()).transport if idle else None

    def bounding(self, protocol: type[Any]) -> type[Any]:
        """A protocol of uvicorn of which there are not far too many connections.

        Those that clients keep for later must not keep out who watches the service.

        Args:
            protocol: of which it is one.
        """
        few = self

        class Bounding(protocol):
            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                if few._too_many(len(few.connections), SPARE):
                    idle = few._longest_idle()
                    if idle is None:
                        few._tell()
                    (idle or transport).abort()

        return Bounding


def _resource() -> Any:
    """Python's module of limits; None on Windows, which has none."""
    try:
        return importlib.import_module("resource")
    except ModuleNotFoundError:
        return None
