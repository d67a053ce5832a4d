"""`BoundedClient`: HTTP calls that end when their time is up, whatever the server does, and answers of bounded size."""

from __future__ import annotations

import asyncio
import threading
import time
import zlib
from collections.abc import Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any

from diffpolicy.edge.hardware.optional import need

CONNECT_S = 10.0
"""Longest wait for a connection, within that of the whole call."""
CODINGS = {"": None, "identity": None, "gzip": 31, "x-gzip": 31, "deflate": 47}
"""Compressions that are undone, and zlib's word for each; none is asked for, but some servers compress nevertheless."""


class CallError(Exception):
    """A call without an answer. Its text says what happened, as the end of a sentence about the server."""


class UnreachableError(CallError):
    """There is no connection to the server."""


class DroppedError(CallError):
    """The connection was lost, or what came is no HTTP."""


class TooLateError(CallError):
    """The time was up."""


class GarbledError(CallError):
    """The answer is too long, or compressed in a way that cannot be undone."""


@dataclass(frozen=True)
class Answer:
    """A server's answer.

    Args:
        headers: by lower-case name. body: not compressed. seconds: from the call to the last byte.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float


class BoundedClient:
    """Sends calls from any thread through one event loop, which cuts each of them off when its time is up.

    A time-out of sockets bounds each read alone, so that a byte now and then would hold a call for ever.
    Redirects are not followed, and the environment's proxies are not used: they would swallow traffic to this machine.

    Args:
        connections: most at once. query: of each call; it is added below httpx, whose logs show addresses.
    """

    def __init__(self, connections: int, query: str = "") -> None:
        self._httpx = need("httpx")
        self._connections, self._query = connections, query
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._client: Any = None
        self._lock, self._closed = threading.Lock(), False

    def post(
        self, url: str, json: Mapping[str, Any], headers: Mapping[str, str], *, timeout_s: float, most_bytes: int
    ) -> Answer:
        """One call.

        Args:
            timeout_s: from the connection to the last byte of the answer. most_bytes: of the answer's body.

        Raises:
            CallError: there is no answer.
        """
        with self._lock:  # so that nothing is begun behind the back of `close`
            loop = self._running()
            call = self._post(url, json, headers, most_bytes)
            future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(call, timeout_s), loop)
        httpx = self._httpx
        try:
            status, got, body, seconds = future.result()
        except httpx.ConnectTimeout:
            raise UnreachableError(f"cannot be reached: no connection within {CONNECT_S:g} s") from None
        except (asyncio.TimeoutError, TimeoutError, httpx.TimeoutException):
            raise TooLateError(f"did not answer in time ({timeout_s:g} s)") from None
        except (httpx.ConnectError, httpx.UnsupportedProtocol, httpx.InvalidURL, UnicodeError) as error:
            raise UnreachableError(f"cannot be reached: {error}") from None
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise DroppedError(f"dropped the call: {error or type(error).__name__}") from None
        except CancelledError:
            raise DroppedError("was called through an adapter that is closed") from None
        finally:
            future.cancel()
        return Answer(status, got, _decoded(body, got.get("content-encoding", ""), most_bytes), seconds)

    def close(self) -> None:
        """Cuts off what is under way."""
        with self._lock:
            self._closed = True
            loop, self._loop = self._loop, None
            if loop is not None and self._thread is not None:
                asyncio.run_coroutine_threadsafe(self._end(), loop).result()
                loop.call_soon_threadsafe(loop.stop)
                self._thread.join()
                loop.close()

    def _running(self) -> asyncio.AbstractEventLoop:
        """The event loop, begun with the first call."""
        if self._closed:
            raise DroppedError("was called through an adapter that is closed")
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._client = self._make_client()
            self._thread = threading.Thread(target=self._loop.run_forever, name="diffpolicy-http", daemon=True)
            self._thread.start()
        return self._loop

    def _make_client(self) -> Any:
        httpx, query = self._httpx, self._query.encode()

        base: Any = httpx.AsyncHTTPTransport

        class WithQuery(base):
            async def handle_async_request(self, request: Any) -> Any:
                sent = httpx.Request(
                    request.method,
                    request.url.copy_with(query=query or None),
                    headers=request.headers,
                    stream=request.stream,
                    extensions=request.extensions,
                )
                return await super().handle_async_request(sent)

        limits = httpx.Limits(max_connections=self._connections)
        return httpx.AsyncClient(
            transport=WithQuery(limits=limits, trust_env=False),
            timeout=httpx.Timeout(None, connect=CONNECT_S),
            trust_env=False,
        )

    async def _post(
        self, url: str, json: Mapping[str, Any], headers: Mapping[str, str], most_bytes: int
    ) -> tuple[int, dict[str, str], bytes, float]:
        begun = time.perf_counter()
        asked = {"Accept": "application/json", "Accept-Encoding": "identity", **headers}
        async with self._client.stream("POST", url, json=json, headers=asked) as response:
            parts, size = [], 0
            async for part in response.aiter_raw():
                size += len(part)
                if size > most_bytes:
                    raise GarbledError(_too_long(most_bytes))
                parts.append(part)
            got = {name.lower(): value for name, value in response.headers.items()}
            return response.status_code, got, b"".join(parts), time.perf_counter() - begun

    async def _end(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.aclose()


def _decoded(body: bytes, coding: str, most_bytes: int) -> bytes:
    """The body without its compression, never more than `most_bytes`."""
    word = coding.strip().lower()
    if word not in CODINGS:
        raise GarbledError(f"compressed its answer with {coding[:40]!r}, although no compression was asked for")
    window = CODINGS[word]
    if window is None:
        return body
    stream = zlib.decompressobj(window)
    try:
        plain = stream.decompress(body, most_bytes)
    except zlib.error:
        raise GarbledError(f"sent an answer that is not the {word} that its header names") from None
    if stream.unconsumed_tail:
        raise GarbledError(_too_long(most_bytes))
    if not stream.eof:
        raise GarbledError("sent a compressed answer that is cut off")
    return plain


def _too_long(most_bytes: int) -> str:
    return f"sent more than the {most_bytes / 2**20:.3g} MiB that images of this size can take"
