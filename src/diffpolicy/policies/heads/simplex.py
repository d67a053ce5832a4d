"""`SimplexHead`: x_0 holds the mean and the spread of a logistic-normal law of shares that sum to one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from diffpolicy.errors import InputError
from diffpolicy.policies.heads.bounded import log_std
from diffpolicy.policies.heads.head import Head, draw_of
from diffpolicy.policies.keys import Action
from diffpolicy.policies.masks import masked_value
from diffpolicy.policies.registry import part_with


@dataclass(frozen=True)
class SimplexHead(Head):
    """a = softmax(u) over the D choices that are allowed, u ~ N(mean, std); x_0 holds D means, then D log std.

    The logistic-normal law (Aitchison and Shen 1980, doi:10.1093/biomet/67.2.261): a share of each choice, exactly 0 of
    a forbidden one. Adding a number to all u changes no share, so the density, by all shares of the n allowed choices
    but one, is the integral over that number, which is the same whichever one is left out: with d = mean - log a,
    w = 1 / std^2 and c the mean of d weighted by w,

        log p(a) = sum[-log std - w (d - c)^2 / 2 - log a] - (n - 1) log(2 pi) / 2 - log(sum of w) / 2.

    A Dirichlet law has no draw that is a smooth function of normal numbers, which gradients through Q(s, a), recorded
    draws and exported decisions want, and a mask of it is no smaller law of the same kind.

    Args:
        draw: `sample` from the law, or take its `argmax`, the shares at the mean of u.
        choices: D; a policy sets it from its action's spec, a vector that takes all numbers from 0 to 1.

    Raises:
        InputError: `draw` is another word, or the vector's bounds leave shares out.

    Example:
        >>> head = SimplexHead(choices=3)
        >>> law = head.law(torch.zeros(6), torch.tensor([True, False, True]).repeat(2))
        >>> head.mode(law)
        tensor([0.5000, 0.0000, 0.5000])
    """

    kinds: ClassVar[tuple[str, ...]] = ("bounded", "unbounded")
    expectation: ClassVar[Literal["enumerated", "pathwise", "sampled"]] = "pathwise"
    draw: Literal["sample", "argmax"] = "sample"
    choices: int = 0

    def __post_init__(self) -> None:
        draw_of(self.draw, "SimplexHead")

    def sized(self, action: Action) -> SimplexHead:
        self._check_kind(action)
        for least, most in zip(action.low, action.high, strict=True):
            if least > 0 or most < 1:
                raise InputError(
                    f"a SimplexHead gives shares from 0 to 1, and {action.key!r} takes {least:g} to {most:g}"
                )
        return part_with(self, choices=action.nvec[0])

    @property
    def width(self) -> int:
        return 2 * self.choices

    @property
    def event(self) -> tuple[int, ...]:
        return (self.choices,)

    @property
    def mask_width(self) -> int:
        return self.choices

    def read_mask(self, mask: Tensor) -> Tensor:
        if mask.shape[-1] != self.choices:
            raise InputError(f"a mask of {self.choices} choices is needed, got shape {list(mask.shape)}")
        return torch.cat([mask, mask], -1)

    def allows(self, mask: Tensor) -> Tensor:
        return mask[..., : self.choices].any(-1)

    def refuse(self, action: Tensor, mask: Tensor | None) -> Tensor:
        return action if mask is None else action.masked_fill(~self.allows(mask).unsqueeze(-1), -1.0)

    def impossible(self, action: Tensor, mask: Tensor | None = None) -> Tensor:
        below = (action < 0).any(-1)  # where nothing was allowed, see `refuse`
        return below if mask is None else below | ((action > 0) & ~mask[..., : self.choices]).any(-1)

    @property
    def draw_input(self) -> tuple[str, tuple[int, ...]] | None:
        return None if self.draw == "argmax" else ("normal", (self.choices,))

    def law(self, x0: Tensor, mask: Tensor | None = None) -> Tensor:
        """Means, those of forbidden choices at the least that stays finite, and standard deviations, `[.., 2 D]`.

        Where nothing is allowed the law is that of all choices: so far down a mean is rounded by more than any spread.
        """
        mean, raw = x0.chunk(2, -1)
        if mask is not None:
            own = mask[..., : self.choices]
            mean = mean.masked_fill(~(own | ~own.any(-1, keepdim=True)), masked_value(mean.dtype))
        return torch.cat([mean, log_std(raw).exp()], -1)

    def draws(self, rows: torch.Size, generator: torch.Generator) -> Tensor | None:
        if self.draw == "argmax":
            return None
        return torch.randn(*rows, self.choices, generator=generator, device=generator.device)

    def sample(self, law: Tensor, draws: Tensor | None) -> Tensor:
        if self.draw == "argmax" or draws is None:
            return self.mode(law)
        return self._logits(law, draws).softmax(-1)

    def mode(self, law: Tensor) -> Tensor:
        mean = law.chunk(2, -1)[0]
        return mean.masked_fill(~_allowed(mean), masked_value(mean.dtype)).softmax(-1)

    def _logits(self, law: Tensor, draws: Tensor) -> Tensor:
        mean, std = law.chunk(2, -1)
        return (mean + std * draws.to(mean)).masked_fill(~_allowed(mean), masked_value(mean.dtype))

    def log_prob(self, law: Tensor, action: Tensor) -> Tensor:
        """Density at shares by all allowed ones but one; a share of 0 counts as the least number above it."""
        return self._density(law, action.to(law).clamp_min(torch.finfo(law.dtype).tiny).log())

    def with_log_prob(self, law: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        log_share = self._logits(law, draws).log_softmax(-1)
        return log_share.exp(), self._density(law, log_share)

    def _density(self, law: Tensor, log_share: Tensor) -> Tensor:
        """The logarithm above, `[..]`. Args: log_share: `[.., D]`, of forbidden choices any number."""
        mean, std = law.chunk(2, -1)
        allowed = _allowed(mean)
        # a narrow type has no room for the weights of small spreads
        mean, std, log_share = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (mean, std, log_share))
        distance = (mean - log_share).masked_fill(~allowed, 0.0)
        weight = std.pow(-2).masked_fill(~allowed, 0.0)
        whole = weight.sum(-1)
        apart = distance - ((weight * distance).sum(-1) / whole).unsqueeze(-1)
        each = -std.log() - weight * apart.square() / 2 - log_share
        free = self.freedom(law)
        log_prob = each.masked_fill(~allowed, 0.0).sum(-1) - free * math.log(2 * math.pi) / 2 - whole.log() / 2
        return log_prob.to(law.dtype)

    def freedom(self, law: Tensor) -> Tensor:
        """Of n allowed choices n - 1."""
        return (_allowed(law.chunk(2, -1)[0]).sum(-1) - 1).to(law)

    def log_volume(self, law: Tensor) -> Tensor:
        """Shares of n choices fill 1 / (n - 1)! of the unit cube."""
        free = self.freedom(law)
        return -(free + 1).lgamma() - free * math.log(2)

    def uniform(self, rows: torch.Size, mask: Tensor | None, generator: torch.Generator) -> Tensor:
        waits = torch.empty(*rows, self.choices, device=generator.device).exponential_(generator=generator)
        waits = waits if mask is None else waits.masked_fill(~mask[..., : self.choices], 0.0)
        return waits / waits.sum(-1, keepdim=True).clamp_min(torch.finfo(waits.dtype).tiny)

    @property
    def feature_width(self) -> int:
        return self.choices

    def features(self, action: Tensor) -> Tensor:
        return 2 * action - 1


def _allowed(mean: Tensor) -> Tensor:
    """Which choices a law allows, bool `[.., D]`; where none is, all are: whoever asked is told elsewhere."""
    allowed = mean > masked_value(mean.dtype) / 2
    return allowed | ~allowed.any(-1, keepdim=True)
