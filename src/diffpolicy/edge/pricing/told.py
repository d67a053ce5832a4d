"""What a fleet rule is told of arrivals before it has heard of any: their law, or how single requests come."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from tensordict import TensorDictBase
from torch import Tensor

from diffpolicy.edge.physics.queueing import SlotTasks
from diffpolicy.edge.pricing.slot import possible_tasks
from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.edge.workload.lad_ts import Workload
from diffpolicy.edge.workload.recorded import TraceWorkload
from diffpolicy.edge.workload.requests import RequestWorkload
from diffpolicy.edge.workload.task_file import TaskList
from diffpolicy.errors import InputError


@dataclass(frozen=True)
class Told:
    """What is told.

    Args:
        workload: the law of arrivals, which a stale rule imagines; None: it has to be learned. step_s: usual length of
            a step, seconds.
        usual: tasks and Gcycles of a step, where each step is one request: then nothing is stale and nothing imagined.
    """

    workload: Workload | None = None
    step_s: float = 1.0
    usual: tuple[float, float] | None = None

    def of_scenario(self, scenario: Scenario) -> Told:
        """With a scenario's law of arrivals and the usual length of its steps."""
        law = scenario.workload if isinstance(scenario.workload, Workload) else None
        requests = scenario.workload
        if isinstance(requests, (RequestWorkload, TraceWorkload)):
            return replace(self, workload=law, step_s=1 / requests.mean_rate_per_s)
        return replace(self, workload=law, step_s=scenario.slot_s)

    def of_tasks(self, tasks: TaskList) -> Told:
        """With the mean distance and work of a task file's requests, where each of its steps is one request."""
        steps = tasks.duration_s
        if not len(steps) == len(tasks) > 1:
            return self
        step_s = float(steps[:-1].mean()) or self.step_s
        return replace(self, step_s=step_s, usual=(1.0, float(tasks.work_gcycles.mean())))

    def of_a_station(self, seen: SlotTasks) -> tuple[Tensor, Tensor]:
        """Tasks and Gcycles that a station is expected to have in a slot, float64 `[E, 1]` each.

        Args:
            seen: the first slot's tasks; where there is no law, those of the first station that has some stand for all.
        """
        e, stations = seen.valid.shape[:2]
        like = seen.work_gcycles.new_zeros(e, 1, dtype=torch.float64)
        if self.usual is not None:
            tasks, work = (x / stations for x in self.usual)
            return like + tasks, like + work
        if self.workload is not None:
            lo, hi = self.workload.tasks_per_station_and_slot
            return like + (lo + hi) / 2, like + self.workload.mean_work_gcycles()
        here = seen.valid.sum(-1)
        first = here.gt(0).byte().argmax(-1, keepdim=True)
        works = (seen.work_gcycles * seen.valid).sum(-1).double()
        return here.gather(-1, first).double().clamp_min(1), works.gather(-1, first).clamp_min(1e-9)

    def dream(self, td: TensorDictBase) -> tuple[SlotTasks, Tensor]:
        """Tasks that all stations may have by the law, `[E, B, N]`, and the chances that a station has them, `[N]`.

        Args:
            td: tells the homes of stations and the seed that they share.

        Raises:
            InputError: there is no law.
        """
        if self.workload is None:
            raise InputError(
                "a stale fleet policy that does not learn imagines the other stations' tasks, so its scenario needs a "
                "workload of kind 'lad-ts' where there are several stations, here "
                f"{td['agents', 'home'].shape[1]}"
            )
        return possible_tasks(self.workload, td["shared_seed"], td["agents", "home"])
