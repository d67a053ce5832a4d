"""The OpenAPI description of the bodies that the API takes; what it does not name passes through."""

from __future__ import annotations

from typing import Any

from diffpolicy.edge.serving.image_request import LONGEST_NAME, PARTIAL
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
        "response_format": text,
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


def answers() -> dict[int | str, dict[str, Any]]:
    """`responses` of a path that gives images."""
    said = {
        400: "the request is wrong; error.param names what",
        401: "the API key is missing or wrong",
        403: "a page of another site, or another host, asked without a key",
        408: "the body did not come in time",
        413: "the body is too large",
        429: "the queue is full; Retry-After says when to ask again",
        500: "the dispatcher failed",
        502: "the worker's answer was none",
        503: "no worker can take it, or its workers died",
        504: "it cannot be done, or was not done, by its deadline",
    }
    error = {"application/json": {"schema": ERROR}}
    images = {"application/json": {"schema": IMAGES}, "text/event-stream": {"schema": {"type": "string"}}}
    return {
        200: {"description": "images", "content": images},
        **{status: {"description": text, "content": error} for status, text in said.items()},
    }
