"""The chains whose ends are the coefficients of the learned price: one network's, or three that load mixes.

The compiled form of both is `compiled`, held equal by tests.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffpolicy.diffusion.sampler import ReverseStep
from diffpolicy.diffusion.samplers import run
from diffpolicy.edge.pricing.law import Features
from diffpolicy.networks.set_denoiser import SetDenoiser

OVER = (0.02, 0.3)
"""Overloads between which the set of parameters for overload takes over from the one for less; see `shares`."""
BUSY, LONG = (2.0, 6.0), (60.0, 210.0)
"""Values of tau between which the sets for overload and for long overload take over; see `shares`."""
LEAST_OVERLOAD = 0.05
"""Overload, at least, by which the seconds of a backlog are divided."""

_OVERLOAD, _FLEET_FILL = (Features._fields.index(name) for name in ("overload", "fleet_fill"))


def shares(overload: Tensor, fleet_fill: Tensor) -> Tensor:
    """How much each of three sets of parameters counts, `[*, 3]`: for low load, for overload, for long overload.

    tau = (backlog seconds / slot) / max(overload, LEAST_OVERLOAD) is about how many slots the overload has lasted, read
    off what it left, since no clock is known. The last set takes over as log(1 + tau) passes between those of LONG; of
    the rest, the second one has what overload and tau say together, between OVER and between those of BUSY.

    Args:
        overload, fleet_fill: of `Features`, `[*]`.
    """
    backlog = fleet_fill / (1 - fleet_fill)
    age = (backlog / overload.clamp_min(LEAST_OVERLOAD)).log1p()
    busy, long = (
        ((age - math.log1p(least)) / (math.log1p(most) - math.log1p(least))).clamp(0, 1) for least, most in (BUSY, LONG)
    )
    busy = busy * ((overload - OVER[0]) / (OVER[1] - OVER[0])).clamp(0, 1)
    return torch.stack([(1 - long) * (1 - busy), (1 - long) * busy, long], -1)


@dataclass(frozen=True)
class PriceChain:
    """The coefficients' chain of every server, a `Coefficients` that has a compiled form.

    Args:
        denoiser: predicts x_0. path: its reverse steps, which spread nothing.
        remember: whether it starts from the remembered x_0; otherwise from zero.
    """

    denoiser: SetDenoiser
    path: Sequence[ReverseStep]
    remember: bool

    def __call__(self, features: Tensor, latents: Tensor) -> Tensor:
        prepared = self.denoiser.prepare(features)
        start = latents if self.remember else torch.zeros_like(latents)
        return run(lambda x, i: self.denoiser(x, i, prepared), start, list(self.path))

    @property
    def chains(self) -> tuple[PriceChain, ...]:
        """Itself alone: no other set of parameters."""
        return (self,)

    @property
    def compilable(self) -> bool:
        """Whether the compiled form, which is of float64 and sums in four parts, computes it."""
        return self.denoiser.out.dtype == torch.float64 and self.denoiser.hidden % 4 == 0

    def to(self, dtype: torch.dtype) -> PriceChain:
        """The same chain, computed in another precision."""
        if self.denoiser.out.dtype == dtype:
            return self
        # a shallow copy, since a policy asks at every step: whatever else a deep copy would find is not computed with
        other = copy.copy(self.denoiser)
        other._parameters = {name: nn.Parameter(x.detach().to(dtype)) for name, x in self.denoiser.named_parameters()}
        return PriceChain(other, self.path, self.remember)


@dataclass(frozen=True)
class GatedChain:
    """Three sets of parameters, of which what a fleet has behind it says how much each counts: a `Coefficients`.

        x_0 = sum_m share_m x_0^m, each chain from the same remembered x_0.

    Args:
        chains: for low load, for overload and for long overload, of one width and memory; see `shares`.
    """

    chains: tuple[PriceChain, ...]

    def __call__(self, features: Tensor, latents: Tensor) -> Tensor:
        share = shares(features[..., _OVERLOAD], features[..., _FLEET_FILL])
        each = torch.stack([chain(features, latents) for chain in self.chains], -1)
        return (each * share.unsqueeze(-2)).sum(-1)

    @property
    def remember(self) -> bool:
        """Of each of them."""
        return self.chains[0].remember

    @property
    def compilable(self) -> bool:
        """Whether the compiled form computes it."""
        alike = len({(chain.denoiser.hidden, chain.remember) for chain in self.chains}) == 1
        return alike and all(chain.compilable for chain in self.chains)

    def to(self, dtype: torch.dtype) -> GatedChain:
        """The same chains, computed in another precision."""
        return GatedChain(tuple(chain.to(dtype) for chain in self.chains))
