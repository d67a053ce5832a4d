"""`HeldStream`: a stream of server-sent events that says it is held until images come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from diffpolicy.edge.serving.api.errors import answer_response, error_body, error_response
from diffpolicy.edge.serving.api.paced import send_end, send_paced, send_pieces
from diffpolicy.edge.serving.api.served import Ticket
from diffpolicy.edge.serving.api.waiting import disconnected, give_up
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.hanging_up import hang_up
from diffpolicy.edge.serving.room import Share
from diffpolicy.edge.serving.told_images import created_s, images_of
from diffpolicy.edge.serving.upstream import Answer, Chunk
from diffpolicy.edge.serving.whole_events import WholeEvents
from diffpolicy.edge.serving.within import within

KIND = "text/event-stream"
COMMENT = b": held\n\n"
"""Readers of events skip it, and proxies see that the connection lives; an event `ping` would be read as an image."""
SHARED = ("background", "output_format", "quality", "size", "usage")
"""Fields of an answer that each of its events has."""


class HeldStream(Response):
    """Sends pieces as they come and comments between them.

    The status line waits for the first of: a whole event, an answer, `comment_s`. So a refusal that comes at once has
    its own status, and one that comes later is an event `error`, which OpenAI's client raises. What a worker that is
    gone left of an event is dropped: with the `error` behind it no client could read either.

    Args:
        pieces: of the worker's stream. comment_s, stall_s: see `ApiSettings`.
        event: what the last event is called where the worker sends no stream.
    """

    def __init__(self, pieces: asyncio.Queue[bytes], *, comment_s: float, stall_s: float, event: str) -> None:
        super().__init__()
        self.pieces, self.comment_s, self.stall_s, self.event = pieces, comment_s, stall_s, event
        self.begun, self.whole, self.sent_s = False, WholeEvents(), 0.0

    def take(self, ticket: Ticket, share: Share, until: ExitStack) -> None:
        """What it waits for.

        Args:
            ticket: of the request. share: of what is held. until: is closed when the stream ends, however that is.
        """
        self.ticket, self.share, self.until = ticket, share, until

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = asyncio.ensure_future(self.ticket.answer())
        gone = asyncio.ensure_future(disconnected(receive))
        piece: asyncio.Future[bytes] = asyncio.ensure_future(self.pieces.get())
        clock = asyncio.get_running_loop().time
        self.sent_s = clock()
        try:
            while not (gone.done() or (answer.done() and not piece.done())):
                waited: set[asyncio.Future[Any]] = {answer, gone, piece}
                left_s = max(self.sent_s + self.comment_s - clock(), 0.0)
                await asyncio.wait(waited, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                came, whole = piece.done(), b""
                if came:
                    whole = self.whole.take(piece.result())
                    piece = asyncio.ensure_future(self.pieces.get())
                # an event that comes slowly is no sign of life to the client until it is whole
                late = clock() >= self.sent_s + self.comment_s and not answer.done()
                if whole or late:
                    await self._send(send, whole or COMMENT)
                    self.sent_s = clock()
                if came:
                    await asyncio.sleep(0)  # lets it take what waits
            if not gone.done():
                await self._end(answer, scope, send)
        except TimeoutError:
            hang_up(scope)  # a client that does not read is gone
        finally:
            give_up(self.ticket, answer, gone, piece)
            self.until.close()

    async def _end(self, answer: asyncio.Future[Answer], scope: Scope, send: Send) -> None:
        """What comes last: nothing more, the images of a worker that sent no stream, or an error."""
        rest = b""
        try:
            result = answer.result()
        except ApiError as error:
            if not self.begun:
                await self._refuse(error_response(error), scope, send)
                return
            last = frame("error", error.body())
        else:
            if result.status >= 400 and not self.begun:
                await self._refuse(answer_response(result), scope, send)
                return
            rest, last = self.whole.rest(), b"".join(self._last(result))
        self.share.add(len(last))  # the rest was counted as it came
        await self._send(send, rest + last)
        await send_end(scope, send, self.stall_s)

    async def _refuse(self, response: Response, scope: Scope, send: Send) -> None:
        """Sends an answer that is no stream, instead of one."""
        response.raw_headers += self.own
        self.share.add(len(response.body))
        await send_paced(response, scope, send, self.stall_s)

    def _last(self, answer: Answer) -> Iterator[bytes]:
        """The events of an answer that was not, or not only, a stream."""
        if answer.status >= 400:
            yield frame("error", error_body(answer))
        elif answer.headers.get("content-type", "").startswith(KIND):
            yield answer.body
        elif answer.body:
            yield from completed(answer.body, self.event)

    @property
    def own(self) -> list[tuple[bytes, bytes]]:
        """Headers that were set on this response."""
        return [(k, v) for k, v in self.raw_headers if k not in (b"content-length", b"content-type")]

    async def _send(self, send: Send, body: bytes) -> None:
        """Sends bytes, after the head if it was not sent yet."""
        if not self.begun:
            self.begun = True
            head = [(b"content-type", KIND.encode()), (b"x-accel-buffering", b"no"), *self.own]
            async with within(self.stall_s):
                await send({"type": "http.response.start", "status": 200, "headers": head})
        await send_pieces(body, send, self.stall_s)


def taking(pieces: asyncio.Queue[bytes], share: Share) -> Chunk:
    """Takes pieces as fast as they come, so that nobody waits for the client, and counts them until the stream ends.

    Args:
        pieces: where the client's pieces wait. share: of what is held.
    """

    async def take(piece: bytes) -> None:
        share.add(len(piece))
        pieces.put_nowait(piece)
        await asyncio.sleep(0)

    return take


def frame(event: str, data: Any) -> bytes:
    """One server-sent event. Args: event: its name. data: its JSON."""
    return f"event: {event}\ndata: {json.dumps(data)}\n\n".encode()


def completed(body: bytes, event: str) -> Iterator[bytes]:
    """Events of the images of an answer in one piece, as OpenAI's API has them at a stream's end.

    Args:
        body: the answer's. event: `image_generation.completed` or `image_edit.completed`.

    Example:
        >>> next(completed(b'{"created": 1, "data": [{"b64_json": "aa"}]}', "image_generation.completed"))[:33]
        b'event: image_generation.completed'
    """
    try:
        said: Any = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    images = images_of(said)
    if not images:
        yield frame("error", ApiError(502, "the worker's answer holds no images", code="of_worker").body())
        return
    shared = {key: said[key] for key in SHARED if said.get(key) is not None}
    for image in images:
        own = {key: value for key, value in image.items() if value is not None}
        yield frame(event, {**shared, **own, "type": event, "created_at": created_s(said)})
