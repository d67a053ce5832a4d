"""`simulate`: requests under a dispatcher until the last has ended."""

from __future__ import annotations

from collections.abc import Sequence

from diffpolicy.edge.dispatch.arrivals import Arrivals
from diffpolicy.edge.dispatch.compiled import knows, run_compiled
from diffpolicy.edge.dispatch.moment import Dispatcher
from diffpolicy.edge.dispatch.outcome import Outcome
from diffpolicy.edge.dispatch.simulation import Outage, Simulation
from diffpolicy.errors import InputError


def simulate(
    arrivals: Arrivals,
    dispatcher: Dispatcher,
    *,
    seats: int | Sequence[int] = 1,
    dead_s: float = 0.0,
    lead_s: float = 0.0,
    outages: Sequence[Outage] | None = None,
    seed: int = 0,
    compiled: bool = True,
) -> Outcome:
    """Plays requests under a dispatcher until the last has ended.

    Args:
        arrivals: K requests on S servers.
        dispatcher: `Held`, `OnArrival` or one of your own.
        seats: requests that each server works on at once, `[S]`, or one number for all.
        dead_s: seconds between a binding and the earliest start: what a call to the server costs.
        lead_s: a seat counts as free so much before its request is expected to end, so that a call can hide behind it.
        outages: of each server, `[S]`. What it has when it fails waits again, in order of arrival; the dispatcher knows
            which servers are up, not until when. None: none ever fails. Compiled code knows none.
        seed: of what the dispatcher draws.
        compiled: whether numba plays the rules that it knows, where it is installed; bits do not depend on it.

    Returns:
        Where and when each ran.

    Raises:
        InputError: an argument is out of range, the dispatcher binds to a server that is not free or cannot run the
            request, or it leaves requests waiting for ever.

    Example:
        >>> arrivals = Arrivals(arrival_s=[0.0, 0.0, 0.0], service_s=[[3.0, 3.0]] * 3)
        >>> simulate(arrivals, OnArrival("least-finish")).delay_s.tolist()
        [3.0, 3.0, 6.0]
    """
    if compiled and outages is None and knows(dispatcher):
        return run_compiled(arrivals, dispatcher, seats=seats, dead_s=dead_s, lead_s=lead_s, seed=seed)
    sim = Simulation(arrivals, seats=seats, dead_s=dead_s, lead_s=lead_s, outages=outages)
    dispatcher.begin(seed)
    while not sim.over:
        if sim.stuck:
            raise InputError(f"the dispatcher leaves {len(sim.waiting)} requests waiting though every server is free")
        sim.advance(dispatcher.holds)
        while sim.waiting:
            if dispatcher.holds and not sim.free.any() and not sim.account.foreign_count.any():
                break
            moment = sim.moment()
            binding = dispatcher.decide(moment) if len(moment.number) else None
            if binding is None:
                break
            allowed = moment.feasible if dispatcher.holds else moment.runs
            if not allowed[binding.request, binding.server]:
                raise InputError(f"the dispatcher binds to server {binding.server}, which is not free or cannot run it")
            sim.bind(binding, moment)
        sim.note_refusals()
    return sim.outcome()
