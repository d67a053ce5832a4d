"""What an answer of OpenAI's Images API holds, as workers of others write it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

IMAGE = ("b64_json", "url")
"""Fields of which an image has one."""
DIGITS = 15
"""Of a time at most: a longer number is none, and one of hundreds of digits is beyond what a float can hold."""


def images_of(said: Any) -> tuple[Mapping[str, Any], ...]:
    """The images of an answer; entries without any, as of a filter or a worker that failed, are none.

    Args:
        said: its JSON, whatever that is.

    Example:
        >>> images_of({"data": [{"b64_json": "aGk="}, {"b64_json": None}, None]})
        ({'b64_json': 'aGk='},)
    """
    listed = said.get("data") if isinstance(said, dict) else None
    return tuple(filter(_is_image, listed)) if isinstance(listed, list) else ()


def answer_body(shared: Mapping[str, Any], images: Iterable[bytes]) -> bytes:
    """An answer with images, put together as bytes: to read megabytes for what JSON must escape takes milliseconds.

    Args:
        shared: what is told beside them. images: in base64.

    Example:
        >>> answer_body({"created": 1}, [b"aGk="])
        b'{"created": 1, "data": [{"b64_json": "aGk="}]}'
    """
    head, foot = json.dumps({**shared, "data": []}).encode().rsplit(b"]", 1)
    return head + b", ".join(b'{"b64_json": "%b"}' % image for image in images) + b"]" + foot


def _is_image(entry: Any) -> bool:
    return isinstance(entry, dict) and any(isinstance(entry.get(key), str) and entry[key] for key in IMAGE)


def created_s(said: Mapping[str, Any]) -> int:
    """When an answer was made, seconds since 1970; now where it does not say so by a number, or by its digits.

    Args:
        said: its JSON.

    Example:
        >>> created_s({"created": "1700000000"}), created_s({"created": None}) > 1_700_000_000
        (1700000000, True)
    """
    told = said.get("created")
    if isinstance(told, str) and told.isascii() and told.isdigit() and len(told) <= DIGITS:
        return int(told)
    number = isinstance(told, (int, float)) and not isinstance(told, bool) and abs(told) < 10**DIGITS
    return int(told) if number else int(time.time())  # type: ignore[arg-type]
