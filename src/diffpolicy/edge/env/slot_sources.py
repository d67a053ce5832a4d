"""A slot's tasks as tensors on a grid of stations and indices, from a workload's law or from a task file."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffpolicy.edge.env.measured_tasks import measured_of_file, on_grid
from diffpolicy.edge.physics.file_steps import FileSteps, spans_of
from diffpolicy.edge.physics.queueing import ServerSpeeds, SlotTasks
from diffpolicy.edge.physics.slot_grid import SlotGrid
from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.edge.workload.lad_ts import Workload
from diffpolicy.edge.workload.seeds import Stream
from diffpolicy.edge.workload.task_file import NO_ORIGIN, TaskList
from diffpolicy.errors import InputError


class WorkloadSource:
    """Tasks drawn by a scenario's workload: `slot(k, t)` gives the grids of slots t of episodes k.

    Args:
        scenario: must have a workload.
        seed: at least 0. stream: evaluation or training episodes.
        dtype, device: of the tensors.
    """

    def __init__(
        self, scenario: Scenario, seed: int, stream: Stream, dtype: torch.dtype, device: torch.device | None
    ) -> None:
        if not isinstance(scenario.workload, Workload):
            raise InputError(f"scenario {scenario.name} has no workload of slots")
        self.workload = scenario.workload
        self.models: tuple[str, ...] = ()
        self.seed, self.stream = seed, stream
        self.max_tasks, self.slots = self.workload.max_tasks, scenario.slots
        self._like: dict[str, Any] = {"dtype": dtype, "device": device}
        home = [NO_ORIGIN if s is None else s for s in scenario.stations]
        self._stations = len(home)
        self._index = np.arange(self.max_tasks)
        self._home = torch.tensor(home, device=device).view(1, -1, 1).expand(1, -1, self.max_tasks)
        self._slot_s = torch.tensor([[scenario.slot_s]], dtype=dtype, device=device)
        self._clock_s = torch.tensor([scenario.slot_s], dtype=dtype, device="cpu").double()

    def start_s(self, episode: int) -> float:
        """When an episode's first step begins, seconds."""
        return 0.0

    def last_span(self, slot: list[int]) -> Tensor:
        """How far apart each station's arrivals of the slot before lay, `[E, B]`: they come station by station."""
        known = torch.tensor([[0.0 if t else torch.nan] for t in slot], **self._like)
        return known.expand(-1, self._stations)

    def slot(self, episode: list[int], slot: list[int]) -> SlotGrid:
        drawn = [
            self.workload.draw(self.seed, self.stream, k, t, self._stations) for k, t in zip(episode, slot, strict=True)
        ]
        counted = np.stack([x.counts for x in drawn])
        exists = self._index < counted[..., None]
        valid = torch.as_tensor(exists, device=self._home.device)

        def stack(name: str) -> Tensor:
            arrays = [getattr(x, name) for x in drawn]
            # what is fixed by the task's index is one array of all draws, and is copied once
            alike = all(array is arrays[0] for array in arrays)
            stacked = torch.as_tensor(np.stack(arrays[:1] if alike else arrays), **self._like)
            return stacked.expand(len(drawn), -1, -1)

        most = int(counted.sum(-1).max())
        order = np.argsort(~exists.reshape(len(drawn), -1), axis=1, kind="stable")[:, :most]
        return SlotGrid(
            home=self._home.expand(len(drawn), -1, -1),
            input_mbit=stack("input_mbit"),
            result_mbit=stack("result_mbit"),
            work_gcycles=stack("work_gcycles") * valid,
            valid=valid,
            order=torch.as_tensor(order, device=valid.device),
            duration_s=self._slot_s.expand(len(drawn), -1),
            clock_s=self._clock_s.expand(len(drawn)),
        )


