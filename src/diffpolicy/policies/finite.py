"""Observations that are not numbers, told before a rule decides by them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tensordict import TensorDictBase
from tensordict.utils import NestedKey

from diffpolicy.errors import InputError
from diffpolicy.policies.masks import readable


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
