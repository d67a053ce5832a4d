"""`Room`: how many bytes are held, of all requests and answers together."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from diffpolicy.edge.serving.api_error import ApiError


class Room:
    """Bytes of requests and answers that are held at a time.

    Args:
        most: of all together, above which no request is taken.

    Example:
        >>> room = Room(10)
        >>> with room.share() as share:
        ...     share.take(8)
        ...     room.held
        8
        >>> room.held
        0
    """

    def __init__(self, most: int = sys.maxsize) -> None:
        self.most, self.held = most, 0

    @contextmanager
    def share(self) -> Iterator[Share]:
        """What one request holds, given back at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            self.held -= share.held


class Share:
    """What one request holds of a room. Args: room: of all."""

    def __init__(self, room: Room) -> None:
        self.room, self.held = room, 0

    def take(self, count: int) -> None:
        """Takes bytes.

        Args:
            count: how many.

        Raises:
            ApiError: with status 429, when there is no room for them.
        """
        if self.room.held + count > self.room.most:
            raise ApiError(
                429, "too many bytes of requests and answers are held", code="bodies_full", retry_after_s=2.0
            )
        self.add(count)

    def add(self, count: int) -> None:
        """Takes bytes that are there anyway, such as those of an answer. Args: count: how many."""
        self.room.held += count
        self.held += count
