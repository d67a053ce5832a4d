"""`run_app`: an ASGI app on a port until a signal ends it, with a time to finish what it has."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn

from diffpolicy import _signals
from diffpolicy._validate import show
from diffpolicy.edge.serving.hanging_up import with_hang_up
from diffpolicy.edge.serving.heads import MOST_HEAD, bounded_http
from diffpolicy.edge.serving.open_files import FewClients, clients_of, limit
from diffpolicy.edge.serving.silent import end_silent
from diffpolicy.errors import InputError

BACKLOG = 2048
FLUSH_S = 5
"""For the last bytes of answers, once everything is done."""
KEEP_S = 75
"""How long an idle connection is kept: longer than clients (httpx 5 s, as is uvicorn's default) and proxies (60 s) do,
so that none sends a request into a connection that is just being closed."""
SILENT_S = 90
"""After which a connection without a whole head of a request is ended: longer than an idle one is kept."""


def listen(host: str, port: int) -> socket.socket:
    """Takes a port.

    Args:
        host: name or address. port: 0 for one that is free.

    Returns:
        A socket that listens; its name tells the port.

    Raises:
        InputError: it is taken, or there is no such address here.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # the protocol is named since asyncio sends small packets at once only where it is: otherwise an answer whose head
    # and body are two of them waits 40 ms for the client's acknowledgement
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except (OSError, UnicodeError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot listen on {show(host)} port {port}: {reason}") from None
    return listening


async def run_app(
    app: Any,
    listening: socket.socket,
    *,
    start: Callable[[], Awaitable[None]],
    stop: Callable[[float], Awaitable[None]],
    grace_s: float,
    workers: Callable[[], int] = lambda: 0,
) -> None:
    """Answers until SIGINT or SIGTERM, then ends what there is.

    Args:
        app: of ASGI. listening: see `listen`; it is closed at the end.
        start: is awaited once the port answers; what it raises ends everything.
        stop: refuses new requests and ends the others, within the seconds that it is given, or until a
            second signal.
        grace_s: these seconds.
        workers: see `serving`.

    Raises:
        Stopped: a signal ended it, as always but where `start` raises.
    """
    async with serving(app, listening, workers) as server:
        with _signalled() as (first, second):
            starting = asyncio.ensure_future(start())
            await _any(starting, server.ended, first)
            if starting.done():
                starting.result()
                await _any(server.ended, first)
            starting.cancel()
            stopping = asyncio.ensure_future(stop(grace_s))
            await _any(stopping, second)
            if not stopping.done():
                stopping.cancel()
                stopping = asyncio.ensure_future(stop(0.0))
            await stopping
    if first.done():
        raise _signals.Stopped(first.result())


@asynccontextmanager
async def serving(app: Any, listening: socket.socket, workers: Callable[[], int] = lambda: 0) -> AsyncIterator[Server]:
    """Answers within, from the first moment on; at the end it sends what is left and closes the socket.

    Args:
        app: of ASGI. listening: see `listen`. workers: tells how many the app looks at, which takes open files.
    """
    files, http = limit(), bounded_http()
    few = FewClients(app, lambda: clients_of(files, workers()))
    config = uvicorn.Config(
        with_hang_up(few),
        http=few.bounding(_h11() if isinstance(http, str) else http),
        h11_max_incomplete_event_size=MOST_HEAD,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing goes by who asks, or how, so nobody need be believed about it
        ws="none",
        timeout_graceful_shutdown=FLUSH_S,
        timeout_keep_alive=KEEP_S,
    )
    server = Server(config)
    few.connections = server.server_state.connections
    server.ended = asyncio.create_task(server.serve(sockets=[listening]))
    silent = asyncio.create_task(end_silent(server.server_state.connections, SILENT_S))
    try:
        while not server.started and not server.ended.done():
            await asyncio.sleep(0.002)
        yield server
    finally:
        silent.cancel()
        server.should_exit = True
        await server.ended
        listening.close()


def _h11() -> type[Any]:
    """The protocol of uvicorn where httptools is not installed."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    return H11Protocol


async def _any(*futures: asyncio.Future[Any]) -> None:
    """Waits for the first of some."""
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


class Server(uvicorn.Server):
    """One that leaves signals alone."""

    ended: asyncio.Task[None]

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def _signalled() -> Iterator[tuple[asyncio.Future[int], asyncio.Future[int]]]:
    """Futures of the first and the second signal; outside the main thread, where Python takes none, of nothing."""
    loop = asyncio.get_running_loop()
    first: asyncio.Future[int] = loop.create_future()
    second: asyncio.Future[int] = loop.create_future()

    def heard(number: int) -> None:
        waits = next((future for future in (first, second) if not future.done()), None)
        if waits is not None:
            waits.set_result(number)

    if threading.current_thread() is not threading.main_thread():
        yield first, second
        return
    before = {number: signal.getsignal(number) for number in _signals.NUMBERS}
    for number in _signals.NUMBERS:
        loop.add_signal_handler(number, heard, number)
    try:
        yield first, second
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
