"""From an HTTP request to an `ImageRequest`: its number, whose it is, until when it matters, what it asks for."""

from __future__ import annotations

import math
import re
import secrets

from starlette.requests import Request

from diffpolicy.edge.serving import headers
from diffpolicy.edge.serving.api.bodies import read_body, read_form, read_json
from diffpolicy.edge.serving.api.settings import ApiSettings
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.image_request import EDITS, ImageRequest
from diffpolicy.edge.serving.room import Share

NUMBER = re.compile(r"[A-Za-z0-9._:-]{1,64}")
REPEAT = re.compile(r"[ -~]{1,255}")


def new_number(sent: str | None) -> str:
    """Names a request: what the client calls it, if that is a short plain word, and letters that nobody can guess.

    Without them two requests of one name would be one to a worker, and each client could ask for another's images.

    Args:
        sent: the client's `x-request-id`.

    Example:
        >>> new_number("a1").startswith("a1-"), len(new_number("no, thanks"))
        (True, 16)
    """
    known = sent is not None and NUMBER.fullmatch(sent) is not None
    return f"{sent}-{secrets.token_hex(6)}" if known else secrets.token_hex(8)


def deadline_s(request: Request, settings: ApiSettings, stream: bool) -> float:
    """Seconds that a request may take: what our header says, else the time-out that OpenAI's client states.

    That time-out is one between bytes, so a stream, in which comments keep it from running out, is not bound by it.

    Args:
        request: with its headers. settings: with the most. stream: whether it is one.

    Raises:
        ApiError: with status 400, our header is no number above 0.
    """
    told = request.headers.get(headers.DEADLINE_S)
    if told is not None:
        value = _seconds(told)
        if value is None:
            raise ApiError(
                400,
                f"{headers.DEADLINE_S} must be a number of seconds above 0",
                param=headers.DEADLINE_S,
                code="invalid_value",
            )
        return min(value, settings.deadline_s)
    stated = None if stream else read_timeout_s(request)
    return settings.deadline_s if stated is None else min(stated, settings.deadline_s)


def read_timeout_s(request: Request) -> float | None:
    """Seconds for which OpenAI's client waits for bytes; None where it does not say. Args: request: with headers."""
    return _seconds(request.headers.get(headers.READ_TIMEOUT, ""))


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < math.inf else None


async def ask(request: Request, number: str, settings: ApiSettings, share: Share) -> ImageRequest:
    """What a client asks for.

    Args:
        request: whose body nobody has read. number: its name. settings: with bounds and keys. share: of what is held.

    Raises:
        ApiError: it is refused. ClientGoneError: the client left in the midst of it.
    """
    client = settings.keys.client(request.headers.get("authorization"))
    key = request.headers.get(headers.IDEMPOTENCY)
    if key is not None and REPEAT.fullmatch(key) is None:
        message = f"{headers.IDEMPOTENCY} must have 1 to 255 printable ASCII characters"
        raise ApiError(400, message, param=headers.IDEMPOTENCY, code="invalid_value")
    body = await read_body(request, settings, share)
    if request.url.path == EDITS:
        fields, files = await read_form(request, body)
    else:
        fields, files = read_json(body, request.headers.get("content-type", "")), ()
    return ImageRequest.parse(
        fields,
        number,
        limits=settings.limits,
        client=client,
        repeat_key=key,
        deadline_s=deadline_s(request, settings, fields.get("stream") is True),
        files=files,
    )
