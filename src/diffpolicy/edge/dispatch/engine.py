"""The event loop of `simulate` for numba; see `compiled`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from diffpolicy._compile import compile  # noqa: A004
from diffpolicy.edge.dispatch.learned_order import (
    BACKLOG_S,
    DECISIONS,
    KEEP,
    LEAST_BACKLOG,
    SEEN,
    SERVICE_S,
    SERVICES,
)

TOO_MANY = 1
FIRST_COME, SHORTEST, RESPONSE_RATIO, COST_MINUS_AGE, WEIGHTED, DEADLINE, LEARNED = range(7)
FINISH, COST, OUTSTANDING = range(3)


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


class Fleet(NamedTuple):
    """The servers. Args: rounding: of clocks, seconds. most: requests that may wait."""

    seats: Any
    switch: Any
    cold: Any
    dead: float
    lead: float
    rounding: float
    most: int


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
        free: `[S]`. starts: `[S]`.
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


@compile
def remaining(s: State, j: int, place: int, now: float) -> float:
    """Seconds until a request at a server is expected to end."""
    left: float = s.begun[j, place] + s.belief[s.sent[j, place]] - now
    return max(left, 0.0)


@compile
def look(f: Fleet, s: State, now: float) -> bool:
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
def opening(f: Fleet, s: State, now: float) -> float:
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
def load_s(g: Given, f: Fleet, s: State, i: int, j: int) -> float:
    """Seconds in which a server loads the model of a request, if it has another one."""
    if s.loaded[j] == g.model[i]:
        return 0.0
    load: float = f.cold[j] if s.loaded[j] < 0 else f.switch[j]
    return load


@compile
def expected(g: Given, f: Fleet, s: State, i: int, j: int) -> float:
    """Seconds of a request on a server as it is."""
    result: float = g.expected[i, j] + load_s(g, f, s, i, j)
    return result


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
def survey(g: Given, f: Fleet, s: State, waits: int, of: Any) -> float:
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
    g: Given, f: Fleet, s: State, rule: Rule, i: int, j: int, wait: float, passes: float, of: Any, drain: float
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
def held(g: Given, f: Fleet, s: State, rule: Rule, now: float, waits: int, passes: Any) -> Any:
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
def on_arrival(g: Given, f: Fleet, s: State, rule: Rule, rng: Any) -> int:
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


@compile
def end(f: Fleet, s: State, j: int, place: int, now: float) -> None:
    """`Account.done` of what stands at a place."""
    for p in range(place, s.count[j] - 1):
        s.sent[j, p], s.begun[j, p] = s.sent[j, p + 1], s.begun[j, p + 1]
    s.count[j] -= 1
    for p in range(min(f.seats[j], s.count[j])):
        if np.isnan(s.begun[j, p]):
            s.begun[j, p] = now


@compile
def run(g: Given, f: Fleet, rule: Rule, rng: Any, out: Rows) -> int:
    """`simulate`; 0, or what is wrong."""
    k, servers = g.service.shape
    room = f.most
    s = State(
        np.zeros((servers, room), np.int64),
        np.zeros((servers, room)),
        np.zeros(servers, np.int64),
        np.full((servers, f.seats.max()), -np.inf),
        np.full(servers, -1),
        np.zeros(f.most + 1, np.int64),
        np.full(k, np.nan),
        np.zeros(servers, np.int64),
        np.zeros(servers),
        np.zeros(k),
    )
    coming, waits, now = 0, 0, 0.0
    while coming < k or waits > 0:
        soonest = np.inf
        for j in range(servers):
            for place in range(min(f.seats[j], s.count[j])):
                soonest = min(soonest, out.finish[s.sent[j, place]])
        arriving = g.arrival[coming] if coming < k else np.inf
        opens = now + opening(f, s, now) if rule.order >= 0 and waits > 0 else np.inf
        now = min(arriving, soonest, opens)
        while True:
            at, which, when = -1, -1, now
            for j in range(servers):
                for place in range(min(f.seats[j], s.count[j])):
                    i = s.sent[j, place]
                    if out.finish[i] < when or (out.finish[i] == when and (at < 0 or i < s.sent[at, which])):
                        at, which, when = j, place, out.finish[i]
            if at < 0:
                break
            end(f, s, at, which, when)
        while coming < k and g.arrival[coming] <= now:
            if waits == f.most:
                return TOO_MANY
            s.waiting[waits] = coming
            waits, coming = waits + 1, coming + 1
        while waits > 0:
            some = look(f, s, now)
            if rule.order >= 0:
                if not some:
                    break
                a, j = held(g, f, s, rule, now, waits, out.passes)
                if a < 0:
                    break
            else:
                a, j = 0, on_arrival(g, f, s, rule, rng)
            if s.count[j] == room:
                return TOO_MANY
            i = s.waiting[a]
            for earlier in range(a):
                out.passes[s.waiting[earlier]] += 1
            for later in range(a, waits - 1):
                s.waiting[later] = s.waiting[later + 1]
            waits -= 1
            seat = np.argmin(s.idle[j, : f.seats[j]])
            before = max(s.idle[j, seat], now)
            s.belief[i] = expected(g, f, s, i, j)
            out.server[i], out.bound[i], out.start[i] = j, now, max(before, now + f.dead)
            out.finish[i] = out.start[i] + g.service[i, j] + load_s(g, f, s, i, j)
            out.dead[i] = out.start[i] - before
            s.idle[j, seat], s.loaded[j] = out.finish[i], g.model[i]
            g.parts[g.whole[i]] -= 1
            if not np.isnan(s.since[i]):
                out.refused[i] = max(out.refused[i], now - s.since[i])
            place = s.count[j]
            s.sent[j, place], s.begun[j, place] = i, now if place < f.seats[j] else np.nan
            s.count[j] += 1
        look(f, s, now)
        for a in range(waits):
            i, could = s.waiting[a], False
            for j in range(servers):
                could |= s.free[j] > 0 and g.expected[i, j] < np.inf
            if not could and not np.isnan(s.since[i]):
                out.refused[i] = max(out.refused[i], now - s.since[i])
                s.since[i] = np.nan
            elif could and np.isnan(s.since[i]):
                s.since[i] = now
    return 0
