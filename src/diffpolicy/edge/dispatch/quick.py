"""`delays`: requests under a `LearnedOrder`, as `simulate` plays them and many times as fast, for its training."""

from __future__ import annotations

from typing import Any

import numpy as np

from diffpolicy._compile import compile  # noqa: A004
from diffpolicy._types import Floats
from diffpolicy.edge.dispatch.arrivals import Arrivals
from diffpolicy.edge.dispatch.compiled_rules import of_learned
from diffpolicy.edge.dispatch.learned_order import BUSY, KEEP, LEAST_BACKLOG, PATIENCE, PICKY, PRICE, RESERVED
from diffpolicy.edge.dispatch.quick_servers import begin, bind, end, loading_s, look, next_s


def delays(arrivals: Arrivals, weights: Floats, seats: tuple[int, ...]) -> Floats:
    """Seconds from arrival to end of each request, `[K]`, bit by bit those of `simulate`.

    Args:
        arrivals: without links, parts or luck. weights: of `LearnedOrder`. seats: of each server.
    """
    a, out = arrivals, np.zeros(len(arrivals))
    loads = bool(a.switch_s.any() or a.cold_s.any())
    _delays(a.arrival_s, a.service_s, a.model, a.switch_s, a.cold_s, loads, np.array(seats), weights, out)
    return out


@compile
def _delays(
    arrival: Any, service: Any, model: Any, switch: Any, cold: Any, loads: bool, seats: Any, w: Any, out: Any
) -> None:
    """One event after the other, all in local arrays. What is done of each pair stands here: a call would cost more."""
    k, servers = service.shape
    most = seats.max()
    end_s, begun, belief = np.zeros((servers, most)), np.zeros((servers, most)), np.zeros((servers, most))
    count, loaded, free = np.zeros(servers, np.int64), np.full(servers, -1), np.zeros(servers, np.int64)
    starts, begins, left = np.zeros(servers), np.zeros(servers), np.zeros(servers, np.int64)
    waiting, passes = np.zeros(k + 1, np.int64), np.zeros(k, np.int64)
    rate, runs = np.zeros(k), np.zeros(k)
    places = float(seats.sum())
    usual, usual_of, backlog, backlog_of, seen = 0.0, 0.0, 0.0, 0.0, -1
    coming, waits, now = 0, 0, 0.0
    while coming < k or waits > 0:
        now = next_s(arrival[coming] if coming < k else np.inf, count, end_s)
        end(now, count, end_s, begun, belief)
        while coming < k and arrival[coming] <= now:
            waiting[waits] = coming
            waits, coming = waits + 1, coming + 1
        while waits > 0:
            if not look(now, seats, count, begun, belief, free, starts):
                break
            drain = 0.0
            for a in range(waits):
                i = waiting[a]
                if loads or runs[i] == 0.0:
                    rate[i], runs[i] = 0.0, 0.0
                    for j in range(servers):
                        there = service[i, j]
                        if loads and loaded[j] != model[i]:
                            there += cold[j] if loaded[j] < 0 else switch[j]
                        if there < np.inf:
                            rate[i] += 1 / there
                            runs[i] += 1.0
                drain += 1 / rate[i]
                if i > seen:
                    seen, usual_of = i, min(usual_of + 1.0, KEEP)
                    usual += (runs[i] / rate[i] - usual) / usual_of
            drain = drain * (servers / places)
            backlog_of = min(backlog_of + 1.0, KEEP)
            backlog += (drain - backlog) / backlog_of
            one_s = max(usual, 1e-9)
            backlog_s = backlog + LEAST_BACKLOG * one_s / places
            patience = w[PATIENCE] * (one_s / places) + w[BUSY] * (backlog_s * (backlog_s * places / one_s))
            patience = patience + w[PRICE] * drain
            for j in range(servers):
                begins[j], left[j] = starts[j], free[j]
            best, best_end, request, server = np.inf, np.inf, -1, -1
            for a in range(waits):
                i = waiting[a]
                soonest, at, longest = np.inf, -1, 0.0
                for j in range(servers):
                    there = service[i, j]
                    if loads and loaded[j] != model[i]:
                        there += cold[j] if loaded[j] < 0 else switch[j]
                    if begins[j] + there < soonest:
                        soonest, at, longest = begins[j] + there, j, there
                if a < RESERVED and at >= 0:
                    if left[at] > 1:
                        left[at] -= 1
                    else:
                        begins[at] += longest / max(free[at] + count[at], 1)
                wait = now - arrival[i]
                least = max(patience - w[PICKY] * (wait * 1.0), 0.0)
                for j in range(servers):
                    if free[j] <= 0 or service[i, j] == np.inf:
                        continue
                    there = service[i, j]
                    if loads and loaded[j] != model[i]:
                        there += cold[j] if loaded[j] < 0 else switch[j]
                    ends = starts[j] + there
                    if ends > soonest + least:
                        continue
                    x = of_learned(w, one_s, backlog_s, runs[i] / rate[i], there, 1, wait, passes[i] / places)
                    if x < best or (x == best and ends < best_end):
                        best, best_end, request, server = x, ends, a, j
            if request < 0:
                break
            i = bind(request, waits, waiting, passes)
            waits -= 1
            load_s = loading_s(i, server, model, switch, cold, loaded)
            out[i] = begin(now, service[i, server], load_s, server, count, end_s, begun, belief) - arrival[i]
            loaded[server] = model[i]
