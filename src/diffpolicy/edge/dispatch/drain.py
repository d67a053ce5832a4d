"""`drain_s`: in how many seconds all servers together would do what waits."""

from __future__ import annotations

import numpy as np

from diffpolicy._types import Floats


def in_turn(values: Floats) -> Floats:
    """Sums along the last axis from left to right, as compiled code adds.

    NumPy's own sum adds eight or more by halves, so that its last bits are others.

    Args:
        values: `[..., n]`, n at least 1.

    Example:
        >>> in_turn(np.array([[1.0, 2.0, 4.0]])).tolist()
        [7.0]
    """
    result: Floats = np.add.accumulate(values, axis=-1)[..., -1]
    return result


def rates(service_s: Floats) -> Floats:
    """How many of each request all servers together do in a second, the sum over servers of 1 / service, `[W]`.

    Args:
        service_s: `[W, S]`; infinite where a server cannot run it.
    """
    with np.errstate(divide="ignore"):
        return in_turn(1.0 / service_s)


def drain_s(service_s: Floats) -> float:
    """Seconds in which all servers together do what waits: the sum of 1 / rate.

    Args:
        service_s: `[W, S]`, W at least 1.

    Example:
        >>> drain_s(np.array([[2.0, 2.0], [6.0, 3.0]]))
        3.0
    """
    with np.errstate(divide="ignore"):
        return float(in_turn(1.0 / rates(service_s)))
