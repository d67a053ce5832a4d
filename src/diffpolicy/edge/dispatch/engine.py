"""The event loop of `simulate` for numba; see `compiled`."""

from __future__ import annotations

from typing import Any

import numpy as np

from diffpolicy._compile import compile  # noqa: A004
from diffpolicy.edge.dispatch.compiled_account import Given, Rows, Setup, State, end, expected, load_s, look, opening
from diffpolicy.edge.dispatch.compiled_rules import Rule, held, on_arrival
from diffpolicy.edge.dispatch.learned_order import CHANGED

TOO_MANY = 1


@compile
def run(g: Given, f: Setup, rule: Rule, rng: Any, out: Rows) -> int:
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
        np.zeros((k, 3)),
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
            rule.memory[CHANGED] = 1.0
        while coming < k and g.arrival[coming] <= now:
            if waits == f.most:
                return TOO_MANY
            s.waiting[waits] = coming
            waits, coming = waits + 1, coming + 1
            rule.memory[CHANGED] = 1.0
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
            rule.memory[CHANGED] = 1.0
        look(f, s, now)
        for a in range(waits):
            i, could = s.waiting[a], False
            for j in range(servers):
                if s.free[j] > 0 and g.expected[i, j] < np.inf:
                    could = True
                    break
            if not could and not np.isnan(s.since[i]):
                out.refused[i] = max(out.refused[i], now - s.since[i])
                s.since[i] = np.nan
            elif could and np.isnan(s.since[i]):
                s.since[i] = now
    return 0
