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

from diffpolicy.policies.sequential import Score, decide_in_order


@dataclass(frozen=True)
class Fleet:
    """What the servers are. Args: capacity_gcycles_per_s: f, `[S]` or `[*, S]`. rate_mbit_per_s: v, alike."""

    capacity_gcycles_per_s: Tensor
    rate_mbit_per_s: Tensor


@dataclass(frozen=True)
class SlotTasks:
    """The tasks of one slot in arrival order.

    Args:
        origin: index of the server that stands at the task's origin, -1 for none, int64 `[*, K]`.
        input_mbit: d, `[*, K]`.
        result_mbit: d~, `[*, K]`.
        work_gcycles: w, `[*, K]`; zero where `valid` is false.
        valid: which entries are tasks, bool `[*, K]`.
    """

    origin: Tensor
    input_mbit: Tensor
    result_mbit: Tensor
    work_gcycles: Tensor
    valid: Tensor


def unloaded_delay_s(tasks: SlotTasks, fleet: Fleet) -> Tensor:
    """Delay of every task on every server if nothing were queued, seconds `[*, K, S]`."""
    f, v = fleet.capacity_gcycles_per_s.unsqueeze(-2), fleet.rate_mbit_per_s.unsqueeze(-2)
    away = tasks.origin.unsqueeze(-1) != torch.arange(f.shape[-1], device=f.device)
    delay = tasks.work_gcycles.unsqueeze(-1) / f + tasks.result_mbit.unsqueeze(-1) / v
    return delay + away * (tasks.input_mbit.unsqueeze(-1) / v)


def work_sent_gcycles(server: Tensor, work_gcycles: Tensor, servers: int) -> Tensor:
    """Work that a slot's decisions send to each server, Gcycles `[*, S]`.

    Args:
        server: decisions, int64 `[*, K]`.
        work_gcycles: `[*, K]`, zero for entries that are no tasks.
        servers: their number, S.
    """
    zeros = work_gcycles.new_zeros(*work_gcycles.shape[:-1], servers)
    return zeros.scatter_add(-1, server, work_gcycles)


def work_ahead_gcycles(server: Tensor, work_gcycles: Tensor, servers: int) -> Tensor:
    """Work that earlier tasks of the slot sent to each task's own server, c, Gcycles `[*, K]`.

    A stable sort by server makes each server's tasks a contiguous run in arrival order; an exclusive running sum
    minus its value at the start of the run is the work ahead. O(K log K) instead of O(K S).
    """
    order = server.argsort(dim=-1, stable=True)
    sorted_work = work_gcycles.gather(-1, order)
    before = sorted_work.cumsum(-1) - sorted_work
    sent = work_sent_gcycles(server, work_gcycles, servers)
    start = (sent.cumsum(-1) - sent).gather(-1, server.gather(-1, order))
    return torch.empty_like(before).scatter(-1, order, before - start).clamp_min(0)


def slot_delays_s(server: Tensor, tasks: SlotTasks, queue_gcycles: Tensor, fleet: Fleet) -> Tensor:
    """Service delay of each task of a slot under given decisions, seconds `[*, K]`; zero where not valid.

    Args:
        server: decisions, int64 `[*, K]`.
        tasks: the slot's tasks.
        queue_gcycles: q at the start of the slot, `[*, S]`.
        fleet: the servers.
    """
    f = fleet.capacity_gcycles_per_s.expand_as(queue_gcycles).gather(-1, server)
    v = fleet.rate_mbit_per_s.expand_as(queue_gcycles).gather(-1, server)
    ahead = work_ahead_gcycles(server, tasks.work_gcycles, queue_gcycles.shape[-1])
    transfer = torch.where(server == tasks.origin, 0.0, tasks.input_mbit) / v
    waiting = (queue_gcycles.gather(-1, server) + ahead) / f
    delay = transfer + waiting + tasks.work_gcycles / f + tasks.result_mbit / v
    return torch.where(tasks.valid, delay, 0.0)


def next_queue_gcycles(queue_gcycles: Tensor, sent_gcycles: Tensor, fleet: Fleet, duration_s: Tensor) -> Tensor:
    """Queues at the end of a slot, `max(q + c - f D, 0)`, Gcycles `[*, S]`. Args: duration_s: D, `[*, 1]`."""
    return (queue_gcycles + sent_gcycles - fleet.capacity_gcycles_per_s * duration_s).clamp_min(0)


def assign_in_order(score: Score, tasks: SlotTasks, queue_gcycles: Tensor, work_on: Tensor | None = None) -> Tensor:
    """Decides a slot's tasks one after the other; each sees the queues that the earlier ones left.

    Args:
        score: `score(k, queue)` with the live queues `[*, S]` gives task k's cost of each server, `[*, S]`; the
            smallest wins, ties go to the lowest index.
        tasks: the slot's tasks.
        queue_gcycles: queues at the start of the slot, `[*, S]`; not changed.
        work_on: what a task adds to each server's queue where that is not its own work, `[*, K, S]`.

    Returns:
        Decisions, int64 `[*, K]`.
    """
    return decide_in_order(score, tasks.work_gcycles, queue_gcycles, work_on)
