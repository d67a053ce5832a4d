"""Numbers that are none, observed or made of what is observed, told before anything decides by them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from diffpolicy.errors import InputError
from diffpolicy.policies.masks import readable


def refuse_unsure(found: Tensor, condition: Tensor, module: nn.Module, what: str) -> None:
    """Refuses numbers that are not finite, of which a choice would be made all the same; on the CPU only.

    Args:
        found: `[.., M, *]`. condition: what they were made of, `[.., M, C]`; rows that are not finite in it may be ones
            that do not exist. module: made them. what: they are.

    Raises:
        InputError: naming the row, and why.
    """
    if not readable(found) or math.isfinite(found.sum().item()):
        return
    lead = condition.shape[:-1]
    bad = ~found.isfinite().view(*lead, -1).all(-1) & condition.isfinite().all(-1)
    if bad.any():
        raise InputError(f"{what} is not finite at {bad.nonzero()[0].tolist()}: {why_infinite(module)}")


def why_infinite(module: nn.Module) -> str:
    """The reason for an output that is not finite: a parameter that is not, or what goes in."""
    wrong = [name for name, p in module.named_parameters() if not p.isfinite().all()]
    return f"its parameter {wrong[0]} is not finite" if wrong else "what it reads, or its guidance, is too large for it"


def refuse_infinite(td: TensorDictBase, keys: Sequence[NestedKey], valid_key: NestedKey) -> None:
    """Refuses an observation that is not finite, under which every choice would be the first one; on the CPU only.

    Args:
        td: what is observed. keys: that are read.
        valid_key: tells which items exist, bool; keys of the same group are looked at where one does.

    Raises:
        InputError: naming the key.
    """
    valid = td.get(valid_key, None)
    for key in keys:
        value = td.get(key, None)
        if value is None or not value.is_floating_point() or not readable(value):
            continue
        if math.isfinite(value.sum().item()):  # ten times as fast as a look at each
            continue
        bad = ~value.isfinite()
        if valid is not None and key[:-1] == valid_key[:-1]:
            bad = bad & valid.view(*valid.shape, *[1] * (value.ndim - valid.ndim))
        if bad.any():
            at = bad.nonzero()[0].tolist()
            raise InputError(f"the observation {key!r} holds {value[tuple(at)].item()} at {at}, which is not finite")
