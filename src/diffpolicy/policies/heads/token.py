"""`TokenHead`: x_0 is the action itself, a token in each slot, where a process of tokens gives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from diffpolicy.policies.heads.multi_categorical import MultiCategoricalHead
from diffpolicy.policies.heads.slots import SlotsHead, counts_of, none_of, of_one_hots, one_hots
from diffpolicy.policies.keys import Action
from diffpolicy.policies.masks import NO_CHOICE
from diffpolicy.policies.registry import part_with


@dataclass(frozen=True)
class TokenHead(SlotsHead):
    """The end of a chain of tokens is the action: of K slots one of n_k choices each, int64 `[.., K]`.

    What the chain draws is all that is drawn; the law of the action has no closed form, and a recorded chain is
    evaluated step by step (`Sampler.log_prob`).

    Args:
        nvec: n_1, ..., n_K; a policy sets it from its action's spec. single: whether the action is one choice, without
            a dimension of its own. one_hot: whether it is written as a one-hot vector.

    Example:
        >>> TokenHead(nvec=(3, 2)).encode(torch.tensor([2, 0]))
        tensor([2, 0])
    """

    kinds: ClassVar[tuple[str, ...]] = ("categorical", "one-hot", "multi-categorical", "multi-one-hot")
    x0_is: ClassVar[Literal["parameters", "action"]] = "action"
    tokens: ClassVar[bool] = True
    nvec: tuple[int, ...] = ()
    single: bool = False
    one_hot: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "nvec", counts_of(self.nvec, "TokenHead.nvec"))

    def sized(self, action: Action) -> TokenHead:
        self._check_kind(action)
        single = action.kind in ("categorical", "one-hot")
        return part_with(self, nvec=action.nvec, single=single, one_hot=action.kind.endswith("one-hot"))

    @property
    def event(self) -> tuple[int, ...]:
        return (sum(self.nvec),) if self.one_hot else () if self.single else (len(self.nvec),)

    def allows(self, mask: Tensor) -> Tensor:
        some: Tensor = mask.unflatten(-1, (len(self.nvec), -1)).any(-1).all(-1)
        return some

    def refuse(self, action: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None or self.one_hot:
            return action
        some = mask.unflatten(-1, (len(self.nvec), -1)).any(-1)
        return action.masked_fill(~(some.squeeze(-1) if self.single else some), NO_CHOICE)

    def impossible(self, action: Tensor, mask: Tensor | None = None) -> Tensor:
        return none_of(action.unsqueeze(-1) if self.event == () else action, self.nvec, one_hot=self.one_hot)

    def sample(self, law: Tensor, draws: Tensor | None) -> Tensor:
        return self.mode(law)

    def mode(self, law: Tensor) -> Tensor:
        """The action that tokens are. Args: law: the tokens, `[.., K]`."""
        if self.one_hot:
            return one_hots(law, self.nvec)
        return law.squeeze(-1) if self.single else law

    def encode(self, action: Tensor) -> Tensor:
        if self.one_hot:
            return of_one_hots(action, self.nvec)
        return action.long().unsqueeze(-1) if self.single else action.long()

    def uniform(self, rows: torch.Size, mask: Tensor | None, generator: torch.Generator) -> Tensor:
        slots = MultiCategoricalHead(nvec=self.nvec)
        return self.mode(slots.uniform(rows, mask, generator))

    def features(self, action: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(self.encode(action).clamp_min(0), self.most).flatten(-2).float()

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "nvec": list(self.nvec)}
