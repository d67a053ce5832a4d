"""What losses read of rows, checked: which keys there must be, masks as bool of the rows' shape, and what is over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.objectives.common import LossModule

from diffpolicy.errors import InputError
from diffpolicy.objectives.protocols import ChecksRows
from diffpolicy.policies.heads import Head
from diffpolicy.policies.masks import as_mask, readable
from diffpolicy.policies.nested_keys import next_key
from diffpolicy.policies.policy import Policy


def check_given(td: TensorDictBase, keys: Iterable[NestedKey]) -> None:
    """Refuses rows or transitions that lack a key.

    Args:
        td: of any batch. keys: that there must be.

    Raises:
        InputError: names all that lack.
    """
    missing = [key for key in keys if td.get(key, None) is None]
    if missing:
        raise InputError(f"the transitions do not give {', '.join(map(repr, missing))}, which the objective reads")


def check_trainable(objective: Any, td: TensorDictBase) -> None:
    """Refuses rows on which an objective cannot be trained: by its own `check_rows`, or else by its `in_keys`.

    Args:
        objective: any. td: rows, or transitions that are to become rows.

    Raises:
        InputError: the rows lack what it reads, or do not fit it.
    """
    if isinstance(objective, ChecksRows):
        objective.check_rows(td)
    elif _lists_keys(objective):
        check_given(td, objective.in_keys)


def _lists_keys(objective: Any) -> bool:
    """Whether its author listed `in_keys`; those of a loss of TorchRL name what TorchRL's own rows hold."""
    for kind in type(objective).__mro__:
        if kind.__module__.partition(".")[0] == "torchrl":
            return kind is LossModule and hasattr(objective, "in_keys")  # set by the author's constructor
        if "in_keys" in vars(kind):
            return True
    return False


def check_rows(td: TensorDictBase, keys: Iterable[NestedKey], observation: NestedKey, policy: Policy) -> None:
    """Refuses rows or transitions that lack a key, or whose observations are not those of the policy.

    Args:
        td: of any batch. keys: that there must be. observation: which of them is observed, `[*batch, F]`.

    Raises:
        InputError: names the key, and the shape if it is another one.
    """
    check_given(td, keys)
    for key in (observation, next_key(observation)):
        shape = wide(td, key).shape
        if shape[-1] != policy.observation_dim or (td.batch_dims and shape[:-1] != td.batch_size):
            wanted = f"[{', '.join(map(str, [*(td.batch_size or ['rows']), policy.observation_dim]))}]"
            raise InputError(f"the transitions' {key!r} must have shape {wanted}, got {list(td[key].shape)}")


def wide(td: TensorDictBase, key: NestedKey) -> Tensor:
    """Observations of rows, `[*batch, F]`; one number a row is a width of 1."""
    observation: Tensor = td[key]
    return observation.unsqueeze(-1) if observation.ndim == td.batch_dims > 0 else observation


def check_possible(head: Head, action: Tensor, allowed: Tensor | None = None) -> None:
    """Refuses actions to imitate that a head never decides, where they can be looked at.

    Args:
        head: of who imitates. action: `[.., M, *event]`. allowed: the mask as the head reads it, bool `[.., M, W]`.

    Raises:
        InputError: names the first such action and its row.
    """
    if not readable(action):
        return
    bad = head.impossible(action, allowed)
    if bool(bad.any()):
        at = tuple(bad.nonzero()[0].tolist())
        masked = not bool(head.impossible(action)[at])
        why = "whose shares the mask forbids" if masked else "which is no choice of the policy"
        raise InputError(f"the action to imitate at {list(at)} is {action[at].tolist()}, {why}")


def row_masks(
    td: TensorDictBase, key: NestedKey, policy: Policy, rows: torch.Size
) -> tuple[Tensor | None, Tensor | None]:
    """Allowed choices of rows and of their successors, bool `[.., M, W]`; None where there is no mask.

    Args:
        td: rows. key: of the mask. policy: whose head reads it. rows: `[.., M]`.

    Raises:
        InputError: a mask is of another shape.
    """
    masks = [td.get(name, None) for name in (key, next_key(key))]
    for name, mask in zip((key, next_key(key)), masks, strict=True):
        if mask is not None and mask.shape != (*rows, policy.head.mask_width):
            wanted = [*rows, policy.head.mask_width]
            raise InputError(f"the mask {name!r} of the rows must have shape {wanted}, got {list(mask.shape)}")
    now, after = (None if mask is None else policy.head.read_mask(as_mask(mask, key)) for mask in masks)
    return now, after


def nothing_follows(td: TensorDictBase, terminated: NestedKey, rows: torch.Size) -> Tensor | None:
    """After which rows nothing comes that could be worth anything, bool `[.., M]`; None where no row tells.

    That is after a terminal state, and where an item decides alone and is there no more: what is observed of one that
    does not exist means nothing, so neither does a value of it.

    Args:
        td: rows with `next`. terminated: key of the flag below `next`. rows: `[.., M]`.
    """
    nxt = td["next"]
    flags: list[Tensor] = []
    if nxt.get(terminated, None) is not None:
        flags.append(nxt[terminated].view(rows).bool())
    if nxt.get("valid", None) is not None:
        flags.append(~nxt["valid"].view(rows).bool())
    return None if not flags else flags[0] if len(flags) == 1 else flags[0] | flags[1]
