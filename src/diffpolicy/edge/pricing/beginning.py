"""The fleet as a slot begins, out of what is seen of it, remembered and told."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor

from diffpolicy.edge.physics.queueing import SlotTasks
from diffpolicy.edge.pricing.law import Coefficients, Servers
from diffpolicy.edge.pricing.state import FleetState
from diffpolicy.edge.pricing.told import Told


def begun(
    td: TensorDictBase,
    memory: TensorDictBase,
    seen: SlotTasks,
    told: Told,
    coefficients: Coefficients,
    weight: float = 1.0,
    offered: Tensor | None = None,
) -> FleetState:
    """Fleets as a slot begins.

    Args:
        td: tells the servers. memory: of the slots before. seen: the slot's tasks, for a first slot without a law.
        told: of arrivals. coefficients: the network. weight: of prices.
        offered: tasks and Gcycles of a slot as far as they are known better than by the memory's averages, `[E, 2]`;
            NaN where they are not.
    """
    f, up = td["servers", "capacity_gcycles_per_s"].double(), td["servers", "up"]
    queue = td["queue_gcycles"].double().masked_fill(~up, 0)
    tasks, work = memory["tasks"], memory["work"]
    fresh = tasks.sum(-1, keepdim=True) <= 0
    if fresh.any():
        stations = seen.valid.shape[1]
        share = f * up / (f * up).sum(-1, keepdim=True)
        mean_tasks, mean_work = told.of_a_station(seen)
        tasks = torch.where(fresh, mean_tasks * stations * share, tasks)
        work = torch.where(fresh, mean_work * stations * share, work)
    if offered is not None:
        known = ~offered.isnan()
        tasks, work = (
            torch.where(known[:, i, None], x * (offered[:, i, None] / x.sum(-1, keepdim=True)), x)
            for i, x in enumerate((tasks, work))
        )
    ratio = torch.where(memory["load"] > 0, queue / memory["load"].clamp_min(1e-300), 0.0).clamp_max(1)
    among = f.masked_fill(~up, torch.inf)
    slower = (among.unsqueeze(-2) < among.unsqueeze(-1)).sum(-1).to(f)
    rank = 2 * (slower + 0.5) / up.sum(-1, keepdim=True) - 1
    servers = Servers(queue, memory["waiting"] * ratio, f, tasks, work, rank)
    return FleetState.start(servers, memory["latent"], up, coefficients, step_s=told.step_s, weight=weight)
