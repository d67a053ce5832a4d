"""Single requests in continuous time as steps of the environment, and the choice between the sources of tasks."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffpolicy.edge.env.measured_tasks import as_tensors, kinds, row, service_tables
from diffpolicy.edge.env.slot_sources import TaskListSource, WorkloadSource
from diffpolicy.edge.physics.service import Measured
from diffpolicy.edge.physics.slot_grid import SlotGrid
from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.edge.workload.lad_ts import Workload
from diffpolicy.edge.workload.requests import Requests
from diffpolicy.edge.workload.seeds import Stream
from diffpolicy.edge.workload.task_file import NO_ORIGIN, TaskList
from diffpolicy.errors import InputError

KEPT = 2**23
"""Numbers of drawn requests that a source keeps, beside those of the episodes that are being played."""


class RequestSource:
    """Single requests in continuous time: each step is one request, and lasts until the next one.

    Args:
        scenario: has a workload of requests, and slots: the requests of an episode.
        seed: at least 0. stream: evaluation or training episodes.
        dtype, device: of the tensors.
    """

    max_tasks = 1

    def __init__(
        self, scenario: Scenario, seed: int, stream: Stream, dtype: torch.dtype, device: torch.device | None
    ) -> None:
        if scenario.workload is None or isinstance(scenario.workload, Workload):
            raise InputError(f"scenario {scenario.name} has no workload; give a tasks file, or add 'workload' to it")
        if scenario.slots is None:
            raise InputError(f"scenario {scenario.name} has no 'slots', so an episode has no end; give it some")
        self.workload, self.slots = scenario.workload, scenario.slots
        self.seed, self.stream = seed, stream
        self.models = tuple(self.workload.models)
        self._like: dict[str, Any] = {"dtype": dtype, "device": device}
        self._home = np.array([NO_ORIGIN if s is None else s for s in scenario.stations])
        self._service = service_tables(scenario, self.models, self._like)
        self._drawn: dict[int, tuple[int, Requests, Measured | None]] = {}
        self._numbers = len(fields(Requests)) + (0 if self._service is None else 4 + len(scenario.servers))
        """Of one request, those that a measured service model adds included."""

    def _episode(self, episode: int) -> tuple[Requests, Measured | None]:
        """An episode's requests, one more than it has steps, so that what follows the last step can be seen."""
        known = self._drawn.pop(episode, None)
        if known is None or known[0] != self.seed:
            requests = self.workload.draw(self.seed, self.stream, episode, self.slots + 1, len(self._home))
            known = (self.seed, requests, self._measure(requests))
        self._drawn[episode] = known  # what was used last stands last
        return known[1], known[2]

    def last_span(self, slot: list[int]) -> Tensor:
        """How far apart each station's arrivals of the step before lay, `[E, B]`: NaN, since a step has one arrival."""
        return torch.full((len(slot), len(self._home)), torch.nan, **self._like)

    def _forget(self, played: set[int]) -> None:
        """Drops the episodes that were used longest ago, so that few numbers are kept beside those that are played."""
        spare = KEPT // ((self.slots + 1) * self._numbers)
        for episode in list(self._drawn)[: max(len(self._drawn) - len(played) - spare, 0)]:
            del self._drawn[episode]

    def _measure(self, r: Requests) -> Measured | None:
        if self._service is None:
            return None
        base = self._service.base_s(r.model, r.megapixels, r.steps.astype(float), r.images.astype(float))
        return as_tensors(base, r.model, kinds(r.model, r.megapixels, r.steps), r.images, r.luck_normal, self._like)

    def start_s(self, episode: int) -> float:
        """When an episode's first request arrives, seconds."""
        return float(self._episode(episode)[0].arrival_s[0])

    def slot(self, episode: list[int], slot: list[int]) -> SlotGrid:
        e, b = len(slot), len(self._home)
        drawn = [self._episode(k) for k in episode]
        self._forget({*episode})
        station = np.array([r.station[t] for (r, _), t in zip(drawn, slot, strict=True)])
        valid = torch.as_tensor(station[:, None] == np.arange(b), device=self._like["device"]).unsqueeze(-1)

        def grid(name: str) -> Tensor:
            values = [getattr(r, name)[t] for (r, _), t in zip(drawn, slot, strict=True)]
            return torch.as_tensor(np.array(values), **self._like).view(e, 1, 1) * valid

        last = [min(t + 1, self.slots) for t in slot]
        until = np.array([r.arrival_s[n] for (r, _), n in zip(drawn, last, strict=True)])
        now = np.array([r.arrival_s[t] for (r, _), t in zip(drawn, slot, strict=True)])
        measured = None
        if self._service is not None:
            rows = [row(m, t) for (_, m), t in zip(drawn, slot, strict=True) if m is not None]
            columns = [torch.stack(x) for x in zip(*rows, strict=True)]
            measured = Measured(*(x.view(e, 1, 1, *x.shape[1:]).expand(e, b, 1, *x.shape[1:]) for x in columns))
        return SlotGrid(
            home=torch.as_tensor(self._home, device=self._like["device"]).view(1, b, 1).expand(e, b, 1),
            input_mbit=grid("input_mbit"),
            result_mbit=grid("result_mbit"),
            work_gcycles=grid("work"),
            valid=valid,
            order=torch.as_tensor(station, device=self._like["device"]).unsqueeze(-1),
            duration_s=torch.as_tensor(until - now, **self._like).unsqueeze(-1),
            clock_s=torch.as_tensor(until - now, dtype=self._like["dtype"], device="cpu").double(),
            measured=measured,
        )


Source = WorkloadSource | RequestSource | TaskListSource


def make_source(
    scenario: Scenario,
    tasks: TaskList | None,
    seed: int,
    stream: Stream,
    dtype: torch.dtype,
    device: torch.device | None,
) -> Source:
    """Where an environment's tasks come from: a file's tasks if they are given, else the scenario's workload."""
    if tasks is not None:
        return TaskListSource(tasks, scenario, dtype, device)
    kind = WorkloadSource if isinstance(scenario.workload, Workload) else RequestSource
    return kind(scenario, seed, stream, dtype, device)
