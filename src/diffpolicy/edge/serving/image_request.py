"""`ImageRequest`: a request of OpenAI's Images API, as far as a dispatcher reads it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffpolicy._validate import show
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.limits import Limits

SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
PARTIAL = 3
"""Most partial images of a stream."""
FORMATS = ("b64_json", "url")
"""Of OpenAI's responses; a server that answers by a file, as vLLM-Omni does for `file`, would count as broken."""
LONGEST_NAME = 200
"""Characters of a model's name."""


@dataclass(frozen=True)
class SentFile:
    """A file of a form.

    Args:
        key: its name in the form, such as `image[]`. name: of the file. kind: its content type. content: bytes.
    """

    key: str
    name: str
    kind: str
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class ImageRequest:
    """What a client asks for; None where it does not say.

    Args:
        number: names the request, everywhere.
        body: as it is sent on, fields that nobody here knows included. It holds the prompt and is never printed.
        model: name, "" for the server's own. width, height: pixels. steps: denoising steps. images: how many.
        stream: whether partial images are sent as they come.
        client: whom fair share goes by. repeat_key: requests of one client with the same key are one.
        deadline_s: seconds from its arrival, infinite for none.
        files: of an edit.

    Example:
        >>> request = ImageRequest.parse({"prompt": "a cat", "size": "512x1024", "num_inference_steps": 20}, "r1")
        >>> request.height, request.size, request.path
        (1024, 10.48576, '/v1/images/generations')
    """

    number: str
    body: Mapping[str, Any] = field(repr=False)
    model: str = ""
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    images: int = 1
    stream: bool = False
    client: str = ""
    repeat_key: str | None = None
    deadline_s: float = float("inf")
    files: tuple[SentFile, ...] = ()

    @property
    def path(self) -> str:
        """Where it is asked for."""
        return EDITS if self.files else GENERATIONS

    @property
    def size(self) -> float | None:
        """Images x steps x megapixels; None where the request does not tell them all."""
        return self.size_with(None, None, None)

    @property
    def kind(self) -> tuple[object, ...]:
        """What its seconds on a server go by: requests of one kind cost the same everywhere.

        Not their size, which two that leave steps open lack alike, though a server with steps of its own tells them
        apart.
        """
        return self.model, self.width, self.height, self.steps, self.images

    def size_with(self, width: int | None, height: int | None, steps: int | None) -> float | None:
        """Images x steps x megapixels on a server that has values of its own for what is left open.

        Args:
            width, height: pixels, taken where the request does not tell both. steps: of denoising.

        Returns:
            None where the server does not tell them either.
        """
        if self.width is not None and self.height is not None:
            width, height = self.width, self.height
        steps = steps if self.steps is None else self.steps
        if width is None or height is None or steps is None:
            return None
        return self.images * steps * width * height / 1e6

    @property
    def digest(self) -> str:
        """Of all that is asked for; the same for the same alone."""
        digest = hashlib.sha256()
        parts = [json.dumps(self.body, sort_keys=True).encode()]
        for file in self.files:
            parts += [file.key.encode(), file.name.encode(), file.kind.encode(), file.content]
        for part in parts:
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.hexdigest()

    @classmethod
    def parse(
        cls,
        body: Any,
        number: str,
        *,
        limits: Limits | None = None,
        client: str = "",
        repeat_key: str | None = None,
        deadline_s: float = float("inf"),
        files: tuple[SentFile, ...] = (),
    ) -> ImageRequest:
        """Reads a body.

        Args:
            body: the JSON, or the fields of the form. number: names it. limits: None: the defaults of `Limits`.
            client, repeat_key, deadline_s, files: see above.

        Raises:
            ApiError: with status 400, when the body is no request or asks for too much.
        """
        most = limits or Limits()
        if not isinstance(body, Mapping):
            raise ApiError(400, "the body must be a JSON object", code="invalid_body")
        try:
            json.dumps(body, allow_nan=False)
        except (TypeError, ValueError):  # no worker could be sent it
            raise ApiError(400, "the body holds what JSON cannot, such as a number that is not finite") from None
        prompt = body.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            raise ApiError(400, "prompt must be a string that is not empty", param="prompt", code="invalid_prompt")
        if len(prompt) > most.prompt:
            raise _wrong("prompt", f"must have at most {most.prompt} characters, and has {len(prompt)}")
        model = body.get("model")
        if model is not None and (not isinstance(model, str) or len(model) > LONGEST_NAME):
            raise _wrong("model", f"must be a name of at most {LONGEST_NAME} characters, got {show(model)}")
        width, height = _pixels(body, most)
        wanted = body.get("response_format")
        if wanted is not None and wanted not in FORMATS:
            raise _wrong("response_format", f"must be {' or '.join(FORMATS)}, got {show(wanted)}")
        stream = body.get("stream")
        if stream is not None and not isinstance(stream, bool):
            raise _wrong("stream", f"must be true or false, got {show(stream)}")
        _whole(body, "partial_images", 0, PARTIAL)
        return cls(
            number,
            dict(body),
            model or "",
            width,
            height,
            _whole(body, "num_inference_steps", 1, most.steps),
            _whole(body, "n", 1, most.images) or 1,
            bool(stream),
            client,
            repeat_key,
            deadline_s,
            files,
        )


def _wrong(param: str, what: str) -> ApiError:
    return ApiError(400, f"{param} {what}", param=param, code="invalid_value")


def _whole(body: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    """A whole number of a body, None where it is absent or null."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _wrong(name, f"must be a whole number from {least} to {most}, got {show(value)}")
    return value


def _pixels(body: Mapping[str, Any], most: Limits) -> tuple[int | None, int | None]:
    """Width and height, from `size`, or from fields of these names; where both are told, they must agree."""
    size = body.get("size")
    told = _whole(body, "width", 1, most.side), _whole(body, "height", 1, most.side)
    if size is None or size == "auto":
        width, height = told
    else:
        found = SIZE.fullmatch(size) if isinstance(size, str) else None
        if found is None or not int(found[1]) or not int(found[2]):
            raise _wrong("size", f"must be WIDTHxHEIGHT or auto, got {show(size)}")
        width, height = int(found[1]), int(found[2])
        if max(width, height) > most.side:
            raise _wrong("size", f"must have at most {most.side} pixels a side, got {size}")
        if any(other not in (None, own) for own, other in zip((width, height), told, strict=True)):
            raise _wrong("size", f"is {size}, and width and height say {told[0]} x {told[1]}")
    if width is not None and height is not None and width * height > most.pixels:
        raise _wrong("size", f"must have at most {most.pixels} pixels, got {width} x {height}")
    return width, height
