"""The rules of a compiled simulation, for numba; the second form of `Held` with its orders, and of `OnArrival`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from diffpolicy._compile import compile  # noqa: A004
from diffpolicy.edge.dispatch.compiled_account import Given, Setup, State, expected
from diffpolicy.edge.dispatch.learned_order import (
    BACKLOG_S,
    DECISIONS,
    KEEP,
    LEAST_BACKLOG,
    SEEN,
    SERVICE_S,
    SERVICES,
)

FIRST_COME, SHORTEST, RESPONSE_RATIO, COST_MINUS_AGE, WEIGHTED, DEADLINE, LEARNED = range(7)
FINISH, COST, OUTSTANDING = range(3)


class Rule(NamedTuple):
    """`Held` where `order` is at least 0, `OnArrival` where `weigh` is.

    Args:
        age: of `CostMinusAge`, or the tail of `LearnedOrder`, whose other fields are weights and memory.
        cap, price: negative for none.
    """

    order: int
    age: float
    cap: int
    price: float
    weigh: int
    weights: Any
    memory: Any


@compile
def score(rule: Rule, rest: float, wait: float, left: float, weight: float) -> float:
    """The orders, one request on one server. Args: rest: seconds. wait, left: since arrival and to the deadline."""
    if rule.order == FIRST_COME:
        return -wait
    if rule.order == SHORTEST:
        return rest
    if rule.order == RESPONSE_RATIO:
        return -(wait + rest) / max(rest, 1e-9)
    if rule.order == COST_MINUS_AGE:
        return rest - rule.age * wait
    if rule.order == WEIGHTED:
        return rest / weight
    return left if left < 1e12 else 1e12 - wait


@compile
def rough_log2(x: float) -> float:
    """That of `learned_order`."""
    mantissa, exponent = math.frexp(max(x, 1e-6))
    return exponent + 2.0 * mantissa - 2.0


@compile
def survey(g: Given, f: Setup, s: State, waits: int, of: Any) -> float:
    """What servers mean to each that waits; the seconds in which all servers do all of it.

    Args:
        of: is filled, `[W, 5]`: 1 / seconds that all servers together need for it, how many servers can run it, its
            least service, when it would end first, links included, and when without them on a server that is not free.
    """
    drain = 0.0
    for a in range(waits):
        i, rate, runs, best, soonest, busy = s.waiting[a], 0.0, 0.0, np.inf, np.inf, np.inf
        for j in range(f.seats.shape[0]):
            there = expected(g, f, s, i, j)
            if there == np.inf:
                continue
            rate += 1 / there
            runs += 1.0
            best, soonest = min(best, there), min(soonest, s.starts[j] + there + g.link[i, j])
            if s.free[j] <= 0:
                busy = min(busy, s.starts[j] + there)
        of[a, 0], of[a, 1], of[a, 2], of[a, 3], of[a, 4] = rate, runs, best, soonest, busy
        drain += 1 / rate
    return drain


@compile
def see(s: State, rule: Rule, waits: int, of: Any, drain: float) -> None:
    """`LearnedOrder.see`. Args: of, drain: of `survey`."""
    m = rule.memory
    for a in range(waits):
        if s.waiting[a] > m[SEEN]:
            m[SEEN], m[SERVICES] = s.waiting[a], min(m[SERVICES] + 1.0, KEEP)
            m[SERVICE_S] += (of[a, 1] / of[a, 0] - m[SERVICE_S]) / m[SERVICES]
    m[DECISIONS] = min(m[DECISIONS] + 1.0, KEEP)
    m[BACKLOG_S] += (drain - m[BACKLOG_S]) / m[DECISIONS]


@compile
def learned(
    g: Given, f: Setup, s: State, rule: Rule, i: int, j: int, wait: float, passes: float, of: Any, drain: float
) -> float:
    """`LearnedOrder.scores`, one request on one server. Args: of, drain: of `survey`, of this request."""
    servers, w = f.seats.shape[0], rule.weights
    usual = max(rule.memory[SERVICE_S], 1e-9)
    backlog = rule.memory[BACKLOG_S] + LEAST_BACKLOG * usual / servers
    run, parts = expected(g, f, s, i, j), g.parts[g.whole[i]]
    rest, left = run * parts, of[1] / of[0] * parts
    end = s.starts[j] + run + g.link[i, j]
    c = left / usual
    log, large = rough_log2(c), c / (1.0 + c)
    wait = wait * rule.age
    b, p = wait / backlog, passes * rule.age / servers
    queue = min(drain / backlog, 5.0)
    slow = min(run / max(of[2], 1e-9) - 1.0, 10.0)
    total: float = 0.0 + w[0] * log
    total = total + w[1] * large
    total = total + w[2] * (rest / backlog)
    total = total + w[3] * (left / backlog)
    total = total + w[4] * (rest / usual)
    total = total + w[5] * rough_log2(rest / usual)
    total = total + w[6] * slow
    total = total + w[7] * min((end - of[3]) / usual, 10.0)
    total = total + w[8] * (slow * large)
    total = total + w[9] * b
    total = total + w[10] * max(b - 1.0, 0.0)
    total = total + w[11] * max(b - 3.0, 0.0)
    total = total + w[12] * (b * large)
    total = total + w[13] * (max(b - 2.0, 0.0) * large)
    total = total + w[14] * (wait / usual)
    total = total + w[15] * p
    total = total + w[16] * max(p - 2.0, 0.0)
    total = total + w[17] * (queue * log)
    total = total + w[18] * (queue * b)
    total = total + w[19] * (g.link[i, j] / backlog)
    result: float = total + w[20] * (queue * slow)
    return result


@compile
def held(g: Given, f: Setup, s: State, rule: Rule, now: float, waits: int, passes: Any) -> Any:
    """`Held.decide`: places of the request and of the server, or -1."""
    servers, only = f.seats.shape[0], -1
    busy = False
    for j in range(servers):
        busy |= s.free[j] <= 0
    priced = rule.price >= 0.0 and busy
    of, drain = np.empty((waits, 5)), 0.0
    if priced or rule.order == LEARNED:
        drain = survey(g, f, s, waits, of)
    if rule.order == LEARNED:
        see(s, rule, waits, of, drain)
    if rule.cap >= 0:
        for a in range(waits):
            i = s.waiting[a]
            if passes[i] >= rule.cap:
                for j in range(servers):
                    if s.free[j] > 0 and g.expected[i, j] < np.inf:
                        only = a
                if only >= 0:
                    break
    priced &= only < 0
    worth = rule.price * drain if priced else 0.0
    best, best_end, request, server = np.inf, np.inf, -1, -1
    for a in range(waits):
        if only >= 0 and a != only:
            continue
        i = s.waiting[a]
        wait = now - g.arrival[i]
        for j in range(servers):
            if s.free[j] <= 0 or g.expected[i, j] == np.inf:
                continue
            run = expected(g, f, s, i, j)
            # a busy server that ends before `run - worth` is a faster one
            if priced and run > of[a, 4] + worth:
                continue
            if rule.order == LEARNED:
                x = learned(g, f, s, rule, i, j, wait, passes[i], of[a], drain)
            else:
                x = score(rule, run * g.parts[g.whole[i]], wait, g.deadline[i] - now, g.weight[i])
            end = s.starts[j] + run + g.link[i, j]
            if x < best or (x == best and end < best_end):
                best, best_end, request, server = x, end, a, j
    return request, server


@compile
def on_arrival(g: Given, f: Setup, s: State, rule: Rule, rng: Any) -> int:
    """`OnArrival.decide`: the server of the longest waiting request."""
    servers, i = f.seats.shape[0], s.waiting[0]
    cost = np.empty(servers)
    for j in range(servers):
        if rule.weigh == FINISH:
            cost[j] = s.starts[j] + expected(g, f, s, i, j) + g.link[i, j]
        elif rule.weigh == COST:
            cost[j] = 0.0
            for place in range(s.count[j]):
                cost[j] += g.cost[s.sent[j, place]]
        else:
            cost[j] = s.count[j] if rule.weigh == OUTSTANDING else 0.0
        if g.expected[i, j] == np.inf:
            cost[j] = np.inf
    best = np.flatnonzero(cost == cost.min())
    chosen: int = best[0] if len(best) == 1 else best[rng.integers(0, len(best))]
    return chosen
