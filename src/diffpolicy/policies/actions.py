"""`Action`: what is decided, read off the spec of an action."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.data import Bounded, Categorical, MultiCategorical, MultiOneHot, OneHot, TensorSpec, Unbounded

from diffpolicy.errors import InputError

Kind = Literal["categorical", "one-hot", "multi-categorical", "multi-one-hot", "bounded", "unbounded"]


@dataclass(frozen=True)
class Action:
    """One action key. Args: key: of it. kind: of its spec. nvec: choices of each of its slots, or its dimensions.

    low, high: bounds of each dimension, where it is bounded. shape: of one item's action. items: shape of the items
    that are decided together, () where each is alone; `nvec`, `shape` and bounds stay those of one of them.
    """

    key: NestedKey
    kind: Kind
    nvec: tuple[int, ...]
    shape: tuple[int, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    items: tuple[int, ...] = ()

    @property
    def event(self) -> tuple[int, ...]:
        """Shape of one row's action."""
        return (*self.items, *self.shape)

    def first(self) -> Tensor:
        """The mask of an item that does not exist, its first choice alone, bool `[sum of nvec]`."""
        return torch.cat([torch.arange(n, device="cpu") == 0 for n in self.nvec])


def action_of(key: NestedKey, spec: TensorSpec, lead: int) -> tuple[Action, tuple[int, ...]]:
    """An action and the shape of its agents and items. Args: lead: dimensions of the batch."""
    after = tuple(spec.shape[lead:])
    if isinstance(spec, MultiCategorical):
        nvec = spec.nvec if spec.nvec.ndim == 1 else spec.nvec.reshape(-1, spec.nvec.shape[-1])[0]
        return Action(key, "multi-categorical", tuple(int(n) for n in nvec), after[-1:]), after[:-1]
    if isinstance(spec, Categorical):
        return Action(key, "categorical", (int(spec.space.n),), ()), after
    if isinstance(spec, MultiOneHot):
        return Action(key, "multi-one-hot", tuple(int(box.n) for box in spec.space), after[-1:]), after[:-1]
    if isinstance(spec, OneHot):
        return Action(key, "one-hot", (int(spec.space.n),), after[-1:]), after[:-1]
    if isinstance(spec, Bounded):
        if not after:
            raise InputError(f"action {key!r} must be a vector, got shape {list(spec.shape)}")
        low, high = (x.reshape(-1, after[-1])[0].tolist() for x in (spec.space.low, spec.space.high))
        if not all(math.isfinite(x) for x in (*low, *high)):
            raise InputError(f"action {key!r} must have finite bounds, got {low} and {high}")
        return Action(key, "bounded", after[-1:], after[-1:], tuple(low), tuple(high)), after[:-1]
    if isinstance(spec, Unbounded) and spec.dtype.is_floating_point and after:
        return Action(key, "unbounded", after[-1:], after[-1:]), after[:-1]
    raise InputError(
        f"action {key!r} is a {type(spec).__name__}, and what is decided must be categorical, one-hot, "
        "multi-categorical, multi-one-hot, bounded or a vector"
    )
