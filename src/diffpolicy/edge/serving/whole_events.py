"""`WholeEvents`: server-sent events out of pieces that end anywhere."""

from __future__ import annotations

import re
from collections.abc import Iterator

ENDS = (b"\n\n", b"\n\r\n", b"\r\r")
"""Empty lines, after which an event is whole; the second is also the end of one whose lines end by both."""
LONGEST = max(map(len, ENDS))
END = re.compile(rb"\n\n|\n\r\n|\r\r")
"""The first of them; to look for each of them by itself would read all that comes for every event of it."""


class WholeEvents:
    r"""Keeps what has come of an event until all of it is there.

    A comment, or an event that says that the worker is gone, could otherwise stand in the midst of an image.

    Example:
        >>> events = WholeEvents()
        >>> events.take(b"data: 1\n"), events.take(b"\ndata: 2"), events.rest()
        (b'', b'data: 1\n\n', b'data: 2\n\n')
    """

    def __init__(self) -> None:
        self._kept = bytearray()

    def take(self, piece: bytes) -> bytes:
        """Events that are whole with a piece. Args: piece: what came next."""
        since = max(len(self._kept) - LONGEST + 1, 0)
        self._kept += piece
        end = max((place + len(x) for x in ENDS if (place := self._kept.rfind(x, since)) >= 0), default=0)
        whole = bytes(self._kept[:end])
        del self._kept[:end]
        return whole

    def rest(self) -> bytes:
        """What is left of a stream that ended in order, as an event: some end the last one by one line, or by none."""
        rest, self._kept = bytes(self._kept).strip(), bytearray()
        return rest + b"\n\n" if rest else b""


def each_of(events: bytes) -> Iterator[bytes]:
    r"""Events one by one. Args: events: whole ones.

    Example:
        >>> list(each_of(b"data: 1\n\ndata: 2\r\n\r\n"))
        [b'data: 1\n\n', b'data: 2\r\n\r\n']
    """
    begun = 0
    for end in END.finditer(events):
        yield events[begun : end.end()]
        begun = end.end()
    if begun < len(events):
        yield events[begun:]
