"""`total`: a sum that is the same number in every version of Python."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable
from typing import TypeVar, cast

Number = TypeVar("Number")


def total(values: Iterable[Number]) -> Number:
    """Numbers added from left to right, each sum rounded, as compiled code does it; 0 of none.

    From Python 3.12 on `sum` makes up for the rounding of floats, and gives other bits than before.

    Example:
        >>> total([2.0**53, 1.0, 1.0]) - 2.0**53
        0.0
    """
    return functools.reduce(operator.add, values, cast(Number, 0))
