"""A slot's tasks as a fleet rule sees them: sizes, costs, how much of the slot has come, and imagined ones."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

from diffpolicy.edge.physics.queueing import ServerSpeeds, SlotTasks, unloaded_delay_s
from diffpolicy.edge.workload.lad_ts import Workload

_SIZES = ("input_mbit", "work_gcycles", "valid", "result_mbit", "home")
READS: list[NestedKey] = [
    *(("agents", x) for x in _SIZES),
    ("servers", "capacity_gcycles_per_s"),
    ("servers", "rate_mbit_per_s"),
    ("servers", "up"),
    "queue_gcycles",
]
"""What every fleet rule reads."""


def turns(order: Tensor, valid: Tensor, mu: Tensor, mixed: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of the slot's tasks that have come and are still to come after each task, `[E, K]` each.

    The station whose task it is knows that it has n and that m of them are left. Where stations come in turn, mu are
    expected of each that was not heard of yet. Where the tasks of B come mixed and k have come, there are two estimates
    of what is left, what is usual less k, and as large a part of it as the station itself has left; their mean is

        max((max(B mu - k, 0) + B mu m / n) / 2, m).

    Args:
        order: flat index of each task in order of arrival, `[E, K]`. valid: `[E, B, N]`. mu: `[E, 1]`.
        mixed: whether stations come mixed, bool `[E]`.
    """
    e, b, n = valid.shape
    station = order // n
    position = (valid.long().cumsum(-1) - 1).flatten(1).gather(1, order)
    counts = valid.sum(-1)
    own = (counts.gather(1, station) - position - 1).clamp_min(0)
    new = torch.zeros(e, b, dtype=torch.int64, device=order.device)
    first = torch.arange(order.shape[1], device=order.device).expand_as(order)
    begin = torch.full_like(new, order.shape[1]).scatter_reduce(1, station, first, "amin")
    heard = (begin.unsqueeze(1) <= first.unsqueeze(-1)).sum(-1)
    left = own + (b - heard) * mu
    done = first + 1
    if b > 1 and mixed.any():
        usual = b * mu
        both = (usual - done).clamp_min(0) + usual * (own.to(mu) / counts.gather(1, station).clamp_min(1))
        left = torch.where(mixed.unsqueeze(-1), torch.maximum(0.5 * both, own.to(mu)), left)
    return done / (done + left), left / (b * mu)


def tasks_of(td: TensorDictBase) -> SlotTasks:
    """The slot's tasks in float64, `[E, B, N]`."""
    a = td["agents"]
    return SlotTasks(
        a["home"], a["input_mbit"].double(), a["result_mbit"].double(), a["work_gcycles"].double(), a["valid"]
    )


def costs_of(tasks: SlotTasks, td: TensorDictBase, measured: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Delay of each task on each server if nothing were queued, and the seconds it keeps it busy, `[E, B, N, S]` each.

    Delays are infinite on servers that are down.

    Args:
        tasks: `[E, B, N]`. td: tells the servers.
        measured: seconds that the tasks would take on each server, `[E, B, N, S]`; None: the linear law.
    """
    f, v = td["servers", "capacity_gcycles_per_s"].double()[:, None], td["servers", "rate_mbit_per_s"].double()[:, None]
    delay = unloaded_delay_s(tasks, ServerSpeeds(f, v))
    linear = tasks.work_gcycles.unsqueeze(-1) / f.unsqueeze(-2)
    if measured is None:
        service = linear.expand_as(delay)
    else:
        service = measured.double() * tasks.valid.unsqueeze(-1)
        delay = delay + service - linear
    down = ~td["servers", "up"][:, None, None]
    return delay.masked_fill(down, torch.inf), service


def possible_tasks(law: Workload, shared_seed: Tensor, home: Tensor) -> tuple[SlotTasks, Tensor]:
    """The tasks that stations may have by a law of arrivals, `[E, B, N]`, and the chances that one has them, `[N]`.

    Args:
        law: of arrivals. shared_seed: of each environment's slot, which draws the inputs, int64 `[E, 1]`.
        home: server at each station, as the environment tells it of every task, int64 `[E, B, *]`.
    """
    e, stations = home.shape[:2]
    n = law.max_tasks
    like: dict[str, Any] = {"dtype": torch.float64, "device": home.device}
    inputs = torch.zeros(e, stations, n, **like)
    for i, seed in enumerate(shared_seed.flatten().tolist()):
        # drawn on the CPU, so that they are the same wherever the fleet is
        generator = torch.Generator().manual_seed(seed)
        inputs[i] = torch.rand(stations, n, generator=generator, dtype=torch.float64, device="cpu").to(home.device)
    least, largest = law.input_mbit
    work = torch.tensor(law.gcycles_per_step[:n], **like) * torch.tensor(law.steps[:n], device=home.device)
    result = torch.tensor(law.result_mbit[:n], **like)
    tasks = SlotTasks(
        home[..., :1].expand(-1, -1, n),
        least + (largest - least) * inputs,
        result.expand_as(inputs),
        work.expand_as(inputs),
        torch.ones_like(inputs, dtype=torch.bool),
    )
    return tasks, torch.from_numpy(law.chances()).to(home.device)
