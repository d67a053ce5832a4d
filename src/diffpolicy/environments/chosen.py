"""Whether what was chosen is an action: in its spec's range, and allowed by the mask beside it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.data import Bounded, Categorical, MultiCategorical, MultiOneHot, OneHot, TensorSpec
from torchrl.envs import EnvBase

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.policies.masks import as_mask
from diffpolicy.policies.nested_keys import beside, plain

TOLERANCE = 1e-4
"""By what part of a bound, and of one, an action may pass it, as rounding makes it."""


class Choice(NamedTuple):
    """An action key, its spec, and the keys of its mask and of `valid` beside it, or None."""

    key: NestedKey
    spec: TensorSpec
    mask: NestedKey | None
    valid: NestedKey | None


def check_is_env(env: Any) -> None:
    """Raises InputError if what is given is no environment of TorchRL."""
    if not isinstance(env, EnvBase):
        raise InputError(f"env must be an environment of TorchRL, got {check.show(env)}")


def choices_of(env: EnvBase, *, masks: bool = True) -> list[Choice]:
    """The actions of an environment with what stands beside them.

    Args:
        env: a mask stands beside an action as its key with `_mask` at the end, or as `action_mask`.
        masks: whether they are asked; False: what a mask forbids may be chosen.

    Raises:
        InputError: it is no environment, or a mask has another width than the choices of all slots together.
    """
    check_is_env(env)
    names, found = set(env.observation_spec.keys(True, True)), []
    for key in env.action_keys:
        spec = env.full_action_spec[key]
        last = key[-1] if isinstance(key, tuple) else key
        own, common, valid = (beside(key, name) for name in (f"{last}_mask", "action_mask", "valid"))
        mask = own if own in names or len(list(env.action_keys)) > 1 else common
        choice = Choice(key, spec, *(name if name in names else None for name in (mask, valid)))
        if choice.mask is not None and isinstance(spec, (Categorical, MultiCategorical, OneHot)):
            _check_width(choice, env.observation_spec[choice.mask].shape)
        found.append(choice if masks else choice._replace(mask=None))
    return found


def _check_width(choice: Choice, shape: torch.Size) -> None:
    """Raises InputError where a mask has not an entry for each choice. Args: shape: of the mask."""
    counts = counts_of(choice.spec)
    if not shape or shape[-1] != sum(counts):
        told = " + ".join(map(str, counts))
        raise InputError(
            f"the mask {plain(choice.mask)!r} must have an entry for each choice of {plain(choice.key)!r}, "
            f"{told}{f' = {sum(counts)}' if len(counts) > 1 else ''} at its end, got shape {list(shape)}"
        )


def counts_of(spec: Any) -> list[int]:
    """The numbers of choices of an item's slots. Args: spec: of a discrete action."""
    if isinstance(spec, MultiCategorical):
        nvec: list[int] = spec.nvec.reshape(-1, spec.nvec.shape[-1])[0].tolist()
        return nvec
    if isinstance(spec, MultiOneHot):
        return [int(box.n) for box in spec.space]
    return [int(spec.space.n)]


def aligned(mask: Tensor, items: torch.Size) -> Tensor:
    """A mask of the first dimensions of the items, for all of them: `[*, n]` as broadcasts to `[*items, n]`.

    Args:
        mask: `[*, n]`. items: shape of these.
    """
    return mask.view([*mask.shape[:-1], *[1] * (len(items) + 1 - mask.ndim), mask.shape[-1]])


def check_chosen(
    td: TensorDictBase,
    choices: list[Choice],
    lead: torch.Size,
    who: str,
    going: Tensor | None = None,
    shown: TensorDictBase | None = None,
) -> None:
    """Whether the actions of a tensordict are in range and allowed.

    Items that do not exist, and those whose mask allows nothing, are left out: nothing right could be chosen there.

    Args:
        td: holds the actions and what they were chosen of. choices: of `choices_of`. lead: the environment's batch.
        who: chose. going: lanes that count, bool `[E]`; None: all. shown: what they were chosen of, where `td` may hold
            the actions alone.

    Raises:
        InputError: names the lane, the key and the value.
    """
    for choice in choices:
        value, spec = td.get(choice.key, None), choice.spec
        if value is None or value.shape != spec.shape:
            continue  # told elsewhere
        value = value.detach().cpu()
        if isinstance(spec, Bounded):
            _check_bounds(value, choice, lead, who, going)
        elif isinstance(spec, (Categorical, MultiCategorical, OneHot)):
            lacks = any(key is not None and td.get(key, None) is None for key in (choice.valid, choice.mask))
            _check_slots(value, choice, shown if lacks and shown is not None else td, lead, who, going)