class TaskListSource:
    """Tasks of a file: one environment, one episode; tasks without an origin go to agent 0, who has no server."""

    seed: int | None = None
    """Nothing is drawn."""
    stream: Stream | None = None

    def __init__(
        self, tasks: TaskList, scenario: Scenario, dtype: torch.dtype, device: torch.device | None = None
    ) -> None:
        self.slots = len(tasks.duration_s)
        self._stations = len(scenario.stations)
        self._tasks = tasks
        self._like: dict[str, Any] = {"dtype": dtype, "device": device}
        self._bounds = np.searchsorted(tasks.slot, np.arange(self.slots + 1))
        agent = np.maximum(tasks.origin, 0)
        servers = np.array([NO_ORIGIN if s is None else s for s in scenario.stations])
        self._home = np.where(tasks.origin == NO_ORIGIN, NO_ORIGIN, servers[agent])
        self._servers = torch.as_tensor(servers, device=device)
        self.models, self._measured = measured_of_file(tasks, scenario, self._like)
        by_station = np.lexsort((np.arange(len(agent)), agent, tasks.slot))
        group = tasks.slot[by_station] * self._stations + agent[by_station]
        starts = np.r_[True, group[1:] != group[:-1]]
        index = np.arange(len(group)) - np.maximum.accumulate(np.where(starts, np.arange(len(group)), 0))
        self._index = np.empty(len(group), dtype=np.int64)
        self._index[by_station] = index
        self._agent = agent
        self.max_tasks = int(index.max()) + 1
        spans = spans_of(tasks.slot, agent, self.slots, self._stations)
        self._last_span = torch.as_tensor(np.vstack([np.full((1, self._stations), np.nan), spans]), **self._like)

    def last_span(self, slot: list[int]) -> Tensor:
        """How far apart each station's arrivals of the step before lay, `[E, B]`; see `spans_of`."""
        return self._last_span[slot]

    def rows(self, t: int) -> slice:
        """Rows of the file that a step plays."""
        return slice(self._bounds[t], self._bounds[t + 1]) if t < self.slots else slice(0, 0)

    def start_s(self, episode: int) -> float:
        """When the first step begins, seconds."""
        return self._tasks.start_s

    def cells(self, t: int) -> Tensor:
        """Flat grid index of each task of a step, in the file's order, int64 `[K]`."""
        rows = self.rows(t)
        return torch.as_tensor(self._agent[rows] * self.max_tasks + self._index[rows])

    def steps(self, fleet: ServerSpeeds) -> FileSteps | None:
        """The whole file, for pure physics; None where times are measured, or a size is no number. Args: fleet: S."""
        tasks = self._tasks
        sizes = (tasks.input_mbit, tasks.result_mbit, tasks.work_gcycles)
        if self._measured is not None or not all(np.isfinite(x).all() for x in (*sizes, tasks.duration_s)):
            return None
        mbit, result, work = (torch.as_tensor(x, dtype=torch.float64) for x in sizes)
        valid = torch.ones(len(tasks), dtype=torch.bool)
        return FileSteps(
            starts=self._bounds,
            duration_s=tasks.duration_s,
            tasks=SlotTasks(torch.as_tensor(self._home), mbit, result, work, valid),
            station=self._agent,
            stations=self._stations,
            place=self._index,
            fleet=fleet,
        )

    def slot(self, episode: list[int], slot: list[int]) -> SlotGrid:
        if len(slot) != 1:
            raise InputError(f"a tasks file is played in one environment, not in {len(slot)}")
        t = slot[0]
        rows = self.rows(t)
        order = self.cells(t).to(self._like["device"]).unsqueeze(0)
        shape = (1, self._stations, self.max_tasks)

        def grid(values: np.ndarray[Any, Any], dtype: torch.dtype, fill: float = 0) -> Tensor:
            flat = torch.full((1, shape[1] * shape[2]), fill, dtype=dtype, device=order.device)
            flat[0, order[0]] = torch.as_tensor(values[rows], dtype=dtype, device=order.device)
            return flat.view(shape)

        tasks, real = self._tasks, self._like["dtype"]
        duration = tasks.duration_s[t] if t < self.slots else 0.0
        # where there is no task its station's server stands, so that nobody learns from it who has nothing
        empty = self._servers.view(1, -1, 1).expand(shape).flatten(1).clone()
        home = empty.scatter(1, order, torch.as_tensor(self._home[rows], device=order.device).unsqueeze(0)).view(shape)
        return SlotGrid(
            home=home,
            input_mbit=grid(tasks.input_mbit, real),
            result_mbit=grid(tasks.result_mbit, real),
            work_gcycles=grid(tasks.work_gcycles, real),
            valid=grid(np.ones(len(tasks), dtype=bool), torch.bool),
            order=order,
            duration_s=torch.tensor([[duration]], **self._like),
            clock_s=torch.tensor([duration], dtype=real, device="cpu").double(),
            measured=None if self._measured is None else on_grid(self._measured, rows, order, shape),
        )
