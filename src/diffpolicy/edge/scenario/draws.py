"""The paper's knobs turned: a scenario whose servers or tasks are drawn anew as the released code draws them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy.edge.scenario import released
from diffpolicy.edge.scenario.server import Server
from diffpolicy.edge.workload.by_size import SizedWorkload
from diffpolicy.edge.workload.lad_ts import Workload
from diffpolicy.errors import InputError

if TYPE_CHECKING:
    from diffpolicy.edge.scenario.scenario import Scenario


def overridden(
    given: Scenario,
    *,
    tasks: int | None,
    stations: int | None,
    slots: int | None,
    capacity: tuple[int, int] | None,
    steps: tuple[int, int] | None,
) -> Scenario:
    """What `Scenario.override` gives. Args: given: a scenario. others: of it."""
    scenario = given
    if stations is not None or capacity is not None:
        if given.measured:
            raise InputError(f"scenario {given.name} has measured servers, which cannot be drawn anew")
        lo, hi = _bounds(capacity or released.CAPACITY_GCYCLES_PER_S, "capacity", least=1, width=0)
        size = (
            len(given.servers)
            if stations is None
            else check.integer(stations, "stations", least=1, most=_limits.SERVERS)
        )
        f = released.capacities(size, lo, hi)
        v = released.rates(size) if stations is not None else [s.rate_mbit_per_s for s in given.servers]
        if stations is not None:
            fleet = tuple(Server(float(a), float(b)) for a, b in zip(f, v, strict=True))
            scenario = replace(scenario, servers=fleet, stations=())
        else:
            fleet = tuple(replace(s, capacity_gcycles_per_s=float(a)) for s, a in zip(given.servers, f, strict=True))
            scenario = replace(scenario, servers=fleet)
    if slots is not None:
        scenario = replace(scenario, slots=check.integer(slots, "slots", least=1, most=_limits.SLOTS))
    if tasks is not None or steps is not None:
        scenario = replace(scenario, workload=_workload(given, tasks, steps))
    turned = {"tasks": tasks, "stations": stations, "slots": slots, "capacity": capacity, "steps": steps}
    marks = [f"{k} {v if isinstance(v, int) else f'{v[0]}:{v[1]}'}" for k, v in turned.items() if v is not None]
    return replace(scenario, name=", ".join([given.name, *marks]))


def _workload(given: Scenario, tasks: int | None, steps: tuple[int, int] | None) -> Workload:
    if given.workload is None:
        raise InputError(f"scenario {given.name} has no workload, so its tasks and steps cannot be overridden")
    old = given.workload
    if not isinstance(old, Workload) or isinstance(old, SizedWorkload):
        raise InputError(
            f"scenario {given.name} has a workload of kind {old.kind!r}, whose tasks and steps cannot be overridden"
        )
    lo, hi = old.tasks_per_station_and_slot
    hi = hi if tasks is None else check.integer(tasks, "tasks", least=1, most=_limits.TASKS)
    drawn = released.workload(max(hi, len(old.steps)), *_bounds(steps or released.STEPS, "steps", 1, 1))
    return replace(
        old,
        tasks_per_station_and_slot=(min(lo, hi), hi),
        gcycles_per_step=old.gcycles_per_step + drawn.gcycles_per_step[len(old.gcycles_per_step) :],
        result_mbit=old.result_mbit + drawn.result_mbit[len(old.result_mbit) :],
        steps=(() if steps else old.steps) + drawn.steps[0 if steps else len(old.steps) :],
    )


def _bounds(value: tuple[int, int], key: str, least: int, width: int) -> tuple[int, int]:
    lo, hi = (check.integer(v, key, least=least) for v in check.sequence(value, key, length=2))
    if hi >= 2**31 - 1:
        raise InputError(f"{key} must be below {2**31 - 1}, got {lo}:{hi}")
    if hi - lo < width:
        raise InputError(f"{key} must be LO:HI with HI at least LO{f' + {width}' if width else ''}, got {lo}:{hi}")
    return lo, hi
