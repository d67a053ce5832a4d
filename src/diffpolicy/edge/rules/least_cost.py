"""Rules that take the server of the smallest cost c_a (`costs.py`), of queues known more or less well."""

from __future__ import annotations

from typing import ClassVar

import torch
from tensordict import TensorDictBase
from torch import Tensor

from diffpolicy._types import Ints
from diffpolicy.edge.physics.file_steps import FileSteps
from diffpolicy.edge.physics.queueing import SlotTasks, assign_in_order, unloaded_delay_s
from diffpolicy.edge.rules.costs import COSTS, added_gcycles, backlog_s, fleet_of, tasks_of, unloaded_s
from diffpolicy.edge.rules.rule import Heuristic
from diffpolicy.policies.sequential import decide_in_order


class SlotGreedy(Heuristic):
    """The smallest c_a of the queues at the start of the slot: every task of the slot sees the same queues."""

    name = "slot-greedy"
    reads: ClassVar = COSTS

    def decide(self, td: TensorDictBase) -> Tensor:
        return (unloaded_s(td) + backlog_s(td)[:, None, None]).argmin(-1)


class LeastWorkOwn(Heuristic):
    """The smallest c_a(q + B x own sends): each station supposes that the B - 1 others send what it sends."""

    name = "least-work-own"
    reads: ClassVar = COSTS

    def decide(self, td: TensorDictBase) -> Tensor:
        delay, f = unloaded_s(td), td["servers", "capacity_gcycles_per_s"][:, None]
        down = ~td["servers", "up"][:, None]
        work = td["agents", "work_gcycles"]
        queue = td["queue_gcycles"][:, None].expand(-1, self.stations, -1)
        work_on = added_gcycles(td, f.unsqueeze(-2))
        return decide_in_order(
            lambda k, q: (q / f + delay[:, :, k]).masked_fill(down, torch.inf),
            self.stations * work,
            queue,
            None if work_on is None else self.stations * work_on,
        )


class OptTS(Heuristic):
    """The smallest c_a of the live queues, task by task in order of arrival: the greedy rule of LAD-TS."""

    name, information = "opt-ts", "live"
    reads: ClassVar = [*COSTS, ("agents", "arrival")]

    def decide(self, td: TensorDictBase) -> Tensor:
        grid = tasks_of(td)
        count = int(grid.valid.flatten(1).sum(-1).max())
        order = td["agents", "arrival"].flatten(1).argsort(dim=-1, stable=True)[:, :count]
        tasks = SlotTasks(*(getattr(grid, x).flatten(1).gather(1, order) for x in SlotTasks.__dataclass_fields__))
        fleet, down = fleet_of(td), ~td["servers", "up"]
        delay, f = unloaded_delay_s(tasks, fleet), fleet.capacity_gcycles_per_s
        work_on = added_gcycles(td, f[:, None, None])
        if work_on is not None:
            work_on = work_on.flatten(1, 2).gather(1, order.unsqueeze(-1).expand(-1, -1, f.shape[-1]))
            delay = delay + (work_on - tasks.work_gcycles.unsqueeze(-1)) / f.unsqueeze(-2)
        delay = delay.masked_fill(down.unsqueeze(-2), torch.inf)
        server = _greedy(tasks, delay, f, td["queue_gcycles"], work_on)
        return torch.zeros_like(grid.origin).flatten(1).scatter(1, order, server).view(grid.valid.shape)

    def decide_file(self, steps: FileSteps, first: TensorDictBase) -> Ints | None:
        """All decisions of a task file at once, `[K]`; None of a subclass. Args: first: is not read."""
        if type(self) is not OptTS:
            return None
        fleet = steps.fleet
        f = fleet.capacity_gcycles_per_s
        return steps.decided(lambda tasks, queue: _greedy(tasks, unloaded_delay_s(tasks, fleet), f, queue))


def _greedy(
    tasks: SlotTasks, delay_s: Tensor, f: Tensor, queue_gcycles: Tensor, work_on: Tensor | None = None
) -> Tensor:
    """Each task to the server of the smallest q / f and own delay. Args: delay_s: `[*, K, S]`. f: `[*, S]`."""
    delays = delay_s.unbind(-2)
    return assign_in_order(lambda k, q: q / f + delays[k], tasks, queue_gcycles, work_on)
