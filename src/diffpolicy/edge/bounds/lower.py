"""How far any rule could go: one episode as arrays, its exact delays, and bounds that no assignment of it beats.

An assignment sends each task to a server, which computes its tasks first come, first served. Everything here holds for
assignments that know the whole episode beforehand, so for every rule and policy. Only the linear law (work / capacity)
without outages is covered. Queues drain after the last step: each task is charged its full delay.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from diffpolicy.edge.env.request_sources import make_source
from diffpolicy.edge.physics.queueing import Fleet, SlotTasks, unloaded_delay_s
from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.edge.workload.lad_ts import Stream
from diffpolicy.edge.workload.task_file import TaskList
from diffpolicy.errors import InputError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


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
            transfer.append(unloaded_delay_s(links, Fleet(f, v))[0][keep].numpy())
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


@dataclass(frozen=True)
class LowerBound:
    """No assignment of the episode has a smaller mean delay than `mean_delay_s`, the largest of three bounds.

    Args:
        srpt_s: pooled, preemptive, shortest remaining work first. mean_busy_s: pooled, by mean busy times.
        alone_s: each task on its best server as if it were the only one.
    """

    srpt_s: float
    mean_busy_s: float
    alone_s: float

    @property
    def mean_delay_s(self) -> float:
        """The largest of the three, seconds."""
        return max(self.srpt_s, self.mean_busy_s, self.alone_s)


def pooled_bound(episode: Episode) -> LowerBound:
    """A lower bound on the mean delay of every assignment of an episode, even of one that knows all of it beforehand.

    A task's delay is its transfer tau_ja plus its time in the queue C_j - r_j, where r_j is its arrival, at the start
    of its step (the model lets the queue run during the transfer, so the two add up), and C_j is when its server has
    done it; queues drain after the last step. An assignment is a schedule in which server a works at the rate f_a, on
    one task after the other. Three relaxations, each with all schedules of the model among its own:

    `srpt_s`: transfers cost the least that any server takes; the fleet becomes one machine of capacity F = sum f that
    may interrupt tasks and divide itself among them. At every moment it can work on each task exactly as the fleet
    does, so its least sum of C_j, which shortest remaining work first attains (Schrage 1968), is no larger.

    `mean_busy_s`: let M_j be the mean of the moments at which work is done on j. A server does a task at one stretch at
    the rate f_a, so C_j = M_j + w_j / (2 f_a). The least of tau_ja + w_j / (2 f_a) over a bounds what does not depend
    on time. On the pooled machine sum M_j = sum of integral t x_j(t) dt / w_j, with x_j the rate of work on j, is
    linear in x, so that the available task of the largest 1 / w_j goes first, and may be interrupted (Goemans et al.,
    "Single machine scheduling with release dates", 2002). It keeps what the pooled machine loses: that a task is done
    at the speed of one server.

    `alone_s`: nobody waits; the mean of min_a tau_ja + w_j / f_a.

    What none of them keeps is the order of service: the bound does first what is small, also if it came last.
    """
    f, k = episode.capacity_gcycles_per_s, len(episode.step)
    run_s = episode.work_gcycles[:, None] / f
    arrival_s = float(np.r_[0, episode.duration_s.cumsum()][episode.step].sum())
    ends, _ = _pooled(episode, by_remaining=True)
    _, busy = _pooled(episode, by_remaining=False)
    return LowerBound(
        float((ends - arrival_s) / k + episode.transfer_s.min(1).mean()),
        float((busy - arrival_s) / k + (episode.transfer_s + run_s / 2).min(1).mean()),
        float((episode.transfer_s + run_s).min(1).mean()),
    )


def _pooled(episode: Episode, *, by_remaining: bool) -> tuple[float, float]:
    """Sums of the ends C and of the mean busy times M on one machine that prefers little work, seconds.

    Args:
        by_remaining: prefers what has the least work left instead of the least work.
    """
    capacity = float(episode.capacity_gcycles_per_s.sum())
    clock = np.r_[0, episode.duration_s.cumsum()]
    first = np.searchsorted(episode.step, np.arange(len(clock))).tolist()
    work, heap = episode.work_gcycles.tolist(), list[tuple[float, float, float]]()
    ends = busy = 0.0
    for t, (now, until) in enumerate(zip(clock[:-1].tolist(), [*clock[1:-1].tolist(), np.inf], strict=True)):
        for w in work[first[t] : first[t + 1]]:
            heapq.heappush(heap, (w, w, w))
        while heap and now < until:
            key, left, w = heapq.heappop(heap)
            end = min(now + left / capacity, until)
            if end < until:
                ends, done = ends + end, left
            else:
                done = min((until - now) * capacity, left)
                heapq.heappush(heap, (left - done if by_remaining else key, left - done, w))
            busy += (done / w if w else float(end < until)) * (now + end) / 2
            now = end
    return ends, busy
