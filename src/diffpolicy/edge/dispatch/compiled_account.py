"""What a compiled simulation holds, and the account of its servers, for numba; the second form of `Account`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from diffpolicy._compile import compile  # noqa: A004


class Given(NamedTuple):
    """`Arrivals`. Args: whole: number of the request of each part. parts: of each request; it is used up."""

    arrival: Any
    service: Any
    expected: Any
    link: Any
    cost: Any
    model: Any
    deadline: Any
    weight: Any
    whole: Any
    parts: Any


class Setup(NamedTuple):
    """The servers. Args: rounding: of clocks, seconds. most: requests that may wait. fixed: none loads models."""

    seats: Any
    switch: Any
    cold: Any
    fixed: bool
    dead: float
    lead: float
    rounding: float
    most: int


class Rows(NamedTuple):
    """What comes out, `[K]` each; see `Outcome`."""

    server: Any
    passes: Any
    bound: Any
    start: Any
    finish: Any
    refused: Any
    dead: Any


class State(NamedTuple):
    """What is going on.

    Args:
        sent: numbers of what each server was sent and has not done, in that order, `[S, room]`; begun: when each began
            by the dispatcher's account, NaN if it has not. count: how many, `[S]`. owed: their declared cost, `[S]`.
        idle: when each seat has done all, `[S, most seats]`. loaded: models, `[S]`. waiting: numbers. since: `[K]`.
        free: `[S]`. starts: `[S]`. belief: seconds that each was expected to run, `[K]`. of: see `survey`, `[K, 3]`.
    """

    sent: Any
    begun: Any
    count: Any
    idle: Any
    loaded: Any
    waiting: Any
    since: Any
    free: Any
    starts: Any
    belief: Any
    of: Any


@compile
def remaining(s: State, j: int, place: int, now: float) -> float:
    """Seconds until a request at a server is expected to end."""
    left: float = s.begun[j, place] + s.belief[s.sent[j, place]] - now
    return max(left, 0.0)


@compile
def look(f: Setup, s: State, now: float) -> bool:
    """`Account.free` and `Account.starts_s`; whether any seat is free."""
    some = False
    ends = np.empty(f.seats.max())
    for j in range(f.seats.shape[0]):
        seats, count = f.seats[j], s.count[j]
        running, ending = min(seats, count), 0
        for place in range(running):
            ends[place] = remaining(s, j, place, now)
            ending += f.lead > 0.0 and ends[place] <= f.lead + f.rounding
        s.free[j] = max(seats - count + ending, 0)
        some |= s.free[j] > 0
        if count < seats:
            s.starts[j] = 0.0
            continue
        for place in range(seats, count):
            ends[np.argmin(ends[:seats])] += s.belief[s.sent[j, place]]
        s.starts[j] = ends[:seats].min()
    return some


@compile
def opening(f: Setup, s: State, now: float) -> float:
    """`Account.opens_s`."""
    soonest = np.inf
    if f.lead > 0.0:
        for j in range(f.seats.shape[0]):
            for place in range(min(f.seats[j], s.count[j])):
                left = remaining(s, j, place, now) - f.lead
                if f.rounding < left < soonest:
                    soonest = left
    return soonest


@compile
def load_s(g: Given, f: Setup, s: State, i: int, j: int) -> float:
    """Seconds in which a server loads the model of a request, if it has another one."""
    if s.loaded[j] == g.model[i]:
        return 0.0
    load: float = f.cold[j] if s.loaded[j] < 0 else f.switch[j]
    return load


@compile
def expected(g: Given, f: Setup, s: State, i: int, j: int) -> float:
    """Seconds of a request on a server as it is."""
    result: float = g.expected[i, j] + load_s(g, f, s, i, j)
    return result


@compile
def end(f: Setup, s: State, j: int, place: int, now: float) -> None:
    """`Account.done` of what stands at a place."""
    for p in range(place, s.count[j] - 1):
        s.sent[j, p], s.begun[j, p] = s.sent[j, p + 1], s.begun[j, p + 1]
    s.count[j] -= 1
    for p in range(min(f.seats[j], s.count[j])):
        if np.isnan(s.begun[j, p]):
            s.begun[j, p] = now
