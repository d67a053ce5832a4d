"""What a server's answer holds: images that were really made, or its reason for not making any."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

from diffpolicy._validate import show
from diffpolicy.edge.hardware.optional import need
from diffpolicy.edge.hardware.server_adapter import GenerateRequest

FORMATS = ("PNG", "JPEG", "WEBP")
MOST_BYTES = 256 * 2**20
SPARE_BYTES = 4 * 2**20
"""For what an answer holds beside pixels."""
BYTES_A_PIXEL = 11
"""Of base64: more than four channels of two bytes each take."""
MOST_PARTS = 100_000
"""Lists, objects and commas of an answer's JSON, since each takes many times its length in memory; base64 has none."""
MOST_REASON = 200


class AnswerError(ValueError):
    """An answer without the images that were asked for. Its text is the end of a sentence about the server."""


def most_bytes(request: GenerateRequest) -> int:
    """The longest body that an answer may have."""
    return min(MOST_BYTES, SPARE_BYTES + BYTES_A_PIXEL * request.batch * request.width * request.height)


def check_images(body: bytes, kind: str, request: GenerateRequest) -> None:
    """Decodes every image of an answer `{"data": [{"b64_json": ...}, ...]}`.

    Args:
        kind: the content type that the server named. request: what was asked for.

    Raises:
        AnswerError: the answer does not hold as many images of the size that was asked for.
    """
    answer = document(body)
    if answer is None:
        raise AnswerError(f"answered with status 200, but with {_printable(kind, 60) or 'something'} that is not JSON")
    if not isinstance(answer, dict) or "data" not in answer:
        reason = error_reason(body)
        told = f": {reason}" if reason else ""
        raise AnswerError(f"answered with status 200, but not with a JSON object that has 'data'{told}")
    images = answer["data"]
    if not isinstance(images, list) or len(images) != request.batch:
        got = len(images) if isinstance(images, list) else show(images)
        raise AnswerError(f"answered with status 200 and {got} images instead of {request.batch}")
    for number, image in enumerate(images):
        _check_image(image, f"data[{number}]", request)


def error_reason(body: bytes) -> str:
    """The server's own words for what is wrong: OpenAI's `error.message`, FastAPI's `detail`, or plain text.

    Example:
        >>> error_reason(b'{"error": {"message": "size must be 1024x1024"}}')
        'size must be 1024x1024'
    """
    answer = document(body)
    if answer is None:
        text = body[: 4 * MOST_REASON].decode("utf-8", "replace")
        return "" if text.lstrip().startswith("<") else _printable(text, MOST_REASON)
    try:
        return _printable(_words(answer), MOST_REASON)
    except RecursionError:
        return ""


def _words(answer: Any) -> str:
    """The sentence within an error of one of the usual shapes."""
    if isinstance(answer, dict):
        for name in ("error", "message", "detail", "msg"):
            if answer.get(name):
                return _words(answer[name])
        return "" if not answer or "data" in answer else json.dumps(answer)
    if isinstance(answer, list):
        return "; ".join(filter(None, map(_place, answer[:3])))
    return "" if answer is None else str(answer)


def _place(item: Any) -> str:
    """One of FastAPI's errors of validation, with the key that it is about."""
    where = item.get("loc") if isinstance(item, dict) else None
    path = ".".join(map(str, where[:6])) + ": " if isinstance(where, list) and where else ""
    return path + _words(item)


def document(body: bytes) -> Any:
    """The JSON document of a body; None where it is none, or would take too much memory."""
    if sum(body.count(sign) for sign in (b"[", b"{", b",")) > MOST_PARTS:
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _printable(text: str, most: int) -> str:
    """A text of others as one short line without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 20 * most]).split())
    return line if len(line) <= most else line[: most - 3] + "..."


def _check_image(image: Any, where: str, request: GenerateRequest) -> None:
    text = image.get("b64_json") if isinstance(image, dict) else None
    if not isinstance(text, str) or not text:
        if isinstance(image, dict) and image.get("url"):
            raise AnswerError(
                f"answered with status 200, but {where} is an address instead of an image; it must answer with b64_json"
            )
        raise AnswerError(f"answered with status 200, but {where} has no image in 'b64_json'")
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise AnswerError(f"answered with status 200, but {where}.b64_json is not base64") from None
    library = need("PIL.Image")
    try:
        with library.open(io.BytesIO(data), formats=FORMATS) as picture:
            size = picture.size
            picture.verify()  # a PNG's check sums, and that it ends; nothing can be read after it
        if size == (request.width, request.height):
            with library.open(io.BytesIO(data), formats=FORMATS) as picture:
                picture.load()
    except Exception:  # decoders of broken images raise whatever they meet
        raise AnswerError(
            f"answered with status 200, but {where}.b64_json is not a complete image (PNG, JPEG or WebP)"
        ) from None
    if size != (request.width, request.height):
        raise AnswerError(
            f"answered with status 200, but {where} is {size[0]}x{size[1]} instead of {request.width}x{request.height}"
        )
