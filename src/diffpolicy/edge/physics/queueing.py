"""The physics of the edge: delays of a slot's tasks and the queues after it, as pure functions on tensors.

Notation of LAD-TS (arXiv 2412.18212): a task of input d, result d~ and work w that arrives at origin o and is sent to
server a waits `T = [a != o] d / v_a + (q_a + c_a) / f_a + w / f_a + d~ / v_a` seconds, where q_a is the work queued on
a at the start of the slot and c_a the work that earlier tasks of the slot sent there. At the end of a slot of length D,
`q_a <- max(q_a + c_a - f_a D, 0)`.

Everywhere `*` is any batch shape, K the tasks of a slot in arrival order and S the number of servers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffpolicy._deprecated import keep_old_names
from diffpolicy.policies.sequential import Score, decide_in_order


@dataclass(frozen=True)
class ServerSpeeds:
    """How fast the servers of a fleet are, and the links to them.

    Args:
        capacity_gcycles_per_s: f, Gcycles/s, `[S]` or `[*, S]`.
        rate_mbit_per_s: v of the link to each, Mbit/s, alike.

    Example:
        >>> fleet = ServerSpeeds(torch.tensor([2.0, 4.0]), torch.tensor([10.0, 10.0]))
        >>> 8.0 / fleet.capacity_gcycles_per_s  # seconds of 8 Gcycles
        tensor([4., 2.])
    """

    capacity_gcycles_per_s: Tensor
    rate_mbit_per_s: Tensor


@dataclass(frozen=True)
class SlotTasks:
    """The tasks of one slot in arrival order.

    Args:
        origin: index of the server that stands at the task's origin, -1 for none, int64 `[*, K]`.
        input_mbit: d, Mbit, `[*, K]`.
        result_mbit: d~, Mbit, `[*, K]`.
        work_gcycles: w, Gcycles, `[*, K]`; zero where `valid` is false.
        valid: which entries are tasks, bool `[*, K]`.

    Example:
        >>> mbit, work = torch.tensor([5.0, 5.0]), torch.tensor([4.0, 4.0])
        >>> tasks = SlotTasks(torch.tensor([0, -1]), mbit, mbit / 5, work, torch.tensor([True, True]))
        >>> work_sent_gcycles(torch.tensor([1, 1]), tasks.work_gcycles, servers=3)
        tensor([0., 8., 0.])
    """

    origin: Tensor
    input_mbit: Tensor
    result_mbit: Tensor
    work_gcycles: Tensor
    valid: Tensor


def unloaded_delay_s(tasks: SlotTasks, fleet: ServerSpeeds) -> Tensor:
    """Delay of every task on every server if nothing were queued.

    Args:
        tasks: the slot's tasks, K of them.
        fleet: the servers, S of them.

    Returns:
        `w / f + d~ / v + [a != o] d / v`, seconds `[*, K, S]`.

    Example:
        >>> fleet = ServerSpeeds(torch.tensor([2.0, 4.0]), torch.tensor([10.0, 10.0]))
        >>> mbit, work = torch.tensor([5.0]), torch.tensor([4.0])
        >>> unloaded_delay_s(SlotTasks(torch.tensor([0]), mbit, mbit / 5, work, torch.tensor([True])), fleet)
        tensor([[2.1000, 1.6000]])
    """
    f, v = fleet.capacity_gcycles_per_s.unsqueeze(-2), fleet.rate_mbit_per_s.unsqueeze(-2)
    away = tasks.origin.unsqueeze(-1) != torch.arange(f.shape[-1], device=f.device)
    delay = tasks.work_gcycles.unsqueeze(-1) / f + tasks.result_mbit.unsqueeze(-1) / v
    return delay + away * (tasks.input_mbit.unsqueeze(-1) / v)


def work_sent_gcycles(server: Tensor, work_gcycles: Tensor, servers: int) -> Tensor:
    """Work that a slot's decisions send to each server.

    Args:
        server: decisions, int64 `[*, K]`.
        work_gcycles: `[*, K]`, zero for entries that are no tasks.
        servers: their number, S.

    Returns:
        Gcycles `[*, S]`.

    Example:
        >>> work_sent_gcycles(torch.tensor([1, 0, 1]), torch.tensor([3.0, 2.0, 1.0]), servers=2)
        tensor([2., 4.])
    """
    zeros = work_gcycles.new_zeros(*work_gcycles.shape[:-1], servers)
    return zeros.scatter_add(-1, server, work_gcycles)


def work_ahead_gcycles(server: Tensor, work_gcycles: Tensor, servers: int) -> Tensor:
    """Work that earlier tasks of the slot sent to each task's own server, c.

    A stable sort by server makes each server's tasks a contiguous run in arrival order; an exclusive running sum
    minus its value at the start of the run is the work ahead. O(K log K) instead of O(K S).

    Args:
        server: decisions in arrival order, int64 `[*, K]`.
        work_gcycles: `[*, K]`, zero for entries that are no tasks.
        servers: their number, S.

    Returns:
        Gcycles `[*, K]`.

    Example:
        >>> work_ahead_gcycles(torch.tensor([1, 0, 1]), torch.tensor([3.0, 2.0, 1.0]), servers=2)
        tensor([0., 0., 3.])
    """
    order = server.argsort(dim=-1, stable=True)
    sorted_work = work_gcycles.gather(-1, order)
    before = sorted_work.cumsum(-1) - sorted_work
    sent = work_sent_gcycles(server, work_gcycles, servers)
    start = (sent.cumsum(-1) - sent).gather(-1, server.gather(-1, order))
    return torch.empty_like(before).scatter(-1, order, before - start).clamp_min(0)


def slot_delays_s(server: Tensor, tasks: SlotTasks, queue_gcycles: Tensor, fleet: ServerSpeeds) -> Tensor:
    """Service delay of each task of a slot under given decisions, as LAD-TS counts it (arXiv 2412.18212).

    Args:
        server: decisions, int64 `[*, K]`.
        tasks: the slot's tasks.
        queue_gcycles: q at the start of the slot, Gcycles, `[*, S]`.
        fleet: the servers.

    Returns:
        `[a != o] d / v_a + (q_a + c_a) / f_a + w / f_a + d~ / v_a`, seconds `[*, K]`; zero where not valid.

    Example:
        >>> fleet = ServerSpeeds(torch.tensor([2.0, 4.0]), torch.tensor([10.0, 10.0]))
        >>> mbit, work = torch.tensor([5.0, 5.0]), torch.tensor([4.0, 4.0])
        >>> tasks = SlotTasks(torch.tensor([0, 0]), mbit, mbit / 5, work, torch.tensor([True, True]))
        >>> slot_delays_s(torch.tensor([1, 1]), tasks, torch.zeros(2), fleet)  # the second waits for the first
        tensor([1.6000, 2.6000])
    """
    f = fleet.capacity_gcycles_per_s.expand_as(queue_gcycles).gather(-1, server)
    v = fleet.rate_mbit_per_s.expand_as(queue_gcycles).gather(-1, server)
    ahead = work_ahead_gcycles(server, tasks.work_gcycles, queue_gcycles.shape[-1])
    transfer = torch.where(server == tasks.origin, 0.0, tasks.input_mbit) / v
    waiting = (queue_gcycles.gather(-1, server) + ahead) / f
    delay = transfer + waiting + tasks.work_gcycles / f + tasks.result_mbit / v
    return torch.where(tasks.valid, delay, 0.0)


def next_queue_gcycles(queue_gcycles: Tensor, sent_gcycles: Tensor, fleet: ServerSpeeds, duration_s: Tensor) -> Tensor:
    """Queues at the end of a slot.

    Args:
        queue_gcycles: q at its start, Gcycles, `[*, S]`.
        sent_gcycles: c, the work that was sent in it, Gcycles, `[*, S]`.
        fleet: the servers.
        duration_s: D, its length in seconds, `[*, 1]`.

    Returns:
        `max(q + c - f D, 0)`, Gcycles `[*, S]`.

    Example:
        >>> fleet = ServerSpeeds(torch.tensor([2.0, 4.0]), torch.tensor([10.0, 10.0]))
        >>> next_queue_gcycles(torch.tensor([5.0, 0.0]), torch.tensor([1.0, 3.0]), fleet, torch.tensor([1.0]))
        tensor([4., 0.])
    """
    return (queue_gcycles + sent_gcycles - fleet.capacity_gcycles_per_s * duration_s).clamp_min(0)


def assign_in_order(score: Score, tasks: SlotTasks, queue_gcycles: Tensor, work_on: Tensor | None = None) -> Tensor:
    """Decides a slot's tasks one after the other; each sees the queues that the earlier ones left.

    Args:
        score: `score(k, queue)` with the live queues `[*, S]` gives task k's cost of each server, `[*, S]`; the
            smallest wins, ties go to the lowest index.
        tasks: the slot's tasks.
        queue_gcycles: queues at the start of the slot, Gcycles, `[*, S]`; not changed.
        work_on: what a task adds to each server's queue where that is not its own work, `[*, K, S]`.

    Returns:
        Decisions, int64 `[*, K]`.

    Example:
        >>> work = torch.tensor([3.0, 1.0, 1.0])
        >>> tasks = SlotTasks(torch.tensor([0, 0, 0]), work, work, work, torch.tensor([True, True, True]))
        >>> assign_in_order(lambda k, queue: queue, tasks, torch.zeros(2))
        tensor([0, 1, 1])
    """
    return decide_in_order(score, tasks.work_gcycles, queue_gcycles, work_on)


keep_old_names(__name__)
