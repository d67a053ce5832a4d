"""`HttpCalls`: calls of one server from the event loop, each with an end in time and an answer of bounded size."""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from diffpolicy._validate import show
from diffpolicy.edge.hardware.adapters.server_url import ServerUrl
from diffpolicy.edge.hardware.optional import need
from diffpolicy.edge.serving.room import Room
from diffpolicy.edge.serving.upstream import Answer, Chunk, UpstreamError
from diffpolicy.edge.serving.within import within
from diffpolicy.errors import InputError

CONNECT_S = 5.0
KEEP_S = 2.0
"""How long an idle connection is kept: less than the 5 s after which uvicorn closes its end, so that no request is
written to a connection that is just being closed."""
IDLE = 64
"""Idle connections that are kept, at most."""
URLS = 64
"""Addresses that are remembered; those of ComfyUI's answers are without end."""
FRESH = "diffpolicy.fresh"
"""Of a request's extensions: it has a connection of its own."""
WAITS = "diffpolicy.waits"
"""Of a request's extensions: whether it waits for a connection, so that nothing of it was sent."""
AUTHORITIES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Of the environment: who may vouch for servers, of which the first is heeded."""
HOP = ("connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "set-cookie", "date")
"""Headers of a connection or of its server rather than of an answer."""


class HttpCalls:
    """Calls by httpx's requests and answers, and without its client, which takes as long as the call itself.

    Neither proxies of the environment nor redirects are followed, nothing is retried, and no compression is asked for
    or taken: some hundred bytes of it may unpack to a gigabyte at once.

    Args:
        connections: most at once. query: of each call. secrets: texts that no error may show. headers: of each call.
        transport: takes the place of the network, in tests; one of httpx.
        room: where the bytes of answers count while they come; what becomes of them then is their caller's to count.
        tls: whether addresses may be of `https`, whose certificates are checked by `SSL_CERT_FILE` or `SSL_CERT_DIR` of
            the environment, or else by certifi's.
        connect_s: longest wait for a connection, within that of the whole call.

    Raises:
        InputError: the environment's certificates cannot be read.
    """

    def __init__(
        self,
        connections: int,
        *,
        query: str = "",
        secrets: tuple[str, ...] = (),
        headers: Mapping[str, str] | None = None,
        transport: Any = None,
        room: Room | None = None,
        tls: bool = True,
        connect_s: float = CONNECT_S,
    ) -> None:
        self._connect_s, self._room = connect_s, Room() if room is None else room
        self._httpx = need("httpx", "serving")
        self._urls: dict[str, Any] = {}
        self._secrets, self._query = secrets, query.encode()
        self._headers = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "diffpolicy", **(headers or {})}
        self._transport = transport or _transport(connections, tls)

    @classmethod
    def to(
        cls,
        address: ServerUrl,
        key: str | None,
        connections: int,
        *,
        transport: Any = None,
        room: Room | None = None,
        connect_s: float = CONNECT_S,
    ) -> HttpCalls:
        """Calls of one server, which take its query and its key, and show none of its secrets.

        Args:
            address: of it. key: sent as `Bearer`; None: there is none.
            connections, transport, room, connect_s: of `HttpCalls`.

        Raises:
            InputError: as `HttpCalls`.
        """
        return cls(
            connections,
            query=address.query,
            secrets=(*([] if key is None else [key]), *address.secrets),
            headers={} if key is None else {"Authorization": f"Bearer {key}"},
            transport=transport,
            room=room,
            tls=address.endpoint.lower().startswith("https:"),
            connect_s=connect_s,
        )

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        timeout_s: float,
        most_bytes: int,
        chunk: Chunk | None = None,
        begun: Callable[[int, Mapping[str, str]], Awaitable[None]] | None = None,
        fresh: bool = False,
        headers: Mapping[str, str] | None = None,
        **content: Any,
    ) -> Answer:
        """One call.

        Args:
            timeout_s: from the connection to the last byte. most_bytes: of the answer, streamed or not.
            chunk: takes the pieces of an answer that is a stream of events with status 200.
            begun: takes the status and the headers of an answer, by their names in lower case, before its body.
            fresh: on a connection of its own, so that a balancer may choose anew. headers: more of them.
            content: `json`, `data`, `files` and `params`, as httpx takes them.

        Raises:
            UpstreamError: there is no answer.
        """
        httpx = self._httpx
        request: Any = None
        try:
            async with within(timeout_s):
                request = httpx.Request(
                    method,
                    self._url(url),
                    headers={**self._headers, **({"Connection": "close"} if fresh else {}), **(headers or {})},
                    extensions={"timeout": {"connect": min(self._connect_s, timeout_s)}, FRESH: fresh},
                    **content,
                )
                if self._query:
                    own = request.url.query
                    request.url = request.url.copy_with(query=own + b"&" + self._query if own else self._query)
                response = await self._transport.handle_async_request(request)
                try:
                    return await _read(response, most_bytes, chunk, begun, self._room)
                finally:
                    await response.aclose()
        except TimeoutError:
            if request is not None and request.extensions.get(WAITS):
                why = f"cannot be reached: no connection was free in time ({timeout_s:.3g} s)"
                raise UpstreamError(why, reached=False, late=True) from None
            raise UpstreamError(f"did not answer in time ({timeout_s:.3g} s)", reached=True, late=True) from None
        except httpx.ConnectTimeout:
            late = timeout_s <= self._connect_s
            raise UpstreamError("cannot be reached: no connection in time", reached=False, late=late) from None
        except (httpx.ConnectError, httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise UpstreamError(f"cannot be reached: {self._told(error)}", reached=False, gone=_gone(error)) from None
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise UpstreamError(f"dropped the call: {self._told(error)}", reached=True, gone=_gone(error)) from None

    def _url(self, url: str) -> Any:
        """An address that was read: workers have few, and to read one takes a tenth of a call."""
        if url not in self._urls and len(self._urls) < URLS:
            self._urls[url] = self._httpx.URL(url)
        return self._urls.get(url, url)

    async def aclose(self) -> None:
        """Ends its connections."""
        await self._transport.aclose()

    def _told(self, error: Exception) -> str:
        """An error's text without a key, which some servers repeat."""
        text = " ".join(str(error).split())[:200] or type(error).__name__
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _gone(error: Exception) -> bool:
    """Whether the server's machine said that nothing listens; what went wrong on this one tells nothing of it."""
    return isinstance(error.__cause__, (ConnectionRefusedError, ConnectionResetError, BrokenPipeError))


