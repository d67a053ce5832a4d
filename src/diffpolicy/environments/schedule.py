"""`Schedule`: where and when the items of a step are done, for pictures of an episode."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffpolicy._types import Floats, Ints


@dataclass(frozen=True)
class Schedule:
    """Where and when each item of a lane's step is done, one after the other at each place.

    Args:
        place: at which each is done, from 0, `[K]`.
        arrives: when it comes there, since the episode began, `[K]`. begins: when it is taken up, `[K]`.
        ends: when it is done, `[K]`.

    Example:
        >>> import numpy as np
        >>> one = Schedule.in_turn(np.array([0, 0, 1]), np.zeros(3), np.array([2.0, 5.0, 1.0]), {0: 1.5})
        >>> one.begins.tolist()  # the first place was busy before
        [1.5, 2.0, 0.0]
    """

    place: Ints
    arrives: Floats
    begins: Floats
    ends: Floats

    @classmethod
    def in_turn(cls, place: Ints, arrives: Floats, ends: Floats, free: dict[int, float]) -> Schedule:
        """Of places that do one item at a time, first come, first served.

        Args:
            place, arrives, ends: `[K]`, in order of arrival.
            free: when each place has done what came before; brought up to date for the next step.
        """
        begins = np.array(arrives, dtype=np.float64)
        for k, at in enumerate(place.tolist()):
            begins[k] = min(max(begins[k], free.get(at, 0.0)), ends[k])
            free[at] = float(ends[k])
        return cls(place, arrives, begins, ends)
