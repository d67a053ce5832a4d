"""What the end of a chain means."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from diffpolicy.errors import InputError


@dataclass(frozen=True)
class CategoricalHead:
    """x_0 holds the logits of A choices.

    Args:
        draw: `sample` from their softmax, or take the `argmax`. Where an observation is stale and agents act at once,
            sampling spreads them; it is therefore part of the policy and does not change between training and
            evaluation.
    """

    draw: Literal["sample", "argmax"] = "sample"

    def __post_init__(self) -> None:
        if self.draw not in ("sample", "argmax"):
            raise InputError(f"CategoricalHead.draw must be sample or argmax, got {self.draw!r}")

    def choose(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Choices, int64 `[*]`, of logits `[*, A]`."""
        if self.draw == "argmax":
            return logits.argmax(-1)
        return self.choose_at(logits, torch.rand(logits.shape[:-1], generator=generator, device=generator.device))

    def choose_at(self, logits: Tensor, uniform: Tensor | None) -> Tensor:
        """Choices, int64 `[*]`; a sample inverts the running sum at `uniform`, U[0, 1) of shape `[*]`."""
        if self.draw == "argmax" or uniform is None:
            return logits.argmax(-1)
        # a narrow type would round the uniform number to 1 and the sum past the last choice
        total = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1).cumsum(-1)
        # a hair below the whole, so that rounding never reaches past the last choice with a chance
        return (total <= uniform.to(total).unsqueeze(-1) * (total[..., -1:] * (1 - 1e-6))).sum(-1)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)
