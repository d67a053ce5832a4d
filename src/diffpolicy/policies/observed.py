"""`Observed`: what a policy reads of an environment, key by key, and which keys these are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.data import Categorical, MultiCategorical, NonTensor, TensorSpec
from torchrl.envs import EnvBase

from diffpolicy.errors import InputError
from diffpolicy.policies.nested_keys import group_of, last_of
from diffpolicy.policies.protocols import bare

WRITTEN = ("action_log_prob", "chain", "draws", "latent", "start")
"""What policies write, or are told, beside the action."""


@dataclass(frozen=True)
class Observed:
    """One observation key.

    Args:
        key: of it. shape: of one item's value. values: n of an integer below n, or None.
        shared: whether all items of an agent see the same value, which has no dimension for them.
    """

    key: NestedKey
    shape: tuple[int, ...]
    values: int | None = None
    shared: bool = False

    @property
    def width(self) -> int:
        """Features that it gives: an integer below n gives n, one of them 1, as its size means nothing."""
        return self.values if self.values is not None else math.prod(self.shape)

    def features(self, value: Tensor, lead: torch.Size, dtype: torch.dtype) -> Tensor:
        """As networks read it, `[*lead, width]`. Args: value: `[*lead, *shape]`; lead: the items' shape."""
        if value.shape[len(lead) :] != self.shape:
            raise InputError(
                f"observation {self.key!r} has shape {list(value.shape)}, and {[*lead, *self.shape]} is expected"
            )
        if self.values is not None:
            return counted(value, self.values, self.key).to(dtype).view(*lead, -1)
        return value.reshape(*lead, self.width).to(dtype)


def counted(value: Tensor, n: int, key: NestedKey) -> Tensor:
    """Whole numbers below n as n numbers, of which one is 1, `[*, n]`. Args: value: `[*]`. key: names them.

    Raises:
        InputError: one is not below n, seen on the CPU.
    """
    try:
        return torch.nn.functional.one_hot(value.long(), n)
    except RuntimeError:
        low, high = value.aminmax()
        worst = int(low if low < 0 else high)
        raise InputError(
            f"observation {key!r} holds {worst}, and its spec says whole numbers from 0 to {n - 1}"
        ) from None


def seen(
    env: EnvBase, beside: dict[str, Any], actions: Sequence[NestedKey], shown: Mapping[Any, TensorSpec]
) -> list[NestedKey]:
    """What is observed unless a user says. Args: beside: the action, by last name. shown: all specs, of dicts too."""
    whole, masks = _whole(env), _masks(actions)
    if "observation" in beside and not whole:
        return [beside["observation"]]
    others = [k for name, k in beside.items() if name not in masks and name != "valid"]
    if not group_of(actions[0]) and (whole or not others):
        others += [
            k
            for k, spec in shown.items()
            if group_of(k) and last_of(k) not in masks and (whole or not isinstance(spec, NonTensor))
        ]
    if not others:
        raise InputError(
            f"no observation stands beside the action {actions[0]!r}, as 'observation' or under names of its own; the "
            f"environment shows {sorted(map(str, shown))}"
        )
    return sorted(others, key=str)


def check_masks(env: EnvBase, actions: Sequence[NestedKey], shown: Mapping[Any, TensorSpec]) -> None:
    """Refuses a mask within the dicts of a Gymnasium environment, where none is looked for, unless one is at the top.

    Args: of `seen`.
    """
    masks = [k for k in shown if last_of(k) in _masks(actions)]
    inner = [k for k in masks if group_of(k)]
    if inner and len(inner) == len(masks) and _whole(env):
        raise InputError(
            f"the mask {inner[0]!r} lies within a Dict, where it would mask nothing; give it at the top of what is "
            f"observed, as {last_of(inner[0])!r}, or pass mask_key"
        )


def _whole(env: EnvBase) -> bool:
    """Whether an environment tells that all parts of what it shows are observed, as `observed_whole` makes it do."""
    # by its own attributes, since `SerialEnv` passes on those that are not its own
    return bool(vars(bare(env)).get("observed_whole", False))


def _masks(actions: Sequence[NestedKey]) -> set[str]:
    """The last names of masks of actions."""
    return {"action_mask", *(f"{last_of(key)}_mask" for key in actions)}


def check_free(key: NestedKey, actions: Sequence[NestedKey], group: Sequence[str]) -> None:
    """Refuses to observe what acting overwrites before it is learned from. Args: key: of an observation."""
    written = key in actions or (group_of(key) == tuple(group) and last_of(key) in WRITTEN)
    if written or key == "next" or group_of(key)[:1] == ("next",):
        raise InputError(
            f"the observation {key!r} has a key that acting writes too, so that what was observed would be lost; give "
            f"it another name, such as 'shown_{last_of(key)}'"
        )


def observed_of(key: NestedKey, shown: dict[Any, TensorSpec], lead: int, items: tuple[int, ...]) -> Observed:
    """An observation, whose shape is what follows batch, agents and, where it has a value for each, items.

    Args: key: of it. shown: all observations. lead: dimensions of batch and agents. items: shape of them.
    """
    if key not in shown:
        raise InputError(f"the environment has no observation {key!r}; it has {sorted(map(str, shown))}")
    spec = shown[key]
    if isinstance(spec, NonTensor):
        raise InputError(
            f"the observation {key!r} is no tensor, and policies read numbers; give it as numbers, or not at all"
        )
    after = tuple(spec.shape[lead:])
    each = after[: len(items)] == items
    shape = after[len(items) :] if each else after
    integer = isinstance(spec, Categorical) and not isinstance(spec, MultiCategorical) and shape in ((), (1,))
    return Observed(key, shape, int(spec.space.n) if integer else None, shared=not each)
