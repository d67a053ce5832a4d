"""`Action`: what is decided, read off the spec of an action."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.data import Binary, Bounded, Categorical, MultiCategorical, MultiOneHot, OneHot, TensorSpec, Unbounded

from diffpolicy.errors import InputError

Kind = Literal["categorical", "one-hot", "multi-categorical", "multi-one-hot", "bounded", "unbounded", "composite"]


@dataclass(frozen=True)
class Action:
    """One action key.

    Args:
        key: of it.
        kind: of its spec.
        nvec: choices of each of its slots, or its dimensions.
        shape: of one item's action.
        low, high: bounds of each dimension, where it is bounded.
        items: shape of the items that are decided together, () where each is alone; `nvec`, `shape` and bounds stay
            those of one of them.
        parts: of a composite action, what stands under each of its keys; its own key names all of them together.
        mask: of a part, the key of its mask, or None.
    """

    key: NestedKey
    kind: Kind
    nvec: tuple[int, ...]
    shape: tuple[int, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    items: tuple[int, ...] = ()
    parts: tuple[Action, ...] = ()
    mask: NestedKey | None = None

    @property
    def keys(self) -> tuple[NestedKey, ...]:
        """What the environment takes."""
        return tuple(part.key for part in self.parts) or (self.key,)

    @property
    def leading(self) -> Action:
        """The part that tells where items are; the action itself where it has no parts."""
        return self.parts[0] if self.parts else self

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
    if isinstance(spec, Binary) and after and after[-1] > 1:  # TorchRL's kind of Categorical, and so many items here
        raise InputError(
            f"action {key!r} is a Binary of shape {list(spec.shape)}: give MultiCategorical([2] * {after[-1]}, "
            f"shape={list(spec.shape)}) if these are one decision of {after[-1]} parts, or Categorical(2, "
            f"{list(spec.shape)}) if they are {after[-1]} items, each decided alone"
        )
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
        f"action {key!r} is a {type(spec).__name__}, and an action must be categorical, one-hot, "
        "multi-categorical, multi-one-hot, bounded or a vector"
    )


def composite_of(actions: Sequence[tuple[Action, tuple[int, ...]]], group: tuple[str, ...]) -> Action:
    """Several actions of the same items as one. Args: actions: of `action_of`. group: names above their keys.

    Raises:
        InputError: they are of items of different shapes.
    """
    (first, items), *others = actions
    for action, theirs in others:
        if theirs != items:
            raise InputError(
                f"actions {first.key!r} and {action.key!r} are of items of shape {list(items)} and {list(theirs)}, and "
                "one policy decides those of the same items; name the ones to decide by action_key"
            )
    return Action((*group, "action") if group else "action", "composite", (), (), parts=tuple(a for a, _ in actions))


def side_by_side(values: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> Tensor:
    """Actions of several keys as numbers, `[*, D]`, in the type of the first that has real ones.

    Args:
        values: of each key, `[*, *shape]`. shapes: of one item's action of each.
    """
    types = [value.dtype for value in values if value.is_floating_point()]
    dtype = types[0] if types else torch.get_default_dtype()
    lead = values[0].shape[: values[0].ndim - len(shapes[0])]
    return torch.cat(
        [value.reshape(*lead, math.prod(shape)).to(dtype) for value, shape in zip(values, shapes, strict=True)], -1
    )
