"""`rule_delays`: requests held by a simple rule, as `simulate` plays them and many times as fast, for training."""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np

from diffpolicy._compile import compile  # noqa: A004
from diffpolicy._types import Floats
from diffpolicy.edge.dispatch.arrivals import Arrivals
from diffpolicy.edge.dispatch.held import Held
from diffpolicy.edge.dispatch.moment import Dispatcher
from diffpolicy.edge.dispatch.orders import CostMinusAge, FirstCome, ShortestFirst
from diffpolicy.edge.dispatch.quick_servers import begin, bind, end, loading_s, look, next_s

ORDERS = (FirstCome, ShortestFirst, CostMinusAge)
FIRST_COME = 0


def holds_simply(rule: Dispatcher) -> TypeGuard[Held]:
    """Whether `rule_delays` plays a rule. Args: rule: any."""
    return isinstance(rule, Held) and type(rule.order) in ORDERS and rule.choose is None


def rule_delays(arrivals: Arrivals, rule: Held, seats: tuple[int, ...]) -> Floats:
    """Seconds from arrival to end of each request, `[K]`, bit by bit those of `simulate`.

    Args:
        arrivals: without links, parts or luck, each of which every server can run. rule: one that `holds_simply`.
        seats: of each server.
    """
    a, out = arrivals, np.zeros(len(arrivals))
    age = rule.order.age if isinstance(rule.order, CostMinusAge) else 0.0
    cap, price = -1 if rule.cap is None else rule.cap, -1.0 if rule.price is None else rule.price
    given = a.arrival_s, a.service_s, a.model, a.switch_s, a.cold_s, np.array(seats)
    _held(*given, ORDERS.index(type(rule.order)), age, cap, price, out)
    return out


@compile
def _held(
    arrival: Any, service: Any, model: Any, switch: Any, cold: Any, seats: Any,
    order: int, age: float, cap: int, price: float, out: Any,
) -> None:  # fmt: skip
    """`Held`: one event after the other, all in local arrays."""
    k, servers = service.shape
    most = seats.max()
    end_s, begun, belief = np.zeros((servers, most)), np.zeros((servers, most)), np.zeros((servers, most))
    count, loaded, free = np.zeros(servers, np.int64), np.full(servers, -1), np.zeros(servers, np.int64)
    starts, waiting, passes = np.zeros(servers), np.zeros(k + 1, np.int64), np.zeros(k, np.int64)
    coming, waits = 0, 0
    while coming < k or waits > 0:
        now = next_s(arrival[coming] if coming < k else np.inf, count, end_s)
        end(now, count, end_s, begun, belief)
        while coming < k and arrival[coming] <= now:
            waiting[waits] = coming
            waits, coming = waits + 1, coming + 1
        while waits > 0:
            if not look(now, seats, count, begun, belief, free, starts):
                break
            only, drain, busy = -1, 0.0, free.min() == 0
            if price >= 0.0 and busy:
                for a in range(waits):
                    rate = 0.0
                    for j in range(servers):
                        rate += 1 / (service[waiting[a], j] + loading_s(waiting[a], j, model, switch, cold, loaded))
                    drain += 1 / rate
            for a in range(waits if cap >= 0 else 0):
                if passes[waiting[a]] >= cap:
                    only = a
                    break
            best, best_end, request, server = np.inf, np.inf, -1, -1
            for a in range(waits):
                if only >= 0 and a != only:
                    continue
                i, slowest = waiting[a], np.inf
                if price >= 0.0 and busy and only < 0:
                    for j in range(servers):
                        if free[j] == 0:
                            ends = starts[j] + (service[i, j] + loading_s(i, j, model, switch, cold, loaded))
                            slowest = min(slowest, ends + price * drain)
                wait = now - arrival[i]
                for j in range(servers):
                    if free[j] == 0:
                        continue
                    run = service[i, j] + loading_s(i, j, model, switch, cold, loaded)
                    if run > slowest:
                        continue
                    x = -wait if order == FIRST_COME else run - age * wait
                    if x < best or (x == best and starts[j] + run < best_end):
                        best, best_end, request, server = x, starts[j] + run, a, j
            if request < 0:
                break
            i = bind(request, waits, waiting, passes)
            waits -= 1
            load_s = loading_s(i, server, model, switch, cold, loaded)
            out[i] = begin(now, service[i, server], load_s, server, count, end_s, begun, belief) - arrival[i]
            loaded[server] = model[i]
