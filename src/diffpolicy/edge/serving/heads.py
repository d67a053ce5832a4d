"""`bounded_http`: uvicorn's HTTP with a bound on what a connection may send that is not a body."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

from diffpolicy.edge.serving.api_error import ApiError

MOST_HEAD = 64 * 1024
"""Bytes of the head of a request, its line and its headers."""


def too_long() -> ApiError:
    """What is told of a longer one."""
    message = f"the head of a request may have at most {MOST_HEAD} bytes"
    return ApiError(431, message, code="head_too_large", again=False)


def bounded_http() -> type[asyncio.Protocol] | Literal["h11"]:
    """The protocol for uvicorn's `http`; without httptools h11, which has a bound of its own.

    httptools has none: it keeps a header without an end, and as many of them as come.
    """
    try:
        from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
    except ImportError:
        return "h11"

    class Bounded(HttpToolsProtocol):
        """Ends a connection that goes on and on with a head, or between the pieces of a body."""

        _came = 0
        """Bytes since the parser made something whole of them: a head, a piece of a body, the end of one."""
        _whole = False
        """Whether the head of the request that comes is here."""

        def data_received(self, data: bytes) -> None:
            self._came += len(data)
            super().data_received(data)
            if self._came > MOST_HEAD and not self.transport.is_closing():
                self._end()

        def on_message_begin(self) -> None:
            self._whole = False
            super().on_message_begin()

        def on_header(self, name: bytes, value: bytes) -> None:
            if not self._whole:  # what comes after a body in chunks is no part of the head that was judged
                super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self._came, self._whole = 0, True
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._came = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._came = 0
            super().on_message_complete()

        def _end(self) -> None:
            """Says why, unless an answer is on its way, in whose midst it would stand."""
            if self.cycle is not None and not self.cycle.response_complete:
                self.transport.abort()
                return
            error = too_long()
            body = json.dumps(error.body()).encode()
            told: dict[str, Any] = {
                "content-type": "application/json",
                "content-length": len(body),
                "connection": "close",
                **error.headers(),
            }
            lines = b"".join(f"{name}: {value}\r\n".encode() for name, value in told.items())
            self.transport.write(STATUS_LINE[error.status] + lines + b"\r\n" + body)
            self.transport.close()

    return Bounded
