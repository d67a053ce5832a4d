"""`MultiCategoricalHead`: x_0 holds the logits of several choices, made at once and independent of each other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from diffpolicy.errors import InputError
from diffpolicy.networks.layout import greatest
from diffpolicy.policies.heads.categorical import inverted
from diffpolicy.policies.heads.head import MOST_JOINT, combined, draw_of
from diffpolicy.policies.heads.slots import SlotsHead, counts_of, none_of, of_one_hots, one_hots
from diffpolicy.policies.keys import Action
from diffpolicy.policies.masks import NO_CHOICE, mark_no_choice, mask_logits
from diffpolicy.policies.registry import part_with


@dataclass(frozen=True)
class MultiCategoricalHead(SlotsHead):
    """K choices, of n_1, ..., n_K; x_0 holds a row of max n logits for each, in which those beyond n_k are forbidden.

    A mask does not hold these: an environment's `action_mask` is `[batch, n_1 + ... + n_K]`, the slots' choices one
    after another, as in TorchRL.

    Given x_0 the choices are independent; what binds them is the chain that x_0 comes from.

    Args:
        draw: `sample` from the softmax of each, or take the `argmax`.
        nvec: n_1, ..., n_K; a policy sets it from its action's spec.
        one_hot: whether the action is written as one-hot vectors side by side; likewise.

    Raises:
        InputError: `draw` is another word, or there are too many joint choices to be enumerated.

    Example:
        >>> head = MultiCategoricalHead(nvec=(3, 2))
        >>> head.width, head.event, head.joint
        (6, (2,), 6)
    """

    kinds: ClassVar[tuple[str, ...]] = ("multi-categorical", "multi-one-hot")
    expectation: ClassVar[Literal["enumerated", "pathwise", "sampled"]] = "enumerated"
    draw: Literal["sample", "argmax"] = "sample"
    nvec: tuple[int, ...] = ()
    one_hot: bool = False

    def __post_init__(self) -> None:
        draw_of(self.draw, "MultiCategoricalHead")
        object.__setattr__(self, "nvec", counts_of(self.nvec, "MultiCategoricalHead.nvec"))

    def sized(self, action: Action) -> MultiCategoricalHead:
        self._check_kind(action)
        return part_with(self, nvec=action.nvec, one_hot=action.kind == "multi-one-hot")

    @property
    def event(self) -> tuple[int, ...]:
        return (sum(self.nvec),) if self.one_hot else (len(self.nvec),)

    def allows(self, mask: Tensor) -> Tensor:
        return self._slots(mask).any(-1).all(-1)

    def refuse(self, action: Tensor, mask: Tensor | None) -> Tensor:
        return action if mask is None or self.one_hot else mark_no_choice(action, self._slots(mask))

    def impossible(self, action: Tensor, mask: Tensor | None = None) -> Tensor:
        return none_of(action, self.nvec, one_hot=self.one_hot)

    def probabilities(self, x0: Tensor) -> Tensor:
        return self._slots(self.law(x0)).softmax(-1).flatten(-2)

    @property
    def draw_input(self) -> tuple[str, tuple[int, ...]] | None:
        return None if self.draw == "argmax" else ("uniform", (len(self.nvec),))

    def _slots(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], len(self.nvec), self.most)

    def _of_slots(self, x: Tensor) -> list[Tensor]:
        """What is of each slot's own choices, `[.., n_k]`. Args: x: `[.., K, max n]`."""
        return [part[..., :n] for n, part in zip(self.nvec, x.unbind(-2), strict=True)]

    def law(self, x0: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits, those of forbidden choices and of the padding at the least that keeps entropies finite."""
        real = torch.arange(self.most, device=x0.device) < torch.tensor(self.nvec, device=x0.device).unsqueeze(-1)
        allowed = real.flatten() if mask is None else mask & real.flatten()
        return mask_logits(x0, allowed)

    def draws(self, rows: torch.Size, generator: torch.Generator) -> Tensor | None:
        if self.draw == "argmax":
            return None
        return torch.rand(*rows, len(self.nvec), generator=generator, device=generator.device)

    def sample(self, law: Tensor, draws: Tensor | None) -> Tensor:
        if self.draw == "argmax" or draws is None:
            return self.mode(law)
        return self.written(inverted(self._slots(law), draws))

    def mode(self, law: Tensor) -> Tensor:
        return self.written(greatest(self._slots(law)))

    def written(self, choice: Tensor) -> Tensor:
        """Choices as the environment takes them, `[.., *event]`. Args: choice: int64 `[.., K]`."""
        return one_hots(choice, self.nvec) if self.one_hot else choice

    def choices(self, action: Tensor) -> Tensor:
        """What was chosen in each slot, int64 `[.., K]`. Args: action: `[.., *event]`."""
        return of_one_hots(action, self.nvec) if self.one_hot else action.long()

    def log_prob(self, law: Tensor, action: Tensor) -> Tensor:
        return self._slots(law).log_softmax(-1).gather(-1, self.choices(action).unsqueeze(-1)).squeeze(-1).sum(-1)

    def uniform(self, rows: torch.Size, mask: Tensor | None, generator: torch.Generator) -> Tensor:
        draws = torch.rand(*rows, len(self.nvec), generator=generator, device=generator.device)
        alike = self._slots(self.law(torch.zeros(*rows, self.width, device=draws.device), mask))
        return self.written(inverted(alike, draws))

    def features(self, action: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(self.choices(action).clamp_min(0), self.most).flatten(-2).float()

    def entropy(self, law: Tensor) -> Tensor:
        log_p = self._slots(law).log_softmax(-1)
        return -(log_p.exp() * log_p).sum((-2, -1))

    @property
    def joint(self) -> int:
        count = math.prod(self.nvec)
        if count > MOST_JOINT:
            raise InputError(f"{count} joint choices of {list(self.nvec)} are more than the {MOST_JOINT} enumerated")
        return count

    def joint_log_prob(self, law: Tensor) -> Tensor:
        """Sums over all combinations, the last choice running fastest."""
        return combined(self._of_slots(self._slots(law).log_softmax(-1)), torch.add)

    def joint_mask(self, mask: Tensor) -> Tensor:
        return combined(self._of_slots(self._slots(mask)), torch.logical_and)

    def joint_index(self, action: Tensor) -> Tensor:
        index = torch.zeros(action.shape[:-1], dtype=torch.int64, device=action.device)
        choices = self.choices(action)
        for n, choice in zip(self.nvec, choices.unbind(-1), strict=True):
            index = index * n + choice
        return index.masked_fill((choices < 0).any(-1), NO_CHOICE)  # else it were the number of another joint choice

    def to_dict(self) -> dict[str, Any]:
        form = super().to_dict()
        if not form["one_hot"]:
            del form["one_hot"]  # as earlier files have it
        return form
