"""`HttpCalls`: calls of one server from the event loop, each with an end in time and an answer of bounded size."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from diffpolicy.edge.hardware.optional import need
from diffpolicy.edge.serving.upstream import Answer, Chunk, UpstreamError

CONNECT_S = 5.0
"""Longest wait for a connection, within that of the whole call."""
KEEP_S = 2.0
"""How long an idle connection is kept: less than the 5 s after which uvicorn closes its end, so that no request is
written to a connection that is just being closed."""
HOP = ("connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "set-cookie", "date")
"""Headers of a connection or of its server rather than of an answer."""


class HttpCalls:
    """One httpx client for one server.

    Neither proxies of the environment nor redirects are followed, nothing is retried, and no compression is asked for.

    Args:
        connections: most at once. query: of each call; it is added below httpx, whose logs show addresses.
        secrets: texts that no error may show. headers: of each call.
        transport: takes the place of the network, in tests.
    """

    def __init__(
        self,
        connections: int,
        *,
        query: str = "",
        secrets: tuple[str, ...] = (),
        headers: Mapping[str, str] | None = None,
        transport: Any = None,
    ) -> None:
        self._httpx = httpx = need("httpx", "serving")
        self._anyio = need("anyio", "serving")
        self._secrets = secrets
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=64, keepalive_expiry=KEEP_S)
        inner = transport or httpx.AsyncHTTPTransport(verify=_tls(), limits=limits, trust_env=False)
        self._client = httpx.AsyncClient(
            transport=_with_query(inner, query) if query else inner,
            timeout=None,  # `within` bounds the whole
            trust_env=False,
            follow_redirects=False,
            headers={"Accept-Encoding": "identity", **(headers or {})},
        )

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        timeout_s: float,
        most_bytes: int,
        chunk: Chunk | None = None,
        **content: Any,
    ) -> Answer:
        """One call.

        Args:
            timeout_s: from the connection to the last byte. most_bytes: of the answer, streamed or not.
            chunk: takes the pieces of an answer that is a stream of events with status 200.
            content: `json`, `data`, `files`, `params` and `headers`, as httpx takes them.

        Raises:
            UpstreamError: there is no answer.
        """
        async with self._open(method, url, timeout_s, content) as response:
            told = {name.lower(): value for name, value in response.headers.items()}
            kept = {name: value for name, value in told.items() if name not in HOP}
            if _length(told) > most_bytes:
                raise _too_long(most_bytes)
            events = told.get("content-type", "").partition(";")[0].strip().lower() == "text/event-stream"
            if chunk is not None and events and response.status_code == 200:
                async for part in _bounded(response, most_bytes):
                    await chunk(part)
                return Answer(response.status_code, kept)
            body = b"".join([part async for part in _bounded(response, most_bytes)])
            return Answer(response.status_code, kept, body)

    async def aclose(self) -> None:
        """Ends its connections."""
        await self._client.aclose()

    @asynccontextmanager
    async def _open(self, method: str, url: str, timeout_s: float, content: Mapping[str, Any]) -> AsyncIterator[Any]:
        """The answer once its headers are there; what goes wrong within is an `UpstreamError`."""
        httpx = self._httpx
        connect_s = httpx.Timeout(None, connect=min(CONNECT_S, timeout_s))
        try:
            with self._anyio.fail_after(timeout_s):
                async with self._client.stream(method, url, timeout=connect_s, **content) as response:
                    yield response
        except TimeoutError:
            raise UpstreamError(f"did not answer in time ({timeout_s:.3g} s)", reached=True, late=True) from None
        except httpx.ConnectTimeout:
            late = timeout_s <= CONNECT_S
            raise UpstreamError("cannot be reached: no connection in time", reached=False, late=late) from None
        except (httpx.ConnectError, httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise UpstreamError(f"cannot be reached: {self._told(error)}", reached=False) from None
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise UpstreamError(f"dropped the call: {self._told(error)}", reached=True) from None

    def _told(self, error: Exception) -> str:
        """An error's text without a key, which some servers repeat."""
        text = " ".join(str(error).split())[:200] or type(error).__name__
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


async def _bounded(response: Any, most_bytes: int) -> AsyncIterator[bytes]:
    """The pieces of an answer as they come, not compressed any more: a piece unpacks to some 64 MiB at most."""
    size = 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > most_bytes:
            raise _too_long(most_bytes)
        yield part


def _too_long(most_bytes: int) -> UpstreamError:
    return UpstreamError(f"answers with more than {most_bytes / 2**20:.3g} MiB", reached=True)


def _length(headers: Mapping[str, str]) -> int:
    """The length that an answer says it has; 0 where it does not say."""
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


@functools.lru_cache(maxsize=1)
def _tls() -> Any:
    """One for all servers: to read the authorities' certificates takes longer than to start a client."""
    return need("httpx", "serving").create_ssl_context(trust_env=False)


def _with_query(inner: Any, query: str) -> Any:
    """A transport that adds a query to each address, behind the back of what logs addresses."""
    httpx = need("httpx", "serving")
    base: Any = httpx.AsyncBaseTransport

    class WithQuery(base):
        async def handle_async_request(self, request: Any) -> Any:
            own = request.url.query
            whole = query.encode() if not own else own + b"&" + query.encode()
            sent = httpx.Request(
                request.method,
                request.url.copy_with(query=whole),
                headers=request.headers,
                stream=request.stream,
                extensions=request.extensions,
            )
            return await inner.handle_async_request(sent)

        async def aclose(self) -> None:
            await inner.aclose()

    return WithQuery()
