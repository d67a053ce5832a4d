"""Rows of items that are decided together: what is observed of them side by side, and their masks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def joint_width(each: int, items: Sequence[int], flagged: bool) -> int:
    """Features of a row. Args: each: of one item. items: their shape. flagged: whether some may not exist."""
    return math.prod(items) * (each + flagged)


def joint_row(value: Tensor, valid: Tensor | None, items: Sequence[int]) -> Tensor:
    """Items side by side, `[*, n (F + 1)]`: zeros for those that do not exist, and a flag after each that does.

    Args:
        value: `[*, *items, F]`. valid: bool `[*, *items]`; None: all exist, and there are no flags.
        items: their shape, of n.
    """
    if valid is not None:
        flag = valid.unsqueeze(-1)
        value = torch.cat([torch.where(flag, value, 0), flag.to(value.dtype)], -1)
    return value.flatten(value.ndim - 1 - len(items))


def joint_mask(mask: Tensor | None, valid: Tensor | None, first: Tensor, items: Sequence[int]) -> Tensor:
    """Masks side by side, bool `[*, n A]`; an item that does not exist is allowed its first choice alone.

    Args:
        mask: bool, broadcastable to `[*, *items, A]`, or None. valid: bool `[*, *items]`; needed without a mask.
        first: the mask of the first choice, `[A]`. items: their shape, of n.
    """
    if mask is None:
        assert valid is not None
        mask = torch.ones_like(first)
    if valid is not None:
        mask = torch.where(valid.unsqueeze(-1), mask.to(valid.device), first.to(valid.device))
    lead = mask.shape[: mask.ndim - 1 - len(items)]
    return mask.expand(*lead, *items, mask.shape[-1]).flatten(len(lead))
