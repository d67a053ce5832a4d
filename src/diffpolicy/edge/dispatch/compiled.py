"""`simulate` in compiled form (numba, extra `fleet`): a million requests in seconds.

It knows the orders and the weighings that come with the package, and is the second form of `simulate`, `Held` and
`OnArrival`; `test_the_numbers_of_the_definition_are_those_of_the_compiled_form` holds the two equal, bit by bit. What
`LearnedOrder` is trained by is a third: `quick.delays`, of that order alone, and `quick_rules.rule_delays`, of the
simple orders that it is set against. The tests whose names begin with `test_what_training_plays` tie it to both.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np

from diffpolicy import _validate as check
from diffpolicy.edge.dispatch.account import ROUNDING, Account
from diffpolicy.edge.dispatch.arrivals import Arrivals
from diffpolicy.edge.dispatch.held import Held
from diffpolicy.edge.dispatch.learned_order import CHANGED, WEIGHTS, LearnedOrder
from diffpolicy.edge.dispatch.moment import Dispatcher
from diffpolicy.edge.dispatch.on_arrival import WEIGHINGS, OnArrival
from diffpolicy.edge.dispatch.orders import (
    CostMinusAge,
    EarliestDeadline,
    FirstCome,
    HighestResponseRatio,
    ShortestFirst,
    WeightedShortest,
)
from diffpolicy.edge.dispatch.outcome import Outcome
from diffpolicy.edge.dispatch.simulation import MOST_WAITING
from diffpolicy.errors import InputError

KNOWN = (
    FirstCome,
    ShortestFirst,
    HighestResponseRatio,
    CostMinusAge,
    WeightedShortest,
    EarliestDeadline,
    LearnedOrder,
)
CODES: dict[type, int] = {order: code for code, order in enumerate(KNOWN)}
WEIGHS = tuple(WEIGHINGS)
"""The places of both are the codes of `compiled_rules`."""


def knows(dispatcher: Dispatcher) -> bool:
    """Whether the compiled form has a dispatcher's rule, and numba is installed. Args: dispatcher: any."""
    if importlib.util.find_spec("numba") is None:
        return False
    if isinstance(dispatcher, Held):
        return type(dispatcher.order) in CODES and dispatcher.choose is None
    return isinstance(dispatcher, OnArrival) and dispatcher.weigh in WEIGHS


def run_compiled(
    arrivals: Arrivals,
    dispatcher: Dispatcher,
    *,
    seats: int | Sequence[int] = 1,
    dead_s: float = 0.0,
    lead_s: float = 0.0,
    seed: int = 0,
) -> Outcome:
    """As `simulate`, of a dispatcher that the compiled form knows.

    Args:
        arrivals, dispatcher, seats, dead_s, lead_s, seed: of `simulate`.

    Raises:
        InputError: as there.
    """
    from diffpolicy.edge.dispatch.compiled_account import Given, Rows, Setup
    from diffpolicy.edge.dispatch.compiled_rules import Rule
    from diffpolicy.edge.dispatch.engine import TOO_MANY, run

    each = [seats] * arrivals.servers if isinstance(seats, int) else list(seats)
    if len(each) != arrivals.servers:
        raise InputError(f"seats must be one number, or one for each of {arrivals.servers} servers, got {each}")
    dead = check.number(dead_s, "dead_s", least=0)
    lead = check.number(lead_s, "lead_s", least=0)
    each = list(Account(each, lead).seats)
    a, k = arrivals, len(arrivals)
    _, whole = np.unique(a.request, return_inverse=True)
    whole = whole.reshape(-1)
    rows = np.full(k, -1), np.zeros(k, np.int64), *(np.zeros(k) for _ in range(5))
    order, age, cap, price, weigh = -1, 0.0, -1, -1.0, -1
    weights, memory = np.zeros(len(WEIGHTS)), np.zeros(CHANGED + 1)
    if isinstance(dispatcher, Held):
        order = CODES[type(dispatcher.order)]
        age = dispatcher.order.age if isinstance(dispatcher.order, CostMinusAge) else 0.0
        if isinstance(dispatcher.order, LearnedOrder):
            dispatcher.begin(seed)
            age, weights, memory = dispatcher.order.tail, np.array(dispatcher.order.weights), dispatcher.order.memory
        cap = -1 if dispatcher.cap is None else dispatcher.cap
        price = -1.0 if dispatcher.price is None else dispatcher.price
    elif isinstance(dispatcher, OnArrival):
        weigh = WEIGHS.index(str(dispatcher.weigh))
        dispatcher.begin(seed)
    rule = Rule(order, age, cap, price, weigh, weights, memory)
    fixed = not (a.switch_s.any() or a.cold_s.any())
    setup = Setup(np.array(each), a.switch_s, a.cold_s, fixed, dead, lead, ROUNDING, MOST_WAITING)
    given = Given(
        a.arrival_s,
        a.service_s,
        a.expected_s,
        a.link_s,
        a.cost,
        a.model,
        a.deadline_s,
        a.weight,
        whole,
        np.bincount(whole),
    )
    problem = run(given, setup, rule, np.random.default_rng(seed), Rows(*rows))
    if problem == TOO_MANY:
        raise InputError(f"more than {MOST_WAITING:,} requests wait at once; the servers are too slow for the load")
    server, passes, *times = rows
    numbers: list[Any] = [*times[:3], passes, *times[3:], np.ones(k, np.int64)]
    return Outcome(arrivals, server, *numbers)
