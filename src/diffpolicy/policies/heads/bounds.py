"""`WithinBounds`: what heads of vectors within bounds share: the bounds, and actions scaled to [-1, 1]."""

from __future__ import annotations

import math
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.policies.heads.head import Head
from diffpolicy.policies.keys import Action
from diffpolicy.policies.registry import part_with

Made = TypeVar("Made", bound="WithinBounds")


class WithinBounds(Head):
    """A head of D numbers between `low` and `high`, two fields that a subclass, a dataclass, has."""

    kinds: ClassVar[tuple[str, ...]] = ("bounded",)
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            given = getattr(self, name)
            try:
                object.__setattr__(self, name, tuple(map(float, given)))
            except (TypeError, ValueError):
                raise InputError(
                    f"{type(self).__name__}.{name} must be a list of numbers, got {check.show(given)}"
                ) from None
        if len(self.low) != len(self.high):
            raise InputError(
                f"{type(self).__name__} needs as many numbers of low as of high, got {len(self.low)} and "
                f"{len(self.high)}"
            )
        for least, most in zip(self.low, self.high, strict=True):
            if not -math.inf < least < most < math.inf:
                raise InputError(f"{type(self).__name__}'s bounds must be finite and rise, got {least:g} and {most:g}")

    def sized(self: Made, action: Action) -> Made:
        self._check_kind(action)
        return part_with(self, low=action.low, high=action.high)

    @property
    def event(self) -> tuple[int, ...]:
        return (len(self.low),)

    def middle_and_half(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Middle and half width of each dimension, `[D]`. Args: like: of the type that is wanted."""
        least, most = (torch.tensor(x, dtype=like.dtype, device=like.device) for x in (self.low, self.high))
        return (least + most) / 2, (most - least) / 2

    def scaled(self, action: Tensor) -> Tensor:
        """Actions in units in which the bounds are -1 and 1, `[.., D]`."""
        middle, half = self.middle_and_half(action)
        return (action - middle) / half

    def unscaled(self, x: Tensor) -> Tensor:
        """What `scaled` gave, as actions, `[.., D]`."""
        middle, half = self.middle_and_half(x)
        return middle + half * x

    def beyond(self, action: Tensor, slack: float) -> Tensor:
        return self.scaled(action).abs().amax(-1) > 1 + slack

    def uniform(self, rows: torch.Size, mask: Tensor | None, generator: torch.Generator) -> Tensor:
        draws = torch.rand(*rows, len(self.low), generator=generator, device=generator.device)
        return self.unscaled(2 * draws - 1)

    @property
    def feature_width(self) -> int:
        return len(self.low)

    def features(self, action: Tensor) -> Tensor:
        return self.scaled(action)

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "low": list(self.low), "high": list(self.high)}
