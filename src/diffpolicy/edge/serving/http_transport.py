"""`HttpTransport`: connections to one server, below an httpx client."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx

from diffpolicy.edge.serving.http_calls import FRESH, WAITS
from diffpolicy.edge.serving.http_connection import HttpConnection

FIRST_S = 1.0
"""For an address that is not the server's last: one that drops packets must not take the time of all."""


class HttpTransport(httpx.AsyncBaseTransport):
    """Keeps connections from one request to the next, and takes no longer for a thousand of them than for one.

    httpx's own pool looks at every connection for every request, which with some hundred requests on their way takes
    most of a dispatcher's time.

    Args:
        tls: for `https`; None: there is none. connections: most at once.
        idle: kept for the next request, at most. keep_s: for how long.
    """

    def __init__(self, tls: ssl.SSLContext | None, *, connections: int, idle: int, keep_s: float) -> None:
        self._tls, self._most_idle, self._keep_s = tls, idle, keep_s
        self._room = asyncio.Semaphore(connections)
        self._idle: deque[tuple[HttpConnection, float]] = deque()
        """With the time since when, oldest first."""
        self._all: set[HttpConnection] = set()
        self._server: tuple[str, bytes] | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx; of its time-outs that of a connection is kept.

        Raises:
            httpx.ConnectError, httpx.ConnectTimeout: nothing was sent. httpx.HTTPError: there is no answer.
        """
        server = request.url.scheme, request.url.netloc
        self._server = self._server or server
        if server != self._server:  # its connections lead elsewhere
            raise httpx.UnsupportedProtocol("these are connections to another server")
        request.extensions[WAITS] = True
        await self._room.acquire()
        connection: HttpConnection | None = None
        try:
            kept = None if request.extensions.get(FRESH) else self._kept()
            connection = kept or await self._connect(request)
            request.extensions[WAITS] = False
            body: Any = request.stream
            await connection.send(request.method.encode(), request.url.raw_path, request.headers.raw, body)
            answer = await connection.answer()
        except BaseException:
            self._give_back(connection)
            raise
        return httpx.Response(
            answer.status_code,
            headers=answer.headers.raw_items(),
            stream=_Body(self, connection),
            extensions={"http_version": b"HTTP/" + answer.http_version, "reason_phrase": answer.reason},
        )

    def _kept(self) -> HttpConnection | None:
        """The connection that was used last, if it can be used again."""
        while self._idle:
            connection, since_s = self._idle.pop()
            if connection.idle and time.monotonic() - since_s < self._keep_s:
                return connection
            connection.close()
        return None

    async def _connect(self, request: httpx.Request) -> HttpConnection:
        """A new connection, to the first of the server's addresses that answers."""
        url, within_s = request.url, request.extensions.get("timeout", {}).get("connect")
        if url.scheme not in ("http", "https") or (url.scheme == "https" and self._tls is None):
            raise httpx.UnsupportedProtocol(f"{url.scheme} is not a supported protocol")
        tls = url.scheme == "https"
        port = url.port or (443 if tls else 80)
        try:
            with anyio.fail_after(within_s):
                for address, last in await _addresses(url.host, port):
                    with contextlib.nullcontext() if last else contextlib.suppress(OSError, TimeoutError):
                        with anyio.fail_after(None if last else FIRST_S):
                            _, connection = await asyncio.get_running_loop().create_connection(
                                lambda: HttpConnection(self._left),
                                *(address, port),
                                ssl=self._tls if tls else None,
                                server_hostname=url.host if tls else None,
                            )
                            break
        except TimeoutError:
            raise httpx.ConnectTimeout("no connection in time") from None
        except (OSError, ValueError) as error:
            raise httpx.ConnectError(str(error)) from error
        self._all.add(connection)
        return connection

    def _left(self, connection: HttpConnection) -> None:
        """A connection has ended; one that was kept is not looked for, but thrown away when its turn comes."""
        self._all.discard(connection)

    def _give_back(self, connection: HttpConnection | None) -> None:
        """Takes a connection back whose request is over."""
        self._room.release()
        if connection is not None and connection.release():
            if len(self._idle) < self._most_idle:
                self._idle.append((connection, time.monotonic()))
            else:
                connection.close()
        while self._idle and time.monotonic() - self._idle[0][1] >= self._keep_s:
            self._idle.popleft()[0].close()

    async def aclose(self) -> None:
        """Ends all connections."""
        for connection in list(self._all):
            connection.close()
        self._idle.clear()


class _Body(httpx.AsyncByteStream):
    """An answer's body, at whose end its connection is given back."""

    def __init__(self, transport: HttpTransport, connection: HttpConnection) -> None:
        self._transport, self._connection = transport, connection
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._connection.body():
            yield part

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._transport._give_back(self._connection)


async def _addresses(host: str, port: int) -> list[tuple[str, bool]]:
    """A server's addresses, each with whether it is the last."""
    with contextlib.suppress(ValueError):
        return [(str(ipaddress.ip_address(host)), True)]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    return [(address, place == len(addresses) - 1) for place, address in enumerate(addresses)]
