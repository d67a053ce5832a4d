"""The OpenAPI description of the bodies that the API takes; what it does not name passes through."""

from __future__ import annotations

from typing import Any, TypeAlias

from diffpolicy.edge.serving import headers
from diffpolicy.edge.serving.image_request import FORMATS, LONGEST_NAME, PARTIAL
from diffpolicy.edge.serving.limits import Limits

ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
"""OpenAI's error body."""
IMAGES = {
    "type": "object",
    "properties": {"created": {"type": "integer"}, "data": {"type": "array", "items": {"type": "object"}}},
}
EVENT = {"type": "object", "required": ["data"], "properties": {name: {"type": "string"} for name in ("event", "data")}}
"""One of a stream; its data is JSON."""


def _whole(least: int | None = None, most: int | None = None) -> dict[str, Any]:
    bounds = {"minimum": least, "maximum": most}
    return {"type": ["integer", "null"], **{key: value for key, value in bounds.items() if value is not None}}


def fields(limits: Limits) -> dict[str, Any]:
    """Schemas of the fields by name. Args: limits: what is refused."""
    text = {"type": ["string", "null"]}
    return {
        "prompt": {"type": "string", "minLength": 1, "maxLength": limits.prompt},
        "model": {"type": ["string", "null"], "maxLength": LONGEST_NAME},
        "n": _whole(1, limits.images),
        "size": {"type": ["string", "null"], "pattern": r"^(\d{1,5}x\d{1,5}|auto)$", "examples": ["1024x1024"]},
        "num_inference_steps": _whole(1, limits.steps),
        "stream": {"type": ["boolean", "null"]},
        "partial_images": _whole(0, PARTIAL),
        "seed": _whole(),
        "guidance_scale": {"type": ["number", "null"]},
        "negative_prompt": text,
        "quality": text,
        "response_format": {**text, "enum": [*FORMATS, None]},
        "output_format": text,
        "user": text,
    }


def body(limits: Limits, form: bool) -> dict[str, Any]:
    """`requestBody` of a path. Args: limits: what is refused. form: of edits, which have files."""
    known, required = fields(limits), ["prompt"]
    if form:
        file = {"type": "string", "format": "binary"}
        known |= {"image": file, "image[]": {"type": "array", "items": file}, "mask": file}
    schema = {"type": "object", "required": required, "properties": known, "additionalProperties": True}
    kind = "multipart/form-data" if form else "application/json"
    return {"required": True, "content": {kind: {"schema": schema}}}


def sent_headers() -> list[dict[str, Any]]:
    """`parameters` of a path that gives images: headers that are read beside the body."""
    told = {
        headers.REQUEST_ID: ("the client's name for the request", {"type": "string"}),
        headers.IDEMPOTENCY: ("requests of one client with the same are one", {"type": "string", "maxLength": 255}),
        headers.DEADLINE_S: ("seconds until it must be done", {"type": "number", "exclusiveMinimum": 0}),
    }
    return [
        {"name": name, "in": "header", "required": False, "description": text, "schema": schema}
        for name, (text, schema) in told.items()
    ]


SAID = {
    400: "the request is wrong; error.param names what",
    401: "the API key is missing or wrong",
    403: "a page of another site, or another host, asked without a key; or the key is not the one named admin",
    404: "there is no such model",
    408: "the body did not come in time",
    413: "the body is too large",
    429: "the queue is full; Retry-After says when to ask again",
    500: "the server failed",
    502: "the worker's answer was none",
    503: "no worker can take it, or its workers died",
    504: "it cannot be done, or was not done, by its deadline",
}
"""What statuses mean that come instead of what was asked for."""
Responses: TypeAlias = dict[int | str, dict[str, Any]]


def answers() -> Responses:
    """`responses` of a path that gives images."""
    images = {"application/json": {"schema": IMAGES}, "text/event-stream": {"schema": EVENT}}
    return {200: {"description": "images", "content": images}, **errors(*SAID)}


def errors(*statuses: int) -> Responses:
    """`responses` that are OpenAI's errors. Args: statuses: of `SAID`."""
    error = {"application/json": {"schema": ERROR}}
    return {status: {"description": SAID[status], "content": error} for status in statuses}


def looked(*statuses: int, kind: str = "application/json", others: str = "") -> Responses:
    """`responses` of a path that is looked at.

    Args:
        statuses: of `SAID`, beside 500. kind: content type of what is seen. others: of whom 503 tells the same as 200.
    """
    seen: Responses = {200: {"description": "what is asked for", "content": {kind: {}}}}
    if others:
        seen[503] = {"description": others, "content": {kind: {}}}
    return {**seen, **errors(*statuses, 500)}
