"""`Episode`: one episode as arrays, and the exact delays of any assignment of it.

An assignment sends each task to a server, which computes its tasks first come, first served. Only the linear law
(work / capacity) without outages is covered. Queues drain after the last step: each task is charged its full delay.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from diffpolicy._types import Floats, Ints
from diffpolicy.edge.env.request_sources import make_source
from diffpolicy.edge.physics.queueing import ServerSpeeds, SlotTasks, unloaded_delay_s
from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.edge.workload.seeds import Stream
from diffpolicy.edge.workload.task_file import TaskList
from diffpolicy.errors import InputError


@dataclass(frozen=True)
class Episode:
    """One episode's K tasks in order of arrival, in T steps, before S servers.

    Args:
        step: number of each task's step, not decreasing, `[K]`.
        work_gcycles: w, `[K]`.
        transfer_s: seconds on the links by server, input and result, `[K, S]`.
        capacity_gcycles_per_s: f, `[S]`.
        duration_s: D, of each step, `[T]`.

    Example:
        >>> episode = Episode.of(Scenario.load("lad-ts"))
        >>> bool(episode.delays_s(episode.greedy()).mean() > pooled_bound(episode).mean_delay_s)
        True
    """

    step: Ints
    work_gcycles: Floats
    transfer_s: Floats
    capacity_gcycles_per_s: Floats
    duration_s: Floats

    @classmethod
    def of(
        cls,
        scenario: Scenario,
        episode: int = 0,
        *,
        seed: int = 0,
        stream: Stream = Stream.EVALUATION,
        tasks: TaskList | None = None,
    ) -> Episode:
        """An episode as `OffloadingEnv` plays it.

        Args:
            scenario: linear law, no outages; has a workload and slots unless tasks are given.
            episode: its number, at least 0. seed: of the arrivals. stream: evaluation or training.
            tasks: a task file's tasks instead of the workload.

        Raises:
            InputError: measured times, outages, no end, no tasks, or a number out of range.
        """
        check_linear(scenario)
        if episode < 0 or seed < 0:
            raise InputError(f"episode and seed must be at least 0, got {episode} and {seed}")
        source = make_source(scenario, tasks, seed, stream, torch.float64, None)
        if source.slots is None:
            raise InputError(f"scenario {scenario.name} has no 'slots', so an episode has no end; give it some")
        f = torch.tensor([s.capacity_gcycles_per_s for s in scenario.servers], dtype=torch.float64)
        v = torch.tensor([s.rate_mbit_per_s for s in scenario.servers], dtype=torch.float64)
        step, work, transfer, duration = [], [], [], []
        for t in range(source.slots):
            grid = source.slot([episode], [t])
            slot = grid.in_order()
            links = SlotTasks(
                slot.origin, slot.input_mbit, slot.result_mbit, torch.zeros_like(slot.input_mbit), slot.valid
            )
            keep = slot.valid[0]
            work.append(slot.work_gcycles[0][keep].numpy())
            transfer.append(unloaded_delay_s(links, ServerSpeeds(f, v))[0][keep].numpy())
            step.append(np.full(len(work[-1]), t))
            duration.append(float(grid.duration_s[0, 0]))
        if not sum(map(len, work)):
            raise InputError(f"no task arrives in episode {episode} of scenario {scenario.name}")
        return cls(np.concatenate(step), np.concatenate(work), np.concatenate(transfer), f.numpy(), np.array(duration))

    def sent(self, server: Ints) -> tuple[Ints, Floats]:
        """Number and work of the tasks that each step sends to each server, `[T, S]` both."""
        shape = len(self.duration_s), len(self.capacity_gcycles_per_s)
        cell = self.step * shape[1] + server
        number: Ints = np.bincount(cell, minlength=shape[0] * shape[1]).astype(np.int64)
        work: Floats = np.bincount(cell, self.work_gcycles, shape[0] * shape[1]).astype(np.float64)
        return number.reshape(shape), work.reshape(shape)

    def queues_gcycles(self, work_gcycles: Floats) -> Floats:
        """Queues at the start of each step for the work `[T, S]` that the steps send, `[T, S]`.

        `max(q + c - f D, 0)`, solved: the running sum of c - f D minus the least value that it has had, 0 included.
        """
        net = (work_gcycles - self.duration_s[:, None] * self.capacity_gcycles_per_s)[:-1].cumsum(0)
        later = net - np.minimum(np.minimum.accumulate(net, 0), 0)
        return np.concatenate([np.zeros((1, net.shape[1])), later])

    def delays_s(self, server: Ints) -> Floats:
        """Service delay of each task under the decisions `server [K]`, seconds `[K]`: as `queueing.slot_delays_s`."""
        tasks, a = np.arange(len(server)), server
        queue = self.queues_gcycles(self.sent(server)[1])
        cell = self.step * queue.shape[1] + a
        order = np.argsort(cell, kind="stable")
        through = self.work_gcycles[order].cumsum()
        first = np.r_[True, np.diff(cell[order]) > 0]
        before = np.where(first, through - self.work_gcycles[order], 0)
        start = before[np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))]
        done = np.empty_like(through)
        done[order] = through - start
        through_s: Floats = (queue[self.step, a] + done) / self.capacity_gcycles_per_s[a]
        return through_s + self.transfer_s[tasks, a]

    def greedy(self) -> Ints:
        """The decisions of `opt-ts`: each task in turn where its own delay is least; ties to the lowest index."""
        f = self.capacity_gcycles_per_s
        unloaded = self.transfer_s + self.work_gcycles[:, None] / f
        server = np.empty(len(self.step), dtype=np.int64)
        queue, now = np.zeros_like(f), 0
        for k, (t, w) in enumerate(zip(self.step.tolist(), self.work_gcycles.tolist(), strict=True)):
            while now < t:
                queue = np.maximum(queue - f * self.duration_s[now], 0)
                now += 1
            server[k] = a = int((queue / f + unloaded[k]).argmin())
            queue[a] += w
        return server


def check_linear(scenario: Scenario) -> None:
    """Refuses what the bounds do not cover.

    Raises:
        InputError: servers with measured times, or with outages.
    """
    if scenario.measured:
        raise InputError(f"scenario {scenario.name} has measured servers; bounds hold for the linear law only")
    for a, server in enumerate(scenario.servers):
        if server.availability is not None:
            raise InputError(f"servers[{a}] of scenario {scenario.name} has outages, which bounds do not cover")
