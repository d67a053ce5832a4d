"""Bodies of requests: read within bounds, then taken for JSON or a form."""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from typing import Any, NoReturn

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from diffpolicy import _validate as check
from diffpolicy._validate import show
from diffpolicy.edge.serving.api.settings import ApiSettings
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.image_request import SentFile
from diffpolicy.edge.serving.room import Share
from diffpolicy.edge.serving.within import within
from diffpolicy.errors import InputError

WHOLE = ("n", "num_inference_steps", "partial_images", "width", "height", "seed", "output_compression")
REAL = ("guidance_scale", "true_cfg_scale", "strength")
FLAGS = {"true": True, "false": False}
DIGITS = 308
"""Of a whole number, at most: one of more may be above every real number."""
VALUES = 100_000
"""Of a body of JSON, about: to read, check and write a million takes a second, in which no other request goes on."""
FILES, FIELDS = 17, 100
"""Most of a form: sixteen images and a mask."""
TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
MEDIA_TYPE = re.compile(f"{TOKEN}/{TOKEN}")
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


class ClientGoneError(Exception):
    """Nobody waits for an answer any more."""


async def read_body(request: Request, settings: ApiSettings, share: Share) -> bytes:
    """All of a body, unless it is too large, whatever its head says of it.

    Args:
        request: whose body nobody has read. settings: with the bounds. share: of what is held.

    Raises:
        ApiError: with status 400, 408, 413 or 429. ClientGoneError: the client left in the midst of it.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(400, "the body must not be compressed", code="invalid_body")
    most = settings.limits.body
    told = request.headers.get("content-length", "")
    if told.isdecimal() and len(told) < 20 and int(told) > most:
        _too_large(most)

    async def read() -> bytes:
        pieces = bytearray()
        async for piece in request.stream():
            if len(pieces) + len(piece) > most:
                _too_large(most)
            share.take(len(piece))
            pieces += piece
        return bytes(pieces)

    try:
        async with within(settings.read_s):  # unlike `wait_for` it needs no task, nor a turn of the event loop
            return await read()
    except ClientDisconnect:
        raise ClientGoneError from None
    except TimeoutError:
        raise ApiError(408, f"the body did not arrive within {settings.read_s:g} s", code="body_late") from None


def _too_large(most: int) -> NoReturn:
    raise ApiError(413, f"the body must have at most {most} bytes", code="body_too_large", again=False)


def read_json(body: bytes, kind: str) -> dict[str, Any]:
    """A JSON object.

    Args:
        body: bytes. kind: the content type, which a page of another site could not choose freely.

    Raises:
        ApiError: with status 400.
    """
    if kind.partition(";")[0].strip().lower() not in ("application/json", ""):
        raise ApiError(400, "the content type must be application/json", code="invalid_content_type")
    commas = body.count(b",")
    if commas > VALUES:
        message = f"the body must have at most {VALUES} commas, since what is between them is read, and has {commas}"
        raise ApiError(400, message, code="invalid_body")
    try:
        value = json.loads(body.decode("utf-8-sig"), parse_float=_real, parse_int=_integer, parse_constant=_no_number)
        if b"\\u" in body:
            json.dumps(value, ensure_ascii=False).encode()  # halves of surrogate pairs are no text
        check.shallow(value, "the body")
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply", code="invalid_body") from None
    except InputError as error:
        raise ApiError(400, str(error), code="invalid_body") from None
    except ValueError as error:
        # the message of a wrong encoding would show what is around it
        told = f": {error}" if isinstance(error, json.JSONDecodeError) else ""
        raise ApiError(400, f"the body is not JSON{told}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_body")
    return value


def _real(text: str) -> float:
    """A number that is finite: 1e999 would be infinite here, and no worker could be sent it as JSON."""
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def _integer(text: str) -> int:
    """A whole number that has a finite value wherever it is taken for a real one."""
    if len(text) > DIGITS:
        _no_number(text)
    return int(text)


def _no_number(word: str) -> NoReturn:
    shown = word if len(word) <= 40 else f"{word[:40]}..."
    raise InputError(f"the body must hold only finite numbers, got {shown}")


async def read_form(request: Request, body: bytes) -> tuple[dict[str, Any], tuple[SentFile, ...]]:
    """Fields and files of a form; numbers and flags are read as such where they are known to be.

    Args:
        request: whose body was read. body: all of it.

    Raises:
        ApiError: with status 400.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        raise ApiError(400, "the content type must be multipart/form-data", code="invalid_content_type")

    async def replay() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    fields: dict[str, Any] = {}
    files: list[SentFile] = []
    try:
        form = Request(request.scope, replay).form(max_files=FILES, max_fields=FIELDS, max_part_size=2**20)
        async with form as parts:
            for key, value in parts.multi_items():
                _no_control(key, "the name of a field")
                if isinstance(value, UploadFile):
                    name = _no_control(value.filename or key, "the name of a file")
                    files.append(SentFile(key, name, _media_type(key, value.content_type or ""), await value.read()))
                else:
                    fields[key] = typed(key, value)
    except HTTPException as error:
        raise ApiError(400, f"the form cannot be read: {error.detail}", code="invalid_form") from None
    except (ValueError, KeyError, UnicodeError, AssertionError):
        raise ApiError(400, "the form cannot be read", code="invalid_form") from None
    if not any(file.key in ("image", "image[]") for file in files):
        raise ApiError(400, "image must be a file, or image[] several", param="image", code="invalid_value")
    return fields, tuple(files)


def _no_control(name: str, what: str) -> str:
    """A name that is one line, since the worker is sent it in a head."""
    if CONTROL.search(name):
        raise ApiError(400, f"{what} must have no control characters, got {show(name)}", code="invalid_form")
    return name


def _media_type(key: str, told: str) -> str:
    """The content type of a file without its parameters: the worker is sent it, so a line end would add to the form."""
    kind = told.partition(";")[0].strip(" \t")
    if kind and not MEDIA_TYPE.fullmatch(kind):
        message = f"the content type of {show(key)} must be such as image/png, got {show(kind)}"
        raise ApiError(400, message, param=key, code="invalid_form")
    return kind


def typed(key: str, text: str) -> Any:
    """A form's field as JSON would have it; what cannot be that stays a text, which is refused where it is read.

    Args:
        key: its name. text: its value.

    Example:
        >>> typed("n", "2"), typed("stream", "true"), typed("prompt", "3")
        (2, True, '3')
    """
    with suppress(ValueError):
        if key in WHOLE and len(text) < 20:
            return int(text)
        if key in REAL:
            value = float(text)
            return value if abs(value) < float("inf") else text
    return FLAGS.get(text, text) if key == "stream" else text
