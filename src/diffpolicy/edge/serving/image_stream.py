"""`ImageStream`: a worker's server-sent events on their way to a client, and whether images were among them."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from diffpolicy.edge.serving.room import Share
from diffpolicy.edge.serving.upstream import Chunk, UpstreamError
from diffpolicy.edge.serving.whole_events import WholeEvents, each_of

SAYS = re.compile(rb"(?:^|[\r\n])[^:\r\n\xef]")
"""A line that is no comment."""
NAME = re.compile(rb"(?:^|[\r\n])event:[ ]?([^\r\n]*)")
VALUE = re.compile(rb"[ \t]*:[ \t]*\"([^\"\\]{1,80})")
"""What stands after a key of JSON: the beginning of a text that is not empty."""
HEAD = 4096
"""Bytes of an event in which its name stands: the data, which may be megabytes, come after it."""
IMAGE = (b'"b64_json"', b'"url"', b'"image"', b'"image_url"')
"""Keys under which servers have an image, OpenAI's first."""
DATA = re.compile(rb"(?:^|[\r\n])data:[ ]?([^\r\n]*)")
AT_A_TIME = 64
"""Events that are looked at before others have their turn: one read may hold tens of thousands of small ones. Those
that are worth it go on as one piece."""
LONGEST = 2000
"""Characters of what a worker says of an error that are told."""
LONGEST_ERROR = 2**16
"""Bytes of an event up to which it is read for them."""


class ImageStream:
    """Hands whole events on and counts images.

    Comments are kept back, since whoever holds the client's stream says by itself that it lives: until an event comes,
    nothing of a worker that fails has reached the client, and another may try. So are errors: who answers the client
    tells it of the failure, once, and in the shape that its reader knows.

    Args:
        chunk: takes the events. share: of what is held, in which an event counts until it is whole.
    """

    def __init__(self, chunk: Chunk, share: Share) -> None:
        self._chunk, self._share = chunk, share
        self._whole, self._came = WholeEvents(), 0
        self.images, self.failed, self.sent, self._said = 0, False, False, ""

    async def take(self, piece: bytes) -> None:
        """Takes what comes next. Args: piece: ends anywhere."""
        self._share.add(len(piece))
        self._came += len(piece)
        whole = self._whole.take(piece)
        if whole:
            await self._pass(whole)

    async def end(self) -> None:
        """The stream has ended in order.

        Raises:
            UpstreamError: it held no image, or said that there would be none.
        """
        rest = self._whole.rest()
        if rest:
            await self._pass(rest)
        if self.failed:
            raise UpstreamError("ended its stream by an error", reached=True, answered=True, said=self._said)
        if not self.images:
            raise UpstreamError("ended its stream without an image", reached=True, answered=self.sent)

    async def _pass(self, events: bytes) -> None:
        """Hands on what is worth it. Args: events: whole ones."""
        self._share.add(-min(len(events), self._came))  # who takes them counts them
        self._came -= min(len(events), self._came)
        kept: list[bytes] = []
        for count, event in enumerate(each_of(events), 1):
            kind = kind_of(event)
            self.images += kind == "image"
            if kind == "error":
                self.failed, self._said = True, self._said or said_by(event)
            elif kind:
                kept.append(event)
            if count % AT_A_TIME == 0:
                await self._hand_on(kept)
                await asyncio.sleep(0)
        await self._hand_on(kept)

    async def _hand_on(self, kept: list[bytes]) -> None:
        """Hands on events as one piece, of which there is then nothing left. Args: kept: them."""
        if kept:
            self.sent, piece = True, b"".join(kept)
            kept.clear()
            await self._chunk(piece)


def kind_of(event: bytes) -> str:
    """What an event is: `image` for a completed one, `error`, `other`, or "" where there are comments alone.

    Of data that name no type, as of servers with words of their own, each image is a completed one. Megabytes of data
    are searched and not read, which would keep other requests waiting.

    Args:
        event: whole.

    Example:
        >>> kind_of(b'data: {"type": "image_generation.completed", "b64_json": "aa"}'), kind_of(b": held")
        ('image', '')
    """
    if SAYS.search(event[:HEAD]) is None and SAYS.search(event) is None:
        return ""
    named = NAME.search(event[:HEAD])
    words = [*([named[1].strip()] if named else []), *_values(event, b'"type"')]
    if b"error" in words or any(word.endswith(b".failed") for word in words) or _tells_error(event):
        return "error"
    if any(b"partial" in word for word in words):
        return "other"
    return "image" if any(_values(event, key) for key in IMAGE) else "other"


def said_by(event: bytes) -> str:
    r"""What an error says, "" where it says nothing that a person can read. Args: event: whole, of kind `error`.

    Example:
        >>> said_by(b'event: error\ndata: {"error": {"message": "out of memory"}}')
        'out of memory'
    """
    text = b"\n".join(DATA.findall(event)) if len(event) <= LONGEST_ERROR else b""
    try:
        said: Any = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    error = said.get("error", said) if isinstance(said, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return message[:LONGEST] if isinstance(message, str) else ""


def _values(event: bytes, key: bytes) -> list[bytes]:
    """Texts that stand after a key, or the first bytes of them. Args: key: in its quotes, which no text can hold."""
    found, place = [], event.find(key)
    while place >= 0:
        value = VALUE.match(event, place + len(key))
        if value is not None:
            found.append(value[1])
        place = event.find(key, place + len(key))
    return found


def _tells_error(event: bytes) -> bool:
    """Whether the data are an object that begins with an error, as OpenAI's are."""
    return re.search(rb"(?:^|[\r\n])data:[ \t]*\{[ \t]*\"error\"[ \t]*:[ \t]*[{\"]", event[:HEAD]) is not None
