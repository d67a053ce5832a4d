"""`SetDenoiser`: one small network that all choices share, so that it runs on any number of them, in any order."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softsign

from diffpolicy.networks.dense import width_of


class SetDenoiser(nn.Module):
    """Predicts x_0 of every (item, choice) pair: `W2 softsign(Wx x + Wc c + b_i) + b`, with the same weights for all.

    It is equivariant: whoever permutes choices (or items) finds the outputs permuted alike. What a choice must know of
    the others (its rank, their mean) stands among its features c. Each of the I steps has a bias of its own.

    Args:
        latents: width K of x, of one pair.
        features: width F of c.
        steps: of the chain, I.
        hidden: width of the hidden layer.
        generator: draws the initial values.

    Example:
        >>> denoiser = SetDenoiser(latents=2, features=4, steps=5)
        >>> x, features, order = torch.randn(6, 2), torch.randn(6, 4), torch.randperm(6)
        >>> x0 = denoiser(x, 1, denoiser.prepare(features))
        >>> torch.allclose(denoiser(x[order], 1, denoiser.prepare(features[order])), x0[order], atol=1e-6)
        True
    """

    def __init__(
        self, latents: int, features: int, steps: int, *, hidden: int = 32, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.latents, self.features = width_of(latents, "latents"), width_of(features, "features")
        self.steps, self.hidden = width_of(steps, "steps"), width_of(hidden, "hidden")
        spread = 1 / math.sqrt(features + latents)
        self.of_condition = nn.Parameter(torch.randn(features, hidden, generator=generator) * spread)
        self.of_x = nn.Parameter(torch.randn(latents, hidden, generator=generator) * spread)
        self.of_step = nn.Parameter(torch.zeros(steps, hidden))
        self.out = nn.Parameter(torch.randn(hidden, latents, generator=generator) * 0.02)
        self.out_bias = nn.Parameter(torch.zeros(latents))

    def to_dict(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON holds them."""
        return {name: getattr(self, name) for name in ("latents", "features", "steps", "hidden")}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SetDenoiser:
        """The denoiser that `to_dict` described, with fresh parameters."""
        return cls(**data)

    def prepare(self, condition: Tensor) -> Tensor:
        """The share of the hidden layer that the chain does not change, `[*, H]`. Args: condition: `[*, F]`."""
        return condition @ self.of_condition

    def forward(self, x: Tensor, i: int, prepared: Tensor) -> Tensor:
        """Predicted x_0, `[*, K]`. Args: x: `[*, K]`. i: step, 1..I. prepared: of `prepare`, `[*, H]`."""
        return softsign(x @ self.of_x + (prepared + self.of_step[i - 1])) @ self.out + self.out_bias
