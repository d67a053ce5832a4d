"""`Paced`: an answer that goes out as fast as its client reads, and ends where the client does not."""

from __future__ import annotations

from contextlib import ExitStack

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from diffpolicy.edge.serving.hanging_up import emptied, hang_up
from diffpolicy.edge.serving.within import within

PIECE = 2**16
"""Bytes that are sent at a time: what the connection takes up while its client reads nothing."""


class Paced(Response):
    """A response in pieces; a client that takes none for `stall_s` is gone.

    Its worker has been free since the answer was there. What the kernel has not taken yet counts among the bytes that
    are held.

    Args:
        response: whole. stall_s: see `ApiSettings`. until: is closed when it is sent, however that ends.
    """

    def __init__(self, response: Response, stall_s: float, until: ExitStack) -> None:
        self.response, self.stall_s, self.until = response, stall_s, until
        self.status_code, self.background = response.status_code, None
        self.body, self.raw_headers = b"", response.raw_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.until:
            try:
                await send_paced(self.response, scope, send, self.stall_s)
            except TimeoutError:
                hang_up(scope)  # to close it would wait for the client


async def send_paced(response: Response, scope: Scope, send: Send, stall_s: float) -> None:
    """Sends a response.

    Args:
        response: whole. scope, send: of its request. stall_s: see `ApiSettings`.

    Raises:
        TimeoutError: the client does not read.
    """
    start = {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
    async with within(stall_s):
        await send(start)
    await send_pieces(bytes(response.body), send, stall_s)
    await send_end(scope, send, stall_s)


async def send_pieces(body: bytes, send: Send, stall_s: float) -> None:
    """Sends bytes of a body that is begun, after which others or its end follow.

    Args:
        body: them. send: of its request. stall_s: see `ApiSettings`.

    Raises:
        TimeoutError: the client does not read.
    """
    for begun in range(0, len(body), PIECE):
        message = {"type": "http.response.body", "body": body[begun : begun + PIECE], "more_body": True}
        async with within(stall_s):
            await send(message)


async def send_end(scope: Scope, send: Send, stall_s: float) -> None:
    """Ends a body, once nothing of it waits in this process: until then it counts among the bytes that are held.

    Args:
        scope, send: of its request. stall_s: see `ApiSettings`.

    Raises:
        TimeoutError: the client does not read.
    """
    with emptied(scope):
        async with within(stall_s):
            await send({"type": "http.response.body", "body": b"", "more_body": False})
