"""`BoundedHead`: x_0 holds the mean and the spread of a squashed normal law within bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from diffpolicy.errors import InputError
from diffpolicy.policies.heads.head import Head, draw_of
from diffpolicy.policies.keys import Action
from diffpolicy.policies.registry import part_with

LOG_STD = (-5.0, 2.0)
"""Bounds of the logarithm of the standard deviation before squashing, as in soft actor-critic's codes."""


def set_bounds(head: Any) -> None:
    """Makes numbers of a frozen head's `low` and `high`. Args: head: a dataclass with both.

    Raises:
        InputError: they are not finite or do not rise.
    """
    for name in ("low", "high"):
        object.__setattr__(head, name, tuple(map(float, getattr(head, name))))
    for least, most in zip(head.low, head.high, strict=True):
        if not -math.inf < least < most < math.inf:
            raise InputError(f"{type(head).__name__}'s bounds must be finite and rise, got {least:g} and {most:g}")


def middle_and_half(low: Sequence[float], high: Sequence[float], like: Tensor) -> tuple[Tensor, Tensor]:
    """Middle and half width of each dimension, `[D]`. Args: low, high: bounds. like: of the type that is wanted."""
    least, most = (torch.tensor(x, dtype=like.dtype, device=like.device) for x in (low, high))
    return (least + most) / 2, (most - least) / 2


def log_std(raw: Tensor) -> Tensor:
    """The logarithm of a standard deviation, brought within `LOG_STD` by tanh. Args: raw: any numbers."""
    least, most = LOG_STD
    return least + (most - least) * (raw.tanh() + 1) / 2


def uniform_within(low: Sequence[float], high: Sequence[float], rows: torch.Size, generator: torch.Generator) -> Tensor:
    """Vectors drawn alike from all within bounds, `[*rows, D]`. Args: low, high: bounds. rows: shape of the vectors."""
    draws = torch.rand(*rows, len(low), generator=generator, device=generator.device)
    middle, half = middle_and_half(low, high, draws)
    return middle + half * (2 * draws - 1)


@dataclass(frozen=True)
class BoundedHead(Head):
    """a = middle + half tanh(u), u ~ N(mean, std), for each of D dimensions; x_0 holds D means, then D log std.

    The law of soft actor-critic (Haarnoja et al. 2018, arXiv 1801.01290, appendix C). The logarithm of the standard
    deviation is brought within bounds by tanh, so that it has a gradient everywhere.

    Args:
        draw: `sample` from the law, or take its `argmax`, the mean before squashing.
        low, high: bounds of each dimension; a policy sets them from its action's spec.

    Raises:
        InputError: `draw` is another word, or bounds are not finite or do not rise; a mask has nothing to forbid here.

    Example:
        >>> head = BoundedHead(low=(-2.0,), high=(2.0,))
        >>> head.mode(head.law(torch.zeros(2)))
        tensor([0.])
    """

    kinds: ClassVar[tuple[str, ...]] = ("bounded",)
    expectation: ClassVar[Literal["enumerated", "pathwise", "sampled"]] = "pathwise"
    draw: Literal["sample", "argmax"] = "sample"
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        draw_of(self.draw, "BoundedHead")
        set_bounds(self)

    def sized(self, action: Action) -> BoundedHead:
        self._check_kind(action)
        return part_with(self, low=action.low, high=action.high)

    @property
    def width(self) -> int:
        return 2 * len(self.low)

    @property
    def event(self) -> tuple[int, ...]:
        return (len(self.low),)

    @property
    def draw_input(self) -> tuple[str, tuple[int, ...]] | None:
        return None if self.draw == "argmax" else ("normal", (len(self.low),))

    def _scale(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return middle_and_half(self.low, self.high, like)

    def law(self, x0: Tensor, mask: Tensor | None = None) -> Tensor:
        """Means and standard deviations, `[.., 2 D]`."""
        if mask is not None:
            raise InputError("a BoundedHead has no choices that a mask could forbid")
        mean, raw = x0.chunk(2, -1)
        return torch.cat([mean, log_std(raw).exp()], -1)

    def draws(self, rows: torch.Size, generator: torch.Generator) -> Tensor | None:
        if self.draw == "argmax":
            return None
        return torch.randn(*rows, len(self.low), generator=generator, device=generator.device)

    def sample(self, law: Tensor, draws: Tensor | None) -> Tensor:
        mean, std = law.chunk(2, -1)
        return self._squashed(mean if self.draw == "argmax" or draws is None else mean + std * draws.to(mean))

    def mode(self, law: Tensor) -> Tensor:
        return self._squashed(law.chunk(2, -1)[0])

    def _squashed(self, u: Tensor) -> Tensor:
        middle, half = self._scale(u)
        return middle + half * u.tanh()

    def scaled(self, action: Tensor) -> Tensor:
        """Actions in units in which the bounds are -1 and 1, `[.., D]`."""
        middle, half = self._scale(action)
        return (action - middle) / half

    def uniform(self, rows: torch.Size, mask: Tensor | None, generator: torch.Generator) -> Tensor:
        return uniform_within(self.low, self.high, rows, generator)

    @property
    def feature_width(self) -> int:
        return len(self.low)

    def features(self, action: Tensor) -> Tensor:
        return self.scaled(action)

    def freedom(self, law: Tensor) -> float:
        return float(len(self.low))

    def log_volume(self, law: Tensor) -> float:
        return sum(math.log((high - low) / 2) for low, high in zip(self.low, self.high, strict=True))

    def log_prob(self, law: Tensor, action: Tensor) -> Tensor:
        """Density at actions; those on a bound count as a hair within it."""
        within = 1 - 1e-6
        return self._density(law, self.scaled(action.to(law)).clamp(-within, within).atanh())

    def with_log_prob(self, law: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = law.chunk(2, -1)
        u = mean + std * draws.to(mean)
        return self._squashed(u), self._density(law, u)

    def _density(self, law: Tensor, u: Tensor) -> Tensor:
        """Log N(u) - log |da/du|, with log(1 - tanh^2 u) = 2 (log 2 - u - softplus(-2 u)), which does not cancel."""
        mean, std = law.chunk(2, -1)
        normal = -0.5 * ((u - mean) / std).square() - std.log() - 0.5 * math.log(2 * math.pi)
        slope = 2 * (math.log(2) - u - softplus(-2 * u)) + self._scale(law)[1].log()
        return (normal - slope).sum(-1)

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "low": list(self.low), "high": list(self.high)}
