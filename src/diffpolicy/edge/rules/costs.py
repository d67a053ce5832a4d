"""What a rule weighs: the costs of servers, and the keys that they are read from.

`c_a(q) = q_a / f_a + w / f_a + r / v_a + [a is not the origin] d / v_a`. Where servers have measured times, the time
that the task would take on a, as a is at the start of the slot, stands for w / f_a.
"""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

from diffpolicy.edge.physics.queueing import ServerSpeeds, SlotTasks, unloaded_delay_s
from diffpolicy.edge.rules.rule import SERVICE

SIZES: list[NestedKey] = [("agents", "input_mbit"), ("agents", "work_gcycles"), ("agents", "valid")]


SERVERS: list[NestedKey] = [("servers", "capacity_gcycles_per_s"), ("servers", "rate_mbit_per_s"), ("servers", "up")]


COSTS: list[NestedKey] = [
    *SIZES,
    *SERVERS,
    "queue_gcycles",
    ("agents", "result_mbit"),
    ("agents", "home"),
]


def fleet_of(td: TensorDictBase) -> ServerSpeeds:
    """The servers of an observation, `[E, S]`."""
    return ServerSpeeds(td["servers", "capacity_gcycles_per_s"], td["servers", "rate_mbit_per_s"])


def tasks_of(td: TensorDictBase) -> SlotTasks:
    """The tasks of an observation on their grid, `[E, B, N]`."""
    agents = td["agents"]
    return SlotTasks(*(agents[x] for x in ("home", "input_mbit", "result_mbit", "work_gcycles", "valid")))


def unloaded_s(td: TensorDictBase) -> Tensor:
    """Delay of each task on each server if nothing were queued, `[E, B, N, S]`."""
    fleet = fleet_of(td)
    per_station = ServerSpeeds(fleet.capacity_gcycles_per_s[:, None], fleet.rate_mbit_per_s[:, None])
    delay = unloaded_delay_s(tasks_of(td), per_station)
    f = per_station.capacity_gcycles_per_s.unsqueeze(-2)
    work_on = added_gcycles(td, f)
    return delay if work_on is None else delay + (work_on - td["agents", "work_gcycles"].unsqueeze(-1)) / f


def added_gcycles(td: TensorDictBase, f: Tensor) -> Tensor | None:
    """What each task would add to each server's queue under measured times, `[E, B, N, S]`; None without them."""
    service_s = td.get(SERVICE, None)
    if service_s is None:
        return None
    work: Tensor = service_s * f * td["agents", "valid"].unsqueeze(-1)
    return work


def backlog_s(td: TensorDictBase) -> Tensor:
    """The backlog q / f at the start of the slot, infinite where a server is down, seconds `[E, S]`."""
    backlog: Tensor = td["queue_gcycles"] / td["servers", "capacity_gcycles_per_s"]
    return backlog.masked_fill(~td["servers", "up"], torch.inf)
