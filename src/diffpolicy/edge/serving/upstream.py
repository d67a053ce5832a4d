"""`Upstream`: what the dispatcher asks of a worker, whatever stands behind it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from diffpolicy.edge.serving.image_request import ImageRequest

Chunk = Callable[[bytes], Awaitable[None]]
"""Takes a piece of a stream on its way to the client."""


@dataclass(frozen=True)
class Answer:
    """What a worker answered, of whatever status.

    Args:
        status: of HTTP. headers: by lower-case name. body: empty where it was streamed.
        service_s: seconds for which it kept the worker busy, as the worker says; None: it does not say.

    Example:
        >>> Answer(200, {}, b"{}").fault
        False
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    service_s: float | None = None

    @property
    def later(self) -> bool:
        """Whether the worker says that it has begun nothing, and is to be asked again later.

        It is full (429), or it drains or loads and tells when to ask (503 with `retry-after`).
        """
        return self.status == 429 or (self.status == 503 and "retry-after" in self.headers)

    @property
    def fault(self) -> bool:
        """Whether the worker failed; what is wrong with the request (4xx), or comes too early, is no fault."""
        return self.status >= 500 and not self.later


class UpstreamError(Exception):
    """Raised where a call to a worker got no answer, or none that a client should get.

    Args:
        message: the end of a sentence about the worker. reached: whether it may have begun the work.
        late: it was given up since its time was over.
        gone: the worker's machine refused or reset the connection, or closed it without an answer, as where a process
            has ended; not where this machine could not ask, as by a name that does not resolve, or was sent away.
        answered: it answered this request without an image, which may be at fault itself, as by a filter of prompts.
        said: why, in its own words; for the client alone, since they may hold a prompt.

    Example:
        >>> error = UpstreamError("did not answer in time (60 s)", reached=True, late=True)
        >>> f"worker a1 {error}", error.late
        ('worker a1 did not answer in time (60 s)', True)
    """

    def __init__(
        self,
        message: str,
        *,
        reached: bool,
        late: bool = False,
        gone: bool = False,
        answered: bool = False,
        said: str = "",
    ) -> None:
        super().__init__(message)
        self.reached, self.late, self.gone, self.answered, self.said = reached, late, gone, answered, said


@dataclass(frozen=True)
class Health:
    """What a worker says of itself; None where it does not say.

    Args:
        usable: it takes requests. draining: it ends what it has and takes no more.
        boot: drawn when it started. models: names that it serves.
        running: requests it works on. waiting: that wait there. remaining_s: seconds of work that it has left.
        slots: requests that it works on at once.
        width, height, steps: pixels and denoising steps of a request that leaves them open.
        why: it takes no requests, the end of a sentence about it; "" where it does.

    Example:
        >>> Health(True, boot="a1").draining
        False
    """

    usable: bool
    draining: bool = False
    boot: str | None = None
    models: tuple[str, ...] | None = None
    running: int | None = None
    waiting: int | None = None
    remaining_s: float | None = None
    slots: int | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    why: str = ""


@runtime_checkable
class Upstream(Protocol):
    """One worker. All of it runs in one event loop; a call that is cancelled stops the work where the worker can.

    Example:
        >>> from diffpolicy.edge.serving import HttpUpstream, WorkerSpec
        >>> isinstance(HttpUpstream(WorkerSpec("http://127.0.0.1:8001")), Upstream)
        True
    """

    async def call(self, request: ImageRequest, *, timeout_s: float, chunk: Chunk | None = None) -> Answer:
        """Sends a request and waits for its answer.

        Args:
            request: what is asked for. timeout_s: until the last byte.
            chunk: where pieces of a stream go, once the worker has answered 200; None: the answer has them all.

        Raises:
            UpstreamError: there is no answer.
        """

    async def health(self) -> Health:
        """What it says of itself.

        Raises:
            UpstreamError: nothing.
        """

    async def aclose(self) -> None:
        """Ends its connections."""


@runtime_checkable
class TellsEnd(Upstream, Protocol):
    """A worker that tells when it is done with a request, before its answer is whole.

    Pictures of some megabytes take a while to come, and a worker that is free need not wait for the last byte of them.

    Example:
        >>> from diffpolicy.edge.serving import HttpUpstream, WorkerSpec
        >>> isinstance(HttpUpstream(WorkerSpec("http://127.0.0.1:8001")), TellsEnd)
        True
    """

    async def call_telling(
        self, request: ImageRequest, *, timeout_s: float, done: Callable[[], None], chunk: Chunk | None = None
    ) -> Answer:
        """As `call`.

        Args:
            request, timeout_s, chunk: of `call`. done: is called at most once, when the worker works on it no more.

        Raises:
            UpstreamError: there is no answer, though it may have been done with it.
        """
