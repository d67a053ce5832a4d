"""What the API asks of a service: the protocols that `Service` and its tickets fulfil."""

from __future__ import annotations

from typing import Any, Protocol

from diffpolicy.edge.serving.events import Event, Listener
from diffpolicy.edge.serving.image_request import ImageRequest
from diffpolicy.edge.serving.upstream import Answer, Chunk


class Ticket(Protocol):
    """A request that was taken."""

    number: str

    async def answer(self) -> Answer:
        """The worker's answer.

        Raises:
            ApiError: it failed for good.
        """

    def cancel(self) -> None:
        """Its client went away; does nothing once it is answered."""


class Served(Protocol):
    """A policy in front of workers."""

    listeners: list[Listener]

    @property
    def usable(self) -> bool:
        """Whether any worker takes requests."""

    @property
    def draining(self) -> bool:
        """Whether it ends what it has and takes no more."""

    def tell(self, event: Event) -> None:
        """Tells all who listen, of whom one that fails stops nobody."""

    def submit(self, request: ImageRequest, chunk: Chunk | None = None) -> Ticket:
        """Takes a request.

        Args:
            request: what is asked for. chunk: takes the pieces of a stream.

        Raises:
            ApiError: it is refused.
        """

    def models(self) -> tuple[str, ...]:
        """Names of all models that workers serve."""

    def snapshot(self) -> Any:
        """How servers and waiting requests stand, a dataclass."""
