"""`CategoricalHead`: x_0 holds the logits of A choices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from diffpolicy.networks.layout import greatest, log_softmax, softmax
from diffpolicy.policies.heads.head import Head, draw_of
from diffpolicy.policies.keys import Action
from diffpolicy.policies.masks import mark_no_choice, mask_logits
from diffpolicy.policies.registry import part_with


def inverted(logits: Tensor, uniform: Tensor) -> Tensor:
    """Choices, int64 `[..]`, by inverting the running sum of softmax at a uniform number.

    Args:
        logits: `[.., A]`. uniform: U[0, 1), `[..]`.
    """
    # a narrow type would round the uniform number to 1 and the sum past the last choice
    total = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1).cumsum(-1)
    # a hair below the whole, so that rounding never reaches past the last choice with a chance
    return (total <= uniform.to(total).unsqueeze(-1) * (total[..., -1:] * (1 - 1e-6))).sum(-1)


@dataclass(frozen=True)
class CategoricalHead(Head):
    """Decides one of A choices, whose logits x_0 holds.

    Args:
        draw: `sample` from their softmax, or take the `argmax`. Where an observation is stale and agents act at once,
            sampling spreads them; it is therefore part of the policy and does not change between training and
            evaluation.
        choices: A; a policy sets it from its action's spec.
        one_hot: whether the action is written as a one-hot vector; likewise.

    Example:
        >>> CategoricalHead("argmax", choices=3).mode(torch.tensor([0.1, 2.0, -1.0]))
        tensor(1)
    """

    kinds: ClassVar[tuple[str, ...]] = ("categorical", "one-hot")
    expectation: ClassVar[Literal["enumerated", "pathwise", "sampled"]] = "enumerated"
    draw: Literal["sample", "argmax"] = "sample"
    choices: int = 0
    one_hot: bool = False

    def __post_init__(self) -> None:
        draw_of(self.draw, "CategoricalHead")

    def sized(self, action: Action) -> CategoricalHead:
        self._check_kind(action)
        return part_with(self, choices=action.nvec[0], one_hot=action.kind == "one-hot")

    @property
    def width(self) -> int:
        return self.choices

    @property
    def event(self) -> tuple[int, ...]:
        return (self.choices,) if self.one_hot else ()

    @property
    def written_as(self) -> torch.dtype:
        return torch.bool if self.one_hot else torch.int64

    @property
    def mask_width(self) -> int:
        return self.choices

    def refuse(self, action: Tensor, mask: Tensor | None) -> Tensor:
        return action if self.one_hot else mark_no_choice(action, mask)

    def impossible(self, action: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.one_hot:
            return action.long().sum(-1) != 1
        return (action < 0) | (action >= self.choices)

    def probabilities(self, x0: Tensor) -> Tensor:
        return softmax(x0)

    @property
    def draw_input(self) -> tuple[str, tuple[int, ...]] | None:
        return None if self.draw == "argmax" else ("uniform", ())

    def law(self, x0: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits, those of forbidden choices at the least that keeps entropies finite."""
        return mask_logits(x0, mask)

    def draws(self, rows: torch.Size, generator: torch.Generator) -> Tensor | None:
        if self.draw == "argmax":
            return None
        return torch.rand(rows, generator=generator, device=generator.device)

    def sample(self, law: Tensor, draws: Tensor | None) -> Tensor:
        return self.written(greatest(law) if self.draw == "argmax" or draws is None else inverted(law, draws))

    def mode(self, law: Tensor) -> Tensor:
        return self.written(greatest(law))

    def log_prob(self, law: Tensor, action: Tensor) -> Tensor:
        return law.log_softmax(-1).gather(-1, self.joint_index(action).unsqueeze(-1)).squeeze(-1)

    def uniform(self, rows: torch.Size, mask: Tensor | None, generator: torch.Generator) -> Tensor:
        draws = torch.rand(rows, generator=generator, device=generator.device)
        return self.written(inverted(self.law(torch.zeros(*rows, self.choices, device=draws.device), mask), draws))

    @property
    def feature_width(self) -> int:
        return self.choices

    def features(self, action: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(self.joint_index(action).clamp_min(0), self.choices).float()

    def entropy(self, law: Tensor) -> Tensor:
        log_p = law.log_softmax(-1)
        return -(log_p.exp() * log_p).sum(-1)

    @property
    def joint(self) -> int:
        return self.choices

    def joint_log_prob(self, law: Tensor) -> Tensor:
        return log_softmax(law)

    def joint_mask(self, mask: Tensor) -> Tensor:
        return mask

    def joint_index(self, action: Tensor) -> Tensor:
        return action.long().argmax(-1) if self.one_hot else action.long()

    def written(self, choice: Tensor) -> Tensor:
        """Choices as the environment takes them, `[.., *event]`. Args: choice: int64 `[..]`."""
        return torch.nn.functional.one_hot(choice, self.choices).bool() if self.one_hot else choice

    def to_dict(self) -> dict[str, Any]:
        """JSON form, without A, which the policy's own tells."""
        if type(self) is not CategoricalHead:
            return super().to_dict()
        return {"draw": self.draw, **({"one_hot": True} if self.one_hot else {})}

    # As before heads were general

    def choose(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Choices, int64 `[*]`, of logits `[*, A]`."""
        return self.choose_at(logits, self.draws(logits.shape[:-1], generator))

    def choose_at(self, logits: Tensor, uniform: Tensor | None) -> Tensor:
        """Choices, int64 `[*]`; a sample inverts the running sum at `uniform`, U[0, 1) of shape `[*]`."""
        return greatest(logits) if self.draw == "argmax" or uniform is None else inverted(logits, uniform)
