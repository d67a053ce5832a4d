"""One station's slot as one decision: what an assignment of all its tasks costs by a critic, and searches.

A station has n tasks in order of arrival and S servers. By a critic that prices servers, an assignment A costs

    J(A) = sum_i alone[i, A_i] + sum_{j < i, A_j = A_i = a} service[j, a] (1 + slope[a] service[i, a])    (seconds)

`alone` being the delay of a task if no sibling came, plus what it costs those who come after the station; siblings wait
for each other, and raise the price of their server by `slope` a second. Chances that are drawn apart make of it a form
that is linear in those of each task: the least over all product laws is reached without chance, by the best joint
choice. So what joint decisions gain is J, searched with siblings in view, against J chosen without.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffpolicy._compile import compile  # noqa: A004

Costs = NDArray[np.float64]
Servers = NDArray[np.int64]
Search = Callable[[Costs, Costs, Costs], Servers]
"""From `alone` and `service`, `[n, S]` each, and `slope`, `[S]`, to a server of each task, `[n]`."""


@compile
def cost_s(alone: Any, service: Any, slope: Any, chosen: Any) -> float:
    """J of an assignment, seconds. Args: alone, service, slope: see `Search`. chosen: `[n]`."""
    busy, total = np.zeros(alone.shape[1]), 0.0
    for i in range(len(chosen)):
        a = chosen[i]
        total += alone[i, a] + busy[a] * (1.0 + slope[a] * service[i, a])
        busy[a] += service[i, a]
    return total


@compile
def apart(alone: Any, service: Any, slope: Any) -> Any:
    """Each task where it would be best if it had no siblings."""
    chosen, nothing = np.zeros(alone.shape[0], np.int64), np.zeros(alone.shape[1])
    for i in range(alone.shape[0]):
        chosen[i] = _best(i, alone, service, slope, nothing)
    return chosen


@compile
def in_order(alone: Any, service: Any, slope: Any) -> Any:
    """Each task where it is best after those before it: the decisions one at a time that an environment asks for."""
    chosen, busy = np.zeros(alone.shape[0], np.int64), np.zeros(alone.shape[1])
    for i in range(alone.shape[0]):
        a = _best(i, alone, service, slope, busy)
        chosen[i] = a
        busy[a] += service[i, a]
    return chosen


@compile
def _best(i: int, alone: Any, service: Any, slope: Any, busy: Any) -> int:
    """Server of the least cost for task i after siblings that keep servers busy for so many seconds, `[S]`."""
    least, best = np.inf, 0
    for a in range(alone.shape[1]):
        score = alone[i, a] + busy[a] * (1.0 + slope[a] * service[i, a])
        if score < least:
            least, best = score, a
    return best


@compile
def keep_least(least: Any, source: Any, number: int, score: float, place: int) -> int:
    """Puts a partial assignment among the least costly ones, and gives how many these are now.

    Args:
        least, source: of these, in order, costs and where they come from, `[width]`; changed. number: of them.
        score, place: of the one that may be kept; of two that cost the same the earlier stays before.
    """
    width = len(least)
    if number == width and score >= least[width - 1]:
        return number
    number = min(number + 1, width)
    k = number - 1
    while k > 0 and least[k - 1] > score:
        least[k], source[k] = least[k - 1], source[k - 1]
        k -= 1
    least[k], source[k] = score, place
    return number


@compile
def best_of_beam(alone: Any, service: Any, slope: Any, width: int) -> Any:
    """The best of so many partial assignments, task by task. Args: width: how many are kept."""
    n, servers = alone.shape
    busy, total, kept = np.zeros((width, servers)), np.zeros(width), 1
    chosen = np.zeros((width, n), np.int64)
    for i in range(n):
        least, source, number = np.full(width, np.inf), np.zeros(width, np.int64), 0
        for w in range(kept):
            for a in range(servers):
                score = total[w] + alone[i, a] + busy[w, a] * (1.0 + slope[a] * service[i, a])
                number = keep_least(least, source, number, score, w * servers + a)
        new_busy, new_chosen = np.zeros((width, servers)), np.zeros((width, n), np.int64)
        for k in range(number):
            w, a = source[k] // servers, source[k] % servers
            for b in range(servers):
                new_busy[k, b] = busy[w, b]
            for j in range(i):
                new_chosen[k, j] = chosen[w, j]
            new_busy[k, a] += service[i, a]
            new_chosen[k, i] = a
        busy, chosen, total, kept = new_busy, new_chosen, least, number
    return chosen[0].copy()


@compile
def _better(i: int, alone: Any, service: Any, slope: Any, chosen: Any) -> bool:
    """Moves task i to where J is least, if that lowers it."""
    n, servers = alone.shape
    each = np.zeros(servers)
    for a in range(servers):
        each[a] = alone[i, a]
    for j in range(n):
        a = chosen[j]
        if j < i:
            each[a] += service[j, a] * (1.0 + slope[a] * service[i, a])
        elif j > i:
            each[a] += service[i, a] * (1.0 + slope[a] * service[j, a])
    best = chosen[i]
    for a in range(servers):
        if each[a] < each[best] - 1e-12:
            best = a
    moved = best != chosen[i]
    chosen[i] = best
    return bool(moved)


@compile
def descend(alone: Any, service: Any, slope: Any, chosen: Any) -> float:
    """Moves single tasks, then swaps pairs, as long as that lowers J, which is returned. Args: chosen: is changed."""
    n, better = len(chosen), True
    while better:
        better = False
        for i in range(n):
            better = _better(i, alone, service, slope, chosen) or better
        if better:
            continue
        now = cost_s(alone, service, slope, chosen)
        for i in range(n):
            for j in range(i):
                a, b = chosen[i], chosen[j]
                if a != b:
                    chosen[i], chosen[j] = b, a
                    new = cost_s(alone, service, slope, chosen)
                    if new < now - 1e-12:
                        now, better = new, True
                    else:
                        chosen[i], chosen[j] = a, b
    return cost_s(alone, service, slope, chosen)


@compile
def searched(alone: Any, service: Any, slope: Any, restarts: int) -> Any:
    """The best that descent finds, from decisions in order, and from the best so far with a few tasks moved at random.

    Args:
        restarts: how often, after the first.
    """
    n, servers = alone.shape
    best = in_order(alone, service, slope)
    least, state = descend(alone, service, slope, best), 1
    for _ in range(restarts):
        tried = best.copy()
        for _ in range(min(n, 4)):
            state = (1103515245 * state + 12345) % 2147483648  # the same everywhere, compiled or not
            i = (state >> 8) % n
            state = (1103515245 * state + 12345) % 2147483648
            tried[i] = (state >> 8) % servers
        found = descend(alone, service, slope, tried)
        if found < least - 1e-12:
            best, least = tried, found
    return best


def tried_all(alone: Costs, service: Costs, slope: Costs) -> Servers:
    """The best of all S^n assignments, of which there should be few."""
    every = product(range(alone.shape[1]), repeat=len(alone))
    return np.array(min(every, key=lambda x: cost_s(alone, service, slope, np.array(x))))
