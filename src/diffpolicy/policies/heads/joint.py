"""`JointHead`: one action of all items of a row, each of which a head of its own kind reads off its share of x_0."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from diffpolicy.errors import InputError
from diffpolicy.policies.heads.head import MOST_JOINT, Head, combined
from diffpolicy.policies.heads.slots import counts_of
from diffpolicy.policies.keys import Action
from diffpolicy.policies.masks import NO_CHOICE
from diffpolicy.policies.registry import part_form, part_of


@dataclass(frozen=True)
class JointHead(Head):
    """n items, decided together: x_0 is their shares side by side, and so are masks, draws and laws.

    Given x_0 the items are independent, so log-probabilities and entropies add up; what binds them is the chain that
    x_0 comes from. An item that does not exist is allowed its first choice alone, which has chance 1: it adds nothing.

    Args:
        each: the head of one item. items: their shape.

    Raises:
        InputError: there are too many joint choices where all of them are asked for.

    Example:
        >>> head = JointHead(CategoricalHead(choices=3), (4,))
        >>> head.width, head.event, head.joint
        (12, (4,), 81)
    """

    each: Head
    items: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.each, Mapping):  # as a file has it
            object.__setattr__(self, "each", part_of(self.each, Head, "head.each"))  # type: ignore[type-abstract]
        object.__setattr__(self, "items", counts_of(self.items, "JointHead.items"))

    @property
    def count(self) -> int:
        """How many items there are, n."""
        return math.prod(self.items)

    def sized(self, action: Action) -> JointHead:
        return JointHead(self.each.sized(replace(action, items=())), action.items)

    @property
    def x0_is(self) -> Literal["parameters", "action"]:  # type: ignore[override]
        """That of each item's head."""
        return self.each.x0_is

    @property
    def tokens(self) -> bool:  # type: ignore[override]
        """Whether each item's head reads them."""
        return self.each.tokens

    @property
    def expectation(self) -> Literal["enumerated", "pathwise", "sampled"]:  # type: ignore[override]
        """That of each item's head."""
        return self.each.expectation

    @property
    def width(self) -> int:
        return self.count * self.each.width

    @property
    def slots(self) -> int:
        return self.count * self.each.slots

    @property
    def event(self) -> tuple[int, ...]:
        return (*self.items, *self.each.event)

    @property
    def written_as(self) -> torch.dtype | None:
        return self.each.written_as

    @property
    def maskable(self) -> bool:
        return self.each.maskable

    @property
    def mask_width(self) -> int:
        return self.count * self.each.mask_width

    def _shares(self, x: Tensor) -> Tensor:
        """What lies side by side, an item each, `[.., n, W]`. Args: x: `[.., n W]`."""
        shares: Tensor = x.unflatten(-1, (self.count, -1))
        return shares

    def _actions(self, action: Tensor) -> Tensor:
        """An item each, `[.., n, *event]`. Args: action: `[.., *items, *event]`."""
        lead = action.shape[: action.ndim - len(self.event)]
        return action.reshape(*lead, self.count, *self.each.event)

    def _together(self, action: Tensor, lead: torch.Size) -> Tensor:
        return action.reshape(*lead, *self.event)

    def read_mask(self, mask: Tensor) -> Tensor:
        if mask.shape[-1] != self.mask_width:
            raise InputError(f"a mask of {self.mask_width} choices is needed, got shape {list(mask.shape)}")
        return self.each.read_mask(self._shares(mask)).flatten(-2)

    def first(self) -> Tensor:
        return self.each.first().repeat(self.count)

    def allows(self, mask: Tensor) -> Tensor:
        return self.each.allows(self._shares(mask)).all(-1)

    def refuse(self, action: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            return action
        return self._together(self.each.refuse(self._actions(action), self._shares(mask)), mask.shape[:-1])

    def impossible(self, action: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.each.impossible(self._actions(action), None if mask is None else self._shares(mask)).any(-1)

    def forbidden(self, action: Tensor, mask: Tensor) -> Tensor:
        return self.each.forbidden(self._actions(action), self._shares(mask)).any(-1)

    def beyond(self, action: Tensor, slack: float) -> Tensor:
        return self.each.beyond(self._actions(action), slack).any(-1)

    def law(self, x0: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.each.law(self._shares(x0), None if mask is None else self._shares(mask)).flatten(-2)

    def draws(self, rows: torch.Size, generator: torch.Generator) -> Tensor | None:
        return self.each.draws(torch.Size([*rows, self.count]), generator)

    @property
    def draw_input(self) -> tuple[str, tuple[int, ...]] | None:
        each = self.each.draw_input
        return None if each is None else (each[0], (self.count, *each[1]))

    def sample(self, law: Tensor, draws: Tensor | None) -> Tensor:
        return self._together(self.each.sample(self._shares(law), draws), law.shape[:-1])

    def mode(self, law: Tensor) -> Tensor:
        return self._together(self.each.mode(self._shares(law)), law.shape[:-1])

    def encode(self, action: Tensor) -> Tensor:
        return self.each.encode(self._actions(action)).flatten(-2)

    def uniform(self, rows: torch.Size, mask: Tensor | None, generator: torch.Generator) -> Tensor:
        each = self.each.uniform(
            torch.Size([*rows, self.count]), None if mask is None else self._shares(mask), generator
        )
        return self._together(each, rows)

    @property
    def feature_width(self) -> int:
        return self.count * self.each.feature_width

    def features(self, action: Tensor) -> Tensor:
        return self.each.features(self._actions(action)).flatten(-2)

    def log_prob(self, law: Tensor, action: Tensor) -> Tensor:
        return self.each.log_prob(self._shares(law), self._actions(action)).sum(-1)

    def entropy(self, law: Tensor) -> Tensor:
        return self.each.entropy(self._shares(law)).sum(-1)

    def spread(self, law: Tensor, draws: Tensor) -> Tensor:
        return self.each.spread(self._shares(law), draws.reshape(*law.shape[:-1], self.count, -1)).sum(-1)

    def remember(self, x0: Tensor) -> Tensor:
        return self.each.remember(self._shares(x0)).flatten(-2)

    def probabilities(self, x0: Tensor) -> Tensor:
        return self.each.probabilities(self._shares(x0)).flatten(-2)

    @property
    def joint(self) -> int:
        count: int = self.each.joint**self.count
        if count > MOST_JOINT:
            raise InputError(
                f"{count} joint choices of {self.count} items, {self.each.joint} each, are more than the {MOST_JOINT} "
                "enumerated"
            )
        return count

    def joint_log_prob(self, law: Tensor) -> Tensor:
        """Sums over all combinations, the last item running fastest."""
        return combined(self.each.joint_log_prob(self._shares(law)).unbind(-2), torch.add)

    def joint_mask(self, mask: Tensor) -> Tensor:
        return combined(self.each.joint_mask(self._shares(mask)).unbind(-2), torch.logical_and)

    def joint_index(self, action: Tensor) -> Tensor:
        index = self.each.joint_index(self._actions(action))
        place = self.each.joint ** torch.arange(self.count - 1, -1, -1, device=index.device)
        # one item without a choice would make it the number of another joint choice
        return (index * place).sum(-1).masked_fill((index < 0).any(-1), NO_CHOICE)

    def with_log_prob(self, law: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        action, log_prob = self.each.with_log_prob(self._shares(law), self._actions(draws))
        return self._together(action, law.shape[:-1]), log_prob.sum(-1)

    def freedom(self, law: Tensor) -> Tensor | float:
        return self._summed(self.each.freedom(self._shares(law)))

    def log_volume(self, law: Tensor) -> Tensor | float:
        return self._summed(self.each.log_volume(self._shares(law)))

    def _summed(self, each: Tensor | float) -> Tensor | float:
        """Over items. Args: each: `[.., n]`, or what each item has."""
        return each.sum(-1) if isinstance(each, Tensor) else self.count * each

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "JointHead", "each": part_form(self.each), "items": list(self.items)}
