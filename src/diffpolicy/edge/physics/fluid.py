"""A slot in the fluid form: each task is replaced by its chances of going to each server.

With p[k, a] the chance that task k of a slot goes to server a and tasks in order of arrival,

    ahead[k, a] = sum over j < k of p[j, a] w_j
    delay[k, a] = [a is not the origin] d / v_a + (q_a + ahead[k, a]) / f_a + w / f_a + r / v_a
    q_a <- max(q_a + sum over k of p[k, a] w_k - f_a D, 0)

The delays are the exact expectations of independent draws, given q; the update of q is a mean-field one, since the
expectation of a maximum is more than the maximum of the expectation. With chances of 0 and 1 all of it is what
`queueing.py` says.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffpolicy.edge.physics.queueing import ServerSpeeds, SlotTasks, next_queue_gcycles, unloaded_delay_s


@dataclass(frozen=True)
class FluidSlot:
    """What becomes of a slot. Args: delay_s: of each task on each server, `[*, K, S]`. next_queue_gcycles: `[*, S]`."""

    delay_s: Tensor
    next_queue_gcycles: Tensor


def fluid_slot(
    probability: Tensor, tasks: SlotTasks, queue_gcycles: Tensor, fleet: ServerSpeeds, duration_s: Tensor
) -> FluidSlot:
    """Expected delays of a slot's tasks on each server, and the queues after it.

    Args:
        probability: p, of each task's server, `[*, K, S]`; each row sums to one.
        tasks: in order of arrival, `[*, K]`.
        queue_gcycles: q at the start of the slot, `[*, S]`.
        fleet: the servers. duration_s: D, `[*, 1]`.
    """
    sent = probability * tasks.work_gcycles.unsqueeze(-1)
    total = sent.cumsum(-2)
    waiting = (queue_gcycles.unsqueeze(-2) + total - sent) / fleet.capacity_gcycles_per_s.unsqueeze(-2)
    delay = (waiting + unloaded_delay_s(tasks, fleet)) * tasks.valid.unsqueeze(-1)
    arrived = total[..., -1, :] if total.shape[-2] else torch.zeros_like(queue_gcycles)
    return FluidSlot(delay, next_queue_gcycles(queue_gcycles, arrived, fleet, duration_s))
