"""The rules of a compiled simulation, for numba; the second form of `Held` with its orders, and of `OnArrival`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from diffpolicy._compile import compile  # noqa: A004
from diffpolicy.edge.dispatch.compiled_account import Given, Setup, State, expected
from diffpolicy.edge.dispatch.learned_order import (
    AGE,
    AGE_LARGE,
    BACKLOG_S,
    BUSY,
    CHANGED,
    DECISIONS,
    KEEP,
    LATE,
    LATE_FROM,
    LEAST_BACKLOG,
    OLD,
    OLD_FROM,
    PASSES,
    PASSES_FROM,
    PASSES_SHARE,
    PATIENCE,
    PICKY,
    PRICE,
    RESERVED,
    SEEN,
    SERVICE_S,
    SERVICES,
    SHARE,
    SLOW,
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
def survey(g: Given, f: Setup, s: State, waits: int) -> float:
    """The seconds in which all servers do all that waits, one at a time each.

    Fills in `State.of`: 1 / seconds that all servers together need for a request, how many can run it, and its least
    service. Where no server loads models these are worked out once.
    """
    drain, servers = 0.0, f.seats.shape[0]
    for a in range(waits):
        i = s.waiting[a]
        if not f.fixed or s.of[i, 1] == 0.0:
            rate, runs, best = 0.0, 0.0, np.inf
            for j in range(servers):
                there = expected(g, f, s, i, j)
                if there == np.inf:
                    continue
                rate += 1 / there
                runs += 1.0
                best = min(best, there)
            s.of[i, 0], s.of[i, 1], s.of[i, 2] = rate, runs, best
        drain += 1 / s.of[i, 0]
    return drain


@compile
def busy_end(g: Given, f: Setup, s: State, i: int) -> float:
    """Seconds until a request would end on the best server that is not free, infinite if all are."""
    best = np.inf
    for j in range(f.seats.shape[0]):
        if s.free[j] <= 0:
            best = min(best, s.starts[j] + expected(g, f, s, i, j))
    return best


@compile
def soonest(g: Given, f: Setup, s: State, waits: int) -> Any:
    """`LearnedOrder.soonest_s`, `[W]`."""
    servers = f.seats.shape[0]
    begins, free, found = s.starts.copy(), s.free.copy(), np.empty(waits)
    for a in range(waits):
        i, best, at, there = s.waiting[a], np.inf, -1, 0.0
        for j in range(servers):
            run = expected(g, f, s, i, j)
            end = begins[j] + run + g.link[i, j]
            if end < best:
                best, at, there = end, j, run
        found[a] = best
        if a < RESERVED and at >= 0:
            if free[at] > 1:
                free[at] -= 1
            else:
                begins[at] += there / f.seats[at]
    return found


@compile
def see(s: State, rule: Rule, waits: int, drain: float) -> None:
    """`LearnedOrder.see`, whose numbers come in order here. Args: drain: seconds in which all seats do what waits."""
    m = rule.memory
    for a in range(waits):
        i = s.waiting[a]
        if i > m[SEEN]:
            m[SEEN], m[SERVICES] = i, min(m[SERVICES] + 1.0, KEEP)
            m[SERVICE_S] += (s.of[i, 1] / s.of[i, 0] - m[SERVICE_S]) / m[SERVICES]
    if m[CHANGED] == 0.0:
        return
    m[CHANGED] = 0.0
    m[DECISIONS] = min(m[DECISIONS] + 1.0, KEEP)
    m[BACKLOG_S] += (drain - m[BACKLOG_S]) / m[DECISIONS]


@compile
def of_learned(
    w: Any, usual: float, backlog: float, one: float, run: float, parts: float, wait: float, p: float
) -> float:
    """`LearnedOrder.scores`, one request on one server.

    Args:
        w: weights. usual, backlog: H and B, see there. one: h of the request. run: seconds there. wait: tail applied.
        p: passes a seat.
    """
    c, b = one * parts / usual, wait / backlog
    total = rough_log2(c) + w[SHARE] * c
    total = total - (w[AGE] + w[AGE_LARGE] * (c / (1.0 + c))) * b
    total = total - w[OLD] * max(b - w[OLD_FROM], 0.0)
    total = total - w[PASSES] * max(p - w[PASSES_FROM] - w[PASSES_SHARE] * c, 0.0)
    total = total + w[SLOW] * ((run - one) / usual)
    late = max((wait + run) / backlog - w[LATE_FROM], 0.0)
    result: float = total + w[LATE] * (late if run > one * 1.001 else 0.0)
    return result


@compile
def held(g: Given, f: Setup, s: State, rule: Rule, now: float, waits: int, passes: Any) -> Any:
    """`Held.decide`: places of the request and of the server, or -1."""
    servers, only, seats = f.seats.shape[0], -1, 0.0
    busy = False
    for j in range(servers):
        busy |= s.free[j] <= 0
        seats += f.seats[j]
    learns = rule.order == LEARNED
    priced = rule.price >= 0.0 and busy
    drain = survey(g, f, s, waits) if priced or learns else 0.0
    worth, patience, usual, backlog = rule.price * drain, 0.0, 0.0, 0.0
    ends = np.empty(0)
    if learns:
        drain = drain * (servers / seats)
        see(s, rule, waits, drain)
        usual = max(rule.memory[SERVICE_S], 1e-9)
        backlog = rule.memory[BACKLOG_S] + LEAST_BACKLOG * usual / seats
        patience = rule.weights[PATIENCE] * (usual / seats) + rule.weights[BUSY] * (backlog * (backlog * seats / usual))
        patience = patience + rule.weights[PRICE] * drain
        ends = soonest(g, f, s, waits)
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
    best, best_end, request, server = np.inf, np.inf, -1, -1
    for a in range(waits):
        if only >= 0 and a != only:
            continue
        i = s.waiting[a]
        wait = now - g.arrival[i]
        parts = g.parts[g.whole[i]]
        busy_ends = -1.0
        for j in range(servers):
            if s.free[j] <= 0 or g.expected[i, j] == np.inf:
                continue
            run = expected(g, f, s, i, j)
            end = s.starts[j] + run + g.link[i, j]
            # a busy server that ends before `run - worth` is a faster one; none ends before the least service
            if priced and run > s.of[i, 2] + worth:
                if busy_ends < 0.0:
                    busy_ends = busy_end(g, f, s, i)
                if run > busy_ends + worth:
                    continue
            if learns:
                least = max(patience - rule.weights[PICKY] * (wait * rule.age), 0.0)
                if only < 0 and end > ends[a] + least:
                    continue
                one, p = s.of[i, 1] / s.of[i, 0], passes[i] * rule.age / seats
                x = of_learned(rule.weights, usual, backlog, one, run, parts, wait * rule.age, p)
            else:
                x = score(rule, run * parts, wait, g.deadline[i] - now, g.weight[i])
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
