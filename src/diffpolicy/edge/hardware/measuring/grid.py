"""`Grid`: which sizes, steps and batches are measured, and how often."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product

from diffpolicy import _validate as check
from diffpolicy.errors import InputError

MOST_PIXELS = 16384
"""Of a side."""
MOST_STEPS = 10_000
MOST_BATCH = 1024


@dataclass(frozen=True)
class Grid:
    """Points of the profile: every number of steps with every size and every batch.

    Args:
        steps: denoising steps. sizes: width and height in pixels. batches: images of one call.
        repeats: timed calls of each point. warmup: calls of each size and batch before them.

    Raises:
        InputError: a value is out of range.

    Example:
        >>> len(Grid(steps=(4, 10), sizes=((64, 64),), batches=(1, 2)).points())
        4
    """

    steps: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    batches: tuple[int, ...] = (1,)
    repeats: int = 5
    warmup: int = 1

    def __post_init__(self) -> None:
        for name, values, most in (("steps", self.steps, MOST_STEPS), ("batches", self.batches, MOST_BATCH)):
            _check(name, values, most)
        _check("sizes", tuple(side for size in self.sizes for side in size), MOST_PIXELS)
        object.__setattr__(self, "sizes", tuple((int(width), int(height)) for width, height in self.sizes))
        for name in ("steps", "batches"):
            object.__setattr__(self, name, tuple(map(int, getattr(self, name))))
        for name in ("steps", "sizes", "batches"):
            # the order does not matter, and a point that stands twice is one
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))
        object.__setattr__(self, "repeats", check.integer(self.repeats, "repeats", least=1))
        object.__setattr__(self, "warmup", check.integer(self.warmup, "warmup", least=0))

    def points(self) -> list[tuple[int, int, int, int]]:
        """Width, height, steps and batch of every point."""
        return [(*size, n, b) for size, b, n in product(self.sizes, self.batches, self.steps)]


def parse_numbers(text: str, key: str) -> tuple[int, ...]:
    """`4,10,20`."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{key} must be whole numbers with commas between them, got {check.show(text)}") from None


def parse_sizes(text: str, key: str) -> tuple[tuple[int, int], ...]:
    """`64,96x128`: one number is a square."""
    sizes = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,9})(?:x(\d{1,9}))?\s*", part, re.ASCII)
        if found is None:
            raise InputError(
                f"{key} must be sizes such as 512 or 512x768 with commas between them, got {check.show(text)}"
            )
        sizes.append((int(found[1]), int(found[2] or found[1])))
    return tuple(sizes)


def parse_grid(text: str) -> dict[str, str]:
    """`steps=4,10;sizes=64,96x128;batch=1,2` as texts by key: `steps`, `sizes` and `batches`."""
    names = {"steps": "steps", "sizes": "sizes", "size": "sizes", "batches": "batches", "batch": "batches"}
    result: dict[str, str] = {}
    for part in text.split(";"):
        key, sign, value = (word.strip() for word in part.partition("="))
        if not sign or key not in names:
            raise InputError(f"--grid must be steps=..;sizes=..;batches=.., got {check.show(text)}")
        if names[key] in result:
            raise InputError(f"--grid has {names[key]} twice, got {check.show(text)}")
        result[names[key]] = value
    return result


def _check(name: str, values: tuple[int, ...], most: int) -> None:
    if not values:
        raise InputError(f"{name} must hold at least one value, got none")
    for value in values:
        if not 1 <= check.integer(value, name) <= most:
            raise InputError(f"{name} must be from 1 to {most}, got {value}")
