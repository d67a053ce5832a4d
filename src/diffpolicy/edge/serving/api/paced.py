"""`Paced`: an answer that goes out as fast as its client reads, and ends where the client does not."""

from __future__ import annotations

from contextlib import ExitStack

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from diffpolicy.edge.serving.within import within

PIECE = 2**16
"""Bytes that are sent at a time: what the connection takes up while its client reads nothing."""


class Paced(Response):
    """A response in pieces; a client that takes none for `stall_s` is gone.

    Its worker has been free since the answer was there. What is not sent yet counts among the bytes that are held.

    Args:
        response: whole. stall_s: see `ApiSettings`. until: is closed when it is sent, however that ends.
    """

    def __init__(self, response: Response, stall_s: float, until: ExitStack) -> None:
        self.response, self.stall_s, self.until = response, stall_s, until
        self.status_code, self.background = response.status_code, None
        self.body, self.raw_headers = b"", response.raw_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytes(self.response.body)
        with self.until:
            if len(body) <= PIECE:
                await self.response(scope, receive, send)
                return
            start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            try:
                async with within(self.stall_s):
                    await send(start)
                for begun in range(0, len(body), PIECE):
                    piece, more = body[begun : begun + PIECE], begun + PIECE < len(body)
                    message = {"type": "http.response.body", "body": piece, "more_body": more}
                    async with within(self.stall_s):
                        await send(message)
            except TimeoutError:
                pass  # the server closes what was not sent whole
