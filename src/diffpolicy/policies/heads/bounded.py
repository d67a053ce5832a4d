"""`BoundedHead`: x_0 holds the mean and the spread of a squashed normal law within bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from diffpolicy._total import total
from diffpolicy.errors import InputError
from diffpolicy.policies.heads.bounds import WithinBounds
from diffpolicy.policies.heads.head import draw_of

LOG_STD = (-5.0, 2.0)
"""Bounds of the logarithm of the standard deviation before squashing, as in soft actor-critic's codes."""


def log_std(raw: Tensor) -> Tensor:
    """The logarithm of a standard deviation, brought within `LOG_STD` by tanh. Args: raw: any numbers."""
    least, most = LOG_STD
    return least + (most - least) * (raw.tanh() + 1) / 2


@dataclass(frozen=True)
class BoundedHead(WithinBounds):
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

    expectation: ClassVar[Literal["enumerated", "pathwise", "sampled"]] = "pathwise"
    draw: Literal["sample", "argmax"] = "sample"
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        draw_of(self.draw, "BoundedHead")
        super().__post_init__()

    @property
    def width(self) -> int:
        return 2 * len(self.low)

    @property
    def draw_input(self) -> tuple[str, tuple[int, ...]] | None:
        return None if self.draw == "argmax" else ("normal", (len(self.low),))

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
        return self.unscaled(u.tanh())

    def freedom(self, law: Tensor) -> float:
        return float(len(self.low))

    def log_volume(self, law: Tensor) -> float:
        return total(math.log((high - low) / 2) for low, high in zip(self.low, self.high, strict=True))

    def log_prob(self, law: Tensor, action: Tensor) -> Tensor:
        """Density at actions; those on a bound count as a hair within it."""
        # a narrow type has no room for the hair
        full, within = law.to(torch.promote_types(law.dtype, torch.float32)), 1 - 1e-6
        return self._density(full, self.scaled(action.to(full)).clamp(-within, within).atanh()).to(law.dtype)

    def with_log_prob(self, law: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = law.chunk(2, -1)
        u = mean + std * draws.to(mean)
        return self._squashed(u), self._density(law, u)

    def _density(self, law: Tensor, u: Tensor) -> Tensor:
        """Log N(u) - log |da/du|, with log(1 - tanh^2 u) = 2 (log 2 - u - softplus(-2 u)), which does not cancel."""
        mean, std = law.chunk(2, -1)
        normal = -0.5 * ((u - mean) / std).square() - std.log() - 0.5 * math.log(2 * math.pi)
        slope = 2 * (math.log(2) - u - softplus(-2 * u)) + self.middle_and_half(law)[1].log()
        return (normal - slope).sum(-1)
