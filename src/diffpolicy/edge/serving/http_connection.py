"""`HttpConnection`: one HTTP/1.1 connection of a client, by h11."""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import h11
import httpx

MOST_HEAD = 100 * 1024
"""Bytes of an answer's head."""
MOST_READ = 2**18
"""Bytes that may wait to be taken, before the server has to."""
MOST_PROVISIONAL = 1000
"""Heads of status 1xx before an answer's own: one a second, as a server may say that it is at work, for a quarter of an
hour."""
AT_A_TIME = 64
"""Pieces of an answer that are read before others have their turn: in a read of 256 KiB there may be tens of thousands,
which take seconds."""


class HttpConnection(asyncio.Protocol):
    """Sends one request at a time, and reads its answer as fast as it is taken.

    Args:
        left: is told when it has ended.
    """

    def __init__(self, left: Callable[[HttpConnection], None]) -> None:
        self._left = left
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MOST_HEAD)
        self._transport: Any = None
        self._poll = select.poll()
        self._waiter: asyncio.Future[None] | None = None
        self._unread, self._reading, self._writing = 0, True, True
        self._ended, self._error = False, ""
        self._cause: Exception | None = None
        self._early: h11.Response | None = None
        self._provisional, self._pieces = 0, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._http.receive_data(data)
        self._unread += len(data)
        if self._reading and self._unread > MOST_READ:
            self._reading = False
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """See `asyncio.Protocol`; the transport closes itself then."""
        self._end("")

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._cause = exc
        self._end("" if exc is None else str(exc) or type(exc).__name__)
        self._left(self)

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._writing = False

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._writing = True
        self._wake()

    def _end(self, error: str) -> None:
        """Nothing more will come. Args: error: why; "" where the server has simply closed it."""
        if not self._ended:
            self._ended, self._error = True, error
            if not error:
                self._http.receive_data(b"")
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        """Waits until something has happened."""
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    @property
    def idle(self) -> bool:
        """Whether another request may be sent after `release`: the server has not closed it, and said nothing since."""
        return not self._ended and not self._unread and not self._transport.is_closing() and not self._poll.poll(0)

    async def send(
        self, method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]], body: AsyncIterator[bytes]
    ) -> None:
        """Sends a request; a server that answers before it has read all of it, and reads no more, is sent no more.

        Args:
            method, target, headers: of the request. body: its pieces.

        Raises:
            httpx.LocalProtocolError: it is no request of HTTP. httpx.RemoteProtocolError: nor is its early answer.
        """
        try:
            out = [self._http.send(h11.Request(method=method, target=target, headers=list(headers))) or b""]
            async for part in body:
                out += self._http.send_with_data_passthrough(h11.Data(data=part)) or []
                self._write(out)  # the head goes with the first piece
                out = []
                while not self._writing and not self._ended and not self._answered_early():
                    await self._wait()
                if self._ended or self._early is not None:
                    return
            out.append(self._http.send(h11.EndOfMessage()) or b"")
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error)) from None
        self._write(out)

    def _write(self, pieces: list[bytes]) -> None:
        """Sends pieces as one: `writelines` of Python 3.12 and 3.13 sends an empty one for ever, at full load."""
        joined = b"".join(pieces)
        if joined:
            self._transport.write(joined)

    def _answered_early(self) -> bool:
        """Whether the head of the answer is there, while the request is not sent yet."""
        while self._unread:
            event = self._event()
            if isinstance(event, h11.Response):
                self._early = event
                return True
            if not isinstance(event, h11.InformationalResponse):
                break
        return False

    async def answer(self) -> h11.Response:
        """The head of the answer.

        Raises:
            httpx.RemoteProtocolError, httpx.ReadError: there is none.
        """
        if self._early is not None:
            return self._early
        while True:
            event = await self._next()
            if isinstance(event, h11.Response):
                return event

    async def body(self) -> AsyncIterator[bytes]:
        """The pieces of the answer's body as they come; raises what `answer` does."""
        while isinstance(event := await self._next(), h11.Data):
            yield bytes(event.data)

    async def _next(self) -> Any:
        """What comes next of the answer."""
        while True:
            event = self._event()
            if event is not h11.NEED_DATA:
                self._pieces += 1
                if self._pieces % AT_A_TIME == 0:
                    await asyncio.sleep(0)
                return event
            self._unread = 0
            if self._ended:
                raise httpx.ReadError(self._error) from self._cause
            self._read_on()
            await self._wait()

    def _event(self) -> Any:
        """What is there of the answer."""
        begun = self._http.their_state is not h11.SEND_RESPONSE
        try:
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            gone = self._ended and not begun
            text = "the server closed the connection without an answer" if gone else str(error)
            raise httpx.RemoteProtocolError(text) from (ConnectionResetError(text) if gone else None)
        if event is h11.PAUSED:
            raise httpx.RemoteProtocolError("the server changed the protocol")
        if isinstance(event, h11.InformationalResponse):
            self._provisional += 1
            if self._provisional > MOST_PROVISIONAL:
                raise httpx.RemoteProtocolError(f"more than {MOST_PROVISIONAL} heads of status 1xx before an answer")
        return event

    def _read_on(self) -> None:
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()

    def release(self) -> bool:
        """Ends a request. Returns: whether another may follow; otherwise the connection is closed."""
        done = self._http.our_state is h11.DONE and self._http.their_state is h11.DONE
        if not done or self._ended or self._http.trailing_data[0]:
            self.close()
            return False
        self._http.start_next_cycle()
        self._unread, self._provisional, self._pieces = 0, 0, 0
        self._read_on()
        return True

    def close(self) -> None:
        """Closes it at once."""
        self._transport.abort()
