"""`Limits`: the most that a request may ask for."""

from __future__ import annotations

from dataclasses import dataclass, fields

from diffpolicy import _validate as check


@dataclass(frozen=True)
class Limits:
    """Upper limits of a request; what exceeds them is refused before any work is done.

    Args:
        prompt: characters. pixels: of an image. side: pixels of its width or height.
        steps: denoising steps. images: of a request.
        body: bytes of a request. response: bytes of an answer. queue: requests that wait.

    Raises:
        InputError: a limit is below 1.

    Example:
        >>> Limits(steps=50).steps
        50
    """

    prompt: int = 32_000
    pixels: int = 4096 * 4096
    side: int = 16_384
    steps: int = 500
    images: int = 10
    body: int = 64 * 2**20
    response: int = 512 * 2**20
    queue: int = 1000

    def __post_init__(self) -> None:
        for each in fields(self):
            object.__setattr__(self, each.name, check.integer(getattr(self, each.name), each.name, least=1))
