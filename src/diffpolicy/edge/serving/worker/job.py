"""`Job`: a request as an engine takes it, with nothing left open."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffpolicy._validate import show
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.image_request import ImageRequest

MOST_SEED = 2**63 - 11
"""So that a seed for each image of a request is one."""


@dataclass(frozen=True)
class Standard:
    """What a model makes where a request does not say.

    Args:
        width, height: pixels. steps: denoising steps.

    Example:
        >>> make_engine("emulate:mlenergy-h100-sd3-medium").standard
        Standard(width=1024, height=1024, steps=25)
    """

    width: int
    height: int
    steps: int


@dataclass(frozen=True)
class Job:
    """The images to make, as a request asks for them.

    Args:
        prompt, negative_prompt: never printed. width, height: pixels. steps: denoising steps. images: how many.
        seed: of the first image; the i-th after it has seed + i.
        guidance_scale: None: the model's own. partials: pictures shown on the way. kind: `png`, `jpeg` or `webp`.

    Example:
        >>> Job("a cat", 1000, 1000, steps=20, images=2).size
        40.0
    """

    prompt: str = field(repr=False)
    width: int
    height: int
    steps: int
    images: int = 1
    seed: int = 0
    negative_prompt: str | None = field(default=None, repr=False)
    guidance_scale: float | None = None
    partials: int = 0
    kind: str = "png"

    @property
    def size(self) -> float:
        """Images x steps x megapixels."""
        return self.images * self.steps * self.width * self.height / 1e6

    @classmethod
    def of(cls, request: ImageRequest, standard: Standard, kinds: tuple[str, ...]) -> Job:
        """What a request asks for.

        Args:
            request: as it came. standard: what holds where it does not say. kinds: formats that the engine writes.

        Raises:
            ApiError: with status 400, a field is wrong.

        Example:
            >>> job = Job.of(ImageRequest.parse({"prompt": "a cat", "seed": 3}, "r1"), Standard(64, 64, 4), ("png",))
            >>> job.width, job.steps, job.seed
            (64, 4, 3)
        """
        body = request.body
        if body.get("response_format") not in (None, "b64_json"):
            raise _wrong("response_format", "must be b64_json, since images are kept nowhere", body)
        kind = body.get("output_format")
        if kind is not None and kind not in kinds:
            raise _wrong("output_format", f"must be {' or '.join(kinds)}", body)
        seed = body.get("seed")
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MOST_SEED):
            raise _wrong("seed", f"must be a whole number from 0 to {MOST_SEED}", body)
        negative = body.get("negative_prompt")
        if negative is not None and not isinstance(negative, str):
            raise ApiError(400, "negative_prompt must be a string", param="negative_prompt", code="invalid_value")
        told = request.width is not None and request.height is not None
        return cls(
            request.body["prompt"],
            request.width if told and request.width else standard.width,
            request.height if told and request.height else standard.height,
            request.steps or standard.steps,
            request.images,
            secrets.randbelow(2**32) if seed is None else seed,
            negative,
            _guidance(body),
            (body.get("partial_images") or 0) if request.stream else 0,
            kind or kinds[0],
        )


def _guidance(body: Mapping[str, Any]) -> float | None:
    value = body.get("guidance_scale")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or abs(value) > 1e6:
        raise _wrong("guidance_scale", "must be a number", body)
    return float(value)


def _wrong(param: str, what: str, body: Mapping[str, Any]) -> ApiError:
    return ApiError(400, f"{param} {what}, got {show(body[param])}", param=param, code="invalid_value")
