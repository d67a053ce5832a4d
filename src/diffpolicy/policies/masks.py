"""Which choices are allowed: masks as environments give them, and what they do to logits and to choices."""

from __future__ import annotations

import torch
from tensordict.utils import NestedKey
from torch import Tensor

from diffpolicy.errors import InputError

MASKED = -1e9
"""Logit of a choice that is not allowed; finite, so that entropies and gradients stay so. See `masked_value`."""
NO_CHOICE = -1
"""What is chosen where nothing is allowed and nobody can be told so: compiled, vmapped, exported or on a GPU."""


def masked_value(dtype: torch.dtype) -> float:
    """`MASKED`, or in a narrower type half of the least number, so that a difference from it is finite too."""
    return max(MASKED, torch.finfo(dtype).min / 2)


def readable(x: Tensor) -> bool:
    """Whether a tensor's values may decide what is raised: not while it is traced or vmapped, nor off the CPU."""
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(x)


def as_mask(mask: Tensor, key: NestedKey) -> Tensor:
    """A mask as bool. Args: mask: bool, or 0 and 1 of any type, as Gymnasium gives them in int8. key: names it.

    Raises:
        InputError: it holds another number.
    """
    if mask.dtype == torch.bool:
        return mask
    allowed = mask != 0
    if readable(mask) and not bool((mask == allowed).all()):
        other = mask[mask != allowed].flatten()[0].item()
        raise InputError(f"the mask {key!r} must hold 0 or 1, allowed, got {other}")
    return allowed


def mask_logits(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Logits with those of forbidden choices at `masked_value`.

    Args:
        logits: `[*, A]`. mask: allowed choices, bool or 0 and 1, its leading shape broadcastable to that of logits.

    Raises:
        InputError: the mask is of another number of choices.
    """
    if mask is None:
        return logits
    if mask.shape[-1] != logits.shape[-1]:
        raise InputError(f"a mask of {logits.shape[-1]} choices is needed, got shape {list(mask.shape)}")
    allowed = mask.to(torch.bool)
    if readable(allowed) and bool(allowed.all()):  # as it mostly is, and looking costs a twentieth of filling
        return logits
    return logits.masked_fill(~allowed, masked_value(logits.dtype))


def mark_no_choice(choice: Tensor, mask: Tensor | None) -> Tensor:
    """Choices with `NO_CHOICE` where none is allowed. Args: choice: `[*]`. mask: allowed, `[*, A]`, or None."""
    return choice if mask is None else choice.masked_fill(~mask.to(torch.bool).any(-1), NO_CHOICE)


def aligned_mask(mask: Tensor, key: NestedKey, shape: torch.Size, choices: int) -> Tensor:
    """A mask of items, bool, that broadcasts to `[*shape, A]`.

    Args:
        mask: `[*, A]`, its leading shape that of the items or the first part of it: all items beyond it are alike.
        key: names it. shape: of the items. choices: A.

    Raises:
        InputError: it is of another shape.
    """
    lead = mask.shape[:-1]
    if not mask.ndim or mask.shape[-1] != choices or lead != shape[: len(lead)]:
        raise InputError(f"the mask {key!r} must have shape {[*shape, choices]}, got {list(mask.shape)}")
    alike = [1] * (len(shape) - len(lead))
    return as_mask(mask, key).view(*lead, *alike, choices)
