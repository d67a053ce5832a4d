"""`FileSteps`: a task file as pure physics plays it, without an environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffpolicy._types import Floats, Ints
from diffpolicy.edge.physics.queueing import (
    ServerSpeeds,
    SlotTasks,
    next_queue_gcycles,
    slot_delays_s,
    work_sent_gcycles,
)

_CELLS = 2**20
"""Numbers of queues that are held at once."""


@dataclass(frozen=True)
class FileSteps:
    """K tasks in T steps on S servers that never fail, under the linear law, in float64 on the CPU.

    Args:
        starts: number of each step's first task, and K, int64 `[T + 1]`. duration_s: of the steps, `[T]`.
        tasks: all of them in order of arrival, `[K]`.
        station: of each task, 0 of one without an origin, int64 `[K]`. stations: their number, B.
        place: of each task among those of its station and step, int64 `[K]`.
        fleet: `[S]`.
    """

    starts: Ints
    duration_s: Floats
    tasks: SlotTasks
    station: Ints
    stations: int
    place: Ints
    fleet: ServerSpeeds

    @property
    def counts(self) -> Ints:
        """Tasks of each step, `[T]`."""
        return np.diff(self.starts)

    def coming(self) -> tuple[Ints, Ints]:
        """What is to come after each task: of its own station's in the step, and stations not heard of, `[K]` each."""
        step = np.repeat(np.arange(len(self.counts)), self.counts)
        _, group, size = np.unique(step * self.stations + self.station, return_inverse=True, return_counts=True)
        begun = np.cumsum(self.place == 0)
        before = np.append(0, begun)[self.starts[:-1]]
        return size[group.reshape(-1)] - self.place - 1, self.stations - (begun - before[step])

    def spans(self) -> Floats:
        """How far apart the arrivals of a station lie in each step, `[T, B]`; see `spans_of`."""
        step = np.repeat(np.arange(len(self.counts)), self.counts)
        return spans_of(step, self.station, len(self.counts), self.stations)

    def decided(self, decide: Callable[[SlotTasks, Tensor], Tensor]) -> Ints:
        """Decisions of a rule that carries nothing from step to step, `[K]`.

        Args:
            decide: from a step's tasks `[K_t]` and the queues at its start, Gcycles `[S]`, to servers, int64 `[K_t]`.
        """
        queue, servers = torch.zeros_like(self.fleet.rate_mbit_per_s), []
        columns = [x.split(self.counts.tolist()) for x in vars(self.tasks).values()]
        for duration, *parts in zip(torch.as_tensor(self.duration_s), *columns, strict=True):
            of_step = SlotTasks(*parts)
            servers.append(decide(of_step, queue))
            sent = work_sent_gcycles(servers[-1], of_step.work_gcycles, len(queue))
            queue = next_queue_gcycles(queue, sent, self.fleet, duration)
        result: Ints = torch.cat(servers).numpy()
        return result

    def delays_s(self, server: Ints) -> Floats:
        """Service delay of each task under given decisions, `[K]`: `slot_delays_s` of every step.

        Args:
            server: int64 `[K]`.
        """
        f = self.fleet.capacity_gcycles_per_s.numpy()
        delays, queue, s = np.zeros(len(server)), np.zeros(len(f)), len(f)
        block = max(1, _CELLS // s)
        for first in range(0, len(self.duration_s), block):
            steps = slice(first, first + block)
            counts, duration = self.counts[steps], self.duration_s[steps]
            rows = slice(self.starts[first], self.starts[first] + counts.sum())
            cell = np.repeat(np.arange(len(counts)), counts) * s + server[rows]
            sent = np.bincount(cell, self.tasks.work_gcycles.numpy()[rows], len(counts) * s).reshape(-1, s)
            queues, done = np.empty_like(sent), f * duration[:, None]
            for before, came, drained in zip(queues, sent, done, strict=True):
                before[:] = queue  # `next_queue_gcycles`
                queue = np.maximum(queue + came - drained, 0)
            for count in np.unique(counts[counts > 0]):
                of = np.flatnonzero(counts == count)
                k = torch.as_tensor(self.starts[of + first][:, None] + np.arange(count))
                tasks = SlotTasks(*(x[k] for x in vars(self.tasks).values()))
                waits = torch.as_tensor(queues[of])
                delays[k.numpy()] = slot_delays_s(torch.as_tensor(server)[k], tasks, waits, self.fleet).numpy()
        return delays


def spans_of(step: Ints, station: Ints, steps: int, stations: int) -> Floats:
    """How far apart a station's arrivals lie in a step: which share of the others' came between its first and its last.

    0 where stations come in turn, (n - 1) / (n + 1) in the mean of n arrivals among many at random.

    Args:
        step, station: of each arrival, in order, int64 `[K]`. steps, stations: their numbers, T and B.

    Returns:
        `[T, B]`; NaN where a station has fewer than two arrivals, or nobody else has one.
    """
    cell, place = step * stations + station, np.arange(len(step))
    count = np.bincount(cell, minlength=steps * stations)
    first, last = np.full(len(count), len(step)), np.full(len(count), -1)
    np.minimum.at(first, cell, place)
    np.maximum.at(last, cell, place)
    others = np.repeat(np.bincount(step, minlength=steps), stations) - count
    known = (count > 1) & (others > 0)
    between = np.where(known, last - first + 1 - count, 0)
    return np.where(known, between / np.maximum(others, 1), np.nan).reshape(steps, stations)
