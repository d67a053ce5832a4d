"""`Work`: a request at the dispatcher, and `Ticket`: what a client holds of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.image_request import ImageRequest
from diffpolicy.edge.serving.server import Server
from diffpolicy.edge.serving.upstream import Answer, Chunk

AT_A_TIME = 64
"""Pieces of a stream that are handed on before others have their turn: one read may hold tens of thousands of them."""


@dataclass
class Refusal:
    """What a worker said of one request that it did not take.

    Args:
        first_s: when it refused it last as it was full, or first though it had room, whichever came later.
        until_s: the request does not go there before.
        odd: times that it refused it again and had answered others meanwhile, so that it is this request that it does
            not take, as by a limit of its model or size.
    """

    first_s: float
    until_s: float = 0.0
    odd: int = 0


@dataclass(eq=False)
class Work:
    """A request from its arrival to its answer.

    Args:
        request: what is asked for. arrived_s: when, of the dispatcher's clock.
        order: it is the how manyeth. arm: whether the policy decides on it, where it does so on a share.
        result: its answer. passes: later arrivals that were bound before it. bindings: how often it was.
        begun: workers that may have begun it and failed. refused: workers that could not be reached with it.
        server: where it is; None while it waits. expected_s: that it should take there.
        streamed: pieces that came so far. tickets: of those who wait for it.
        task: that calls the worker.
        stranded_s: since when no worker can take it; None while one can.
        blamed: the worker that answered it by a fault, which was held against it, and when.
        full_s: since when workers say that they are full. refusals: what such workers said of it, by their places.
        refused_s: since when one could not be reached with it.
        called_s: when its worker was called; None again once it has answered.
        lost: why that call is known to be in vain; None: it is not.
        comes: its worker is done with it, though its answer may still be on the way. freed_s: when it gave its seat
            there to another for that. began_s: when it had begun there, as far as the account knew then.
        parts: that are sent in its place, where it is split. whole: of which it is a part.
    """

    request: ImageRequest
    arrived_s: float
    order: int
    arm: bool
    result: asyncio.Future[Answer]
    passes: int = 0
    bindings: int = 0
    begun: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    server: int | None = None
    expected_s: float = 0.0
    streamed: list[bytes] = field(default_factory=list)
    tickets: list[Ticket] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    stranded_s: float | None = None
    blamed: tuple[Server, float] | None = None
    full_s: float | None = None
    refusals: dict[int, Refusal] = field(default_factory=dict)
    refused_s: float | None = None
    called_s: float | None = None
    lost: str | None = None
    comes: bool = False
    freed_s: float | None = None
    began_s: float | None = None
    parts: tuple[Work, ...] = ()
    whole: Work | None = None

    @property
    def sent(self) -> bool:
        """Whether it, or a part of it, is at a worker."""
        return self.server is not None or any(part.server is not None for part in self.parts)

    @property
    def unsent(self) -> int:
        """Parts of its request that wait, itself among them."""
        return 1 if self.whole is None else sum(p.server is None and not p.result.done() for p in self.whole.parts)

    @property
    def deadline_s(self) -> float:
        """When it must be done, of the dispatcher's clock."""
        return self.arrived_s + self.request.deadline_s

    def later(self, now_s: float) -> tuple[int, ...]:
        """Places of workers that are to be asked again later. Args: now_s: the time."""
        return tuple(j for j, refusal in self.refusals.items() if now_s < refusal.until_s)

    def fail(self, error: ApiError) -> None:
        """Ends it without an answer. Args: error: what clients are told."""
        if not self.result.done():
            self.result.set_exception(error)
            self.result.exception()  # marks it as seen: the client may have gone

    async def piece(self, piece: bytes) -> None:
        """Hands a piece of the stream on. Args: piece: it."""
        self.streamed.append(piece)
        for ticket in self.tickets:
            ticket.forward(piece)
        if len(self.streamed) % AT_A_TIME == 0:  # not before: a client that joins has been given this piece
            await asyncio.sleep(0)


LeaveCall: TypeAlias = Callable[[Work], None]


class Ticket:
    """A client's hold on its request.

    Args:
        work: the request. chunk: where pieces of a stream go. leave: is called when the last client has gone.

    Attributes:
        number: of the request. started: is set once it has gone to a worker.
    """

    def __init__(self, work: Work, chunk: Chunk | None, leave: LeaveCall) -> None:
        self.number, self._work, self._leave = work.request.number, work, leave
        self.started = asyncio.Event()
        if work.sent or work.result.done():
            self.started.set()
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        for piece in work.streamed:
            self._pieces.put_nowait(piece)
        self._pump = None if chunk is None else asyncio.ensure_future(self._hand_on(chunk))
        work.tickets.append(self)

    def bound(self) -> None:
        """The request has gone to a worker."""
        self.started.set()

    def forward(self, piece: bytes) -> None:
        """Takes a piece of the stream; one client that reads slowly holds up no other. Args: piece: it."""
        self._pieces.put_nowait(piece)

    async def _hand_on(self, chunk: Chunk) -> None:
        """Gives the client its pieces, as fast as it takes them."""
        while (piece := await self._pieces.get()) is not None:
            await chunk(piece)

    async def answer(self) -> Answer:
        """Waits for the answer, until all pieces of a stream have been handed on.

        Returns:
            What a worker answered, 4xx included.

        Raises:
            ApiError: there is none.
        """
        await asyncio.wait([self._work.result])
        self._pieces.put_nowait(None)
        if self._pump is not None:
            await asyncio.shield(self._pump)
        return self._work.result.result()

    def cancel(self) -> None:
        """The client went away: a request that waits is taken out, one that runs is stopped, unless others want it."""
        if self._pump is not None:
            self._pump.cancel()
        if self in self._work.tickets:
            self._work.tickets.remove(self)
            if not self._work.tickets:
                self._leave(self._work)