def _check_bounds(value: Tensor, choice: Choice, lead: torch.Size, who: str, going: Tensor | None) -> None:
    low, high = (bound.cpu().expand(value.shape) for bound in (choice.spec.space.low, choice.spec.space.high))
    bad = (value < low - TOLERANCE * (1 + low.abs())) | (value > high + TOLERANCE * (1 + high.abs()))
    bad = _counted(bad, lead, going)
    if bad.any():
        at = tuple(bad.nonzero()[0].tolist())
        raise InputError(
            f"{plain(choice.key)!r} of {who} must be from {low[at].item():g} to {high[at].item():g}, got "
            f"{value[at].item():g} in lane {_lane(at, lead)}"
        )


def _check_slots(
    value: Tensor, choice: Choice, td: TensorDictBase, lead: torch.Size, who: str, going: Tensor | None
) -> None:
    """Each slot's number, of items `[*items]`, and the mask of it."""
    spec, counts, key = choice.spec, counts_of(choice.spec), plain(choice.key)
    hot = isinstance(spec, OneHot)
    slots = list(value.split(counts, -1)) if hot else [value]
    if isinstance(spec, MultiCategorical):
        slots = list(value.unbind(-1))
    items = value.shape[:-1] if hot or isinstance(spec, MultiCategorical) else value.shape
    exists = torch.ones(items, dtype=torch.bool)
    if choice.valid is not None:
        valid = td[choice.valid].cpu()
        if valid.shape != items[: valid.ndim]:
            return  # of what it tells, nothing is known
        exists = exists & valid.view([*valid.shape, *[1] * (len(items) - valid.ndim)])
    exists = _counted(exists, lead, going)
    mask = None if choice.mask is None else as_mask(td[choice.mask], choice.mask).cpu()
    if mask is not None and mask.shape[:-1] != items[: mask.ndim - 1]:
        return  # so it may not be known whether anything is allowed
    masks = [None] * len(counts) if mask is None else aligned(mask, items).split(counts, -1)
    for k, (slot, n, own) in enumerate(zip(slots, counts, masks, strict=True)):
        allowed = None if own is None else own.expand(*items, n)
        asked = exists if allowed is None else exists & allowed.any(-1)
        where = f" (slot {k})" if len(counts) > 1 else ""
        if hot:
            bad = asked & ((slot != 0).sum(-1) != 1)
            number = (slot != 0).long().argmax(-1)
        else:
            bad, number = asked & ((slot < 0) | (slot >= n)), slot.long()
        if bad.any():
            at = tuple(bad.nonzero()[0].tolist())
            wanted = f"one 1 of {n}" if hot else f"from 0 to {n - 1}"
            got = slot[at].long().tolist() if hot else slot[at].item()
            raise InputError(f"{key!r} of {who} must be {wanted}{where}, got {got} in lane {_lane(at, lead)}")
        if allowed is None:
            continue
        bad = asked & ~allowed.gather(-1, number.clamp(0, n - 1).unsqueeze(-1)).squeeze(-1)
        if bad.any():
            at = tuple(bad.nonzero()[0].tolist())
            raise InputError(
                f"{key!r} of {who} is {int(number[at])}{where} in lane {_lane(at, lead)}, which the mask "
                f"{plain(choice.mask)!r} forbids"
            )


def _counted(of: Tensor, lead: torch.Size, going: Tensor | None) -> Tensor:
    """What is true of lanes that count. Args: of: bool `[*lead, *]`."""
    return of if going is None else of & going.cpu().view([*lead, *[1] * (of.ndim - len(lead))])


def _lane(at: tuple[int, ...], lead: torch.Size) -> int:
    """A lane's number. Args: at: an index into `[*lead, *]`."""
    return sum(i * math.prod(lead[d + 1 :]) for d, i in enumerate(at[: len(lead)]))
