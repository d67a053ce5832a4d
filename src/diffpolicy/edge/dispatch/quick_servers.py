"""Servers of a quick play: who is done, what is free and when, and what begins. Arrays of numbers, changed in place."""

from __future__ import annotations

from typing import Any

import numpy as np

from diffpolicy._compile import compile  # noqa: A004


@compile
def next_s(coming_s: float, count: Any, end_s: Any) -> float:
    """When something happens next, s. Args: coming_s: the next arrival. count, end_s: as of `begin`."""
    now = coming_s
    for j in range(count.shape[0]):
        for p in range(count[j]):
            now = min(now, end_s[j, p])
    return now


@compile
def end(now: float, count: Any, end_s: Any, begun: Any, belief: Any) -> None:
    """Takes away what has ended. Args: as of `begin`."""
    for j in range(count.shape[0]):
        p = 0
        while p < count[j]:
            if end_s[j, p] <= now:
                last = count[j] - 1
                end_s[j, p], begun[j, p], belief[j, p] = end_s[j, last], begun[j, last], belief[j, last]
                count[j] = last
            else:
                p += 1


@compile
def look(now: float, seats: Any, count: Any, begun: Any, belief: Any, free: Any, starts: Any) -> bool:
    """Writes how many seats are free and in how many seconds one is, `[J]`; whether there is any.

    Args:
        now, count, begun, belief: as of `begin`. seats: `[J]`. free, starts: written.
    """
    some = False
    for j in range(seats.shape[0]):
        free[j] = seats[j] - count[j]
        some |= free[j] > 0
        starts[j] = 0.0
        if free[j] == 0:
            starts[j] = np.inf
            for p in range(count[j]):
                starts[j] = min(starts[j], max(begun[j, p] + belief[j, p] - now, 0.0))
    return some


@compile
def loading_s(i: int, j: int, model: Any, switch: Any, cold: Any, loaded: Any) -> float:
    """Seconds in which server j loads the model of request i, if it has another one."""
    if loaded[j] == model[i]:
        return 0.0
    return cold[j] if loaded[j] < 0 else switch[j]  # type: ignore[no-any-return]


@compile
def bind(a: int, waits: int, waiting: Any, passes: Any) -> int:
    """Takes the a-th of those that wait, whom the earlier ones let pass, and closes the gap.

    Args:
        a: place among the `waits` first of `waiting`. waiting: numbers of requests. passes: of each request.

    Returns:
        Its number.
    """
    i: int = waiting[a]
    for b in range(a):
        passes[waiting[b]] += 1
    for b in range(a, waits - 1):
        waiting[b] = waiting[b + 1]
    return i


@compile
def begin(
    now: float, service_s: float, load_s: float, j: int, count: Any, end_s: Any, begun: Any, belief: Any
) -> float:
    """Puts a request on a seat of server j; when it ends, s.

    Args:
        now: in s. service_s, load_s: what it takes, and its model before it. j: of the server. count: requests under
            way, `[J]`. end_s, begun, belief: of each, its end, its beginning and what it was believed to take, s
            `[J, P]`.
    """
    p = count[j]
    begun[j, p], belief[j, p] = now, service_s + load_s
    end_s[j, p] = now + service_s + load_s
    count[j] = p + 1
    return end_s[j, p]  # type: ignore[no-any-return]