async def _read(
    response: Any,
    most_bytes: int,
    chunk: Chunk | None,
    begun: Callable[[int, Mapping[str, str]], Awaitable[None]] | None,
    room: Room,
) -> Answer:
    """An answer whose head is there. Args: see `HttpCalls.fetch`."""
    told = {name.lower(): value for name, value in response.headers.items()}
    kept = {name: value for name, value in told.items() if name not in HOP}
    coding = told.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity"):
        raise UpstreamError(f"answers with content-encoding {coding[:40]}, which was not asked for", reached=True)
    if _length(told) > most_bytes:
        raise _too_long(most_bytes)
    if begun is not None:
        await begun(response.status_code, told)
    events = told.get("content-type", "").partition(";")[0].strip().lower() == "text/event-stream"
    if chunk is not None and events and response.status_code == 200:
        async for part in _bounded(response, most_bytes):
            await chunk(part)
        return Answer(response.status_code, kept)
    parts: list[bytes] = []
    with room.share() as share:
        async for part in _bounded(response, most_bytes):
            share.add(len(part))
            parts.append(part)
        return Answer(response.status_code, kept, b"".join(parts))


async def _bounded(response: Any, most_bytes: int) -> AsyncIterator[bytes]:
    """The pieces of an answer as they come, none of them empty."""
    size = 0
    async for part in response.stream:
        size += len(part)
        if size > most_bytes:
            raise _too_long(most_bytes)
        if part:
            yield part


def _too_long(most_bytes: int) -> UpstreamError:
    return UpstreamError(f"answers with more than {most_bytes / 2**20:.3g} MiB", reached=True)


def _length(headers: Mapping[str, str]) -> int:
    """The length that an answer says it has; 0 where it does not say."""
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def _transport(connections: int, tls: bool) -> Any:
    from diffpolicy.edge.serving.http_transport import HttpTransport

    context = _context(*(os.environ.get(name, "") for name in AUTHORITIES)) if tls else None
    return HttpTransport(context, connections=connections, idle=IDLE, keep_s=KEEP_S)


@functools.lru_cache(maxsize=4)
def _context(file: str, folder: str) -> Any:
    """One for all servers: to read the authorities' certificates takes longer than to start a client."""
    try:
        return need("httpx", "serving").create_ssl_context()  # which reads both variables
    except OSError as error:  # ssl.SSLError is one
        name = AUTHORITIES[0] if file else AUTHORITIES[1]
        raise InputError(f"the certificates of {name} {show(file or folder)} cannot be read: {error}") from None
