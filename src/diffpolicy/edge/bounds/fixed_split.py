"""The fluid optimum: the best static split of task sizes over servers, and what a unit of work costs on each server.

In the fluid of a scenario's law every slot brings the expected number n_c of tasks of each class c (the task's index,
which fixes its work) and a share x_ca of them goes to server a, always the same. With N_a = sum_c n_c x_ca tasks and
W_a = sum_c n_c x_ca w_c work in a slot, server a's queue grows by g_a = (W_a - f_a D)+ a slot from 0, and a task finds
half of its slot's work before it. Over T slots the mean delay is

    J(x) = 1/N sum_a [ N_a (g_a (T - 1) / 2 + W_a / 2) / f_a + sum_c n_c x_ca (w_c / f_a + transfer_ca) ]

It sees sizes and no state, and leaves out chance: below capacity nothing waits from slot to slot. So it is a guide to
how sizes should be separated and to prices, not a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffpolicy._types import Floats, Ints
from diffpolicy.edge.bounds.episode import Episode, check_linear
from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.edge.workload.lad_ts import Workload
from diffpolicy.errors import InputError

STARTS = 4
"""Starting points that are followed at once, since J is not convex; the best is kept."""


@dataclass(frozen=True)
class StaticSplit:
    """The best split that was found.

    Args:
        share: x, rows sum to one, `[C, S]`. work_gcycles: w of each class, `[C]`. tasks_per_slot: n, `[C]`.
        load: W_a / (f_a D), `[S]`.
        price_s_per_gcycle: what one more Gcycle sent to a server costs all other tasks there, in the mean over the
            slots, seconds, `[S]`; on a server that is just full it is the multiplier of its capacity.
        mean_delay_s: the least mean delay, J.
        residual: Frank and Wolfe's gap over J: how much, to first order, any other split could still gain; 0 where x
            is stationary. J is not convex, so that 0 does not prove the best of all.
    """

    share: Floats
    work_gcycles: Floats
    tasks_per_slot: Floats
    load: Floats
    price_s_per_gcycle: Floats
    mean_delay_s: float
    residual: float

    def draw(self, episode: Episode, seed: int = 0) -> Ints:
        """Decisions `[K]` for an episode's tasks: each drawn from the shares of the class whose work is nearest."""
        nearest = np.abs(episode.work_gcycles[:, None] - self.work_gcycles).argmin(1)
        u = np.random.default_rng(seed).uniform(size=len(nearest))
        reached = self.share.cumsum(1)[nearest]
        server: Ints = np.minimum((u[:, None] >= reached).sum(1), self.share.shape[1] - 1)
        return server


def best_static_split(scenario: Scenario, *, steps: int = 2500, seed: int = 0) -> StaticSplit:
    """Minimises J by mirror descent in Adam's steps, with the kink of g rounded off less and less.

    Args:
        scenario: linear law, no outages, a workload of kind lad-ts, and slots.
        steps: at least 1. seed: of the starting points, at least 0.

    Raises:
        InputError: the scenario is not such a one, or a number is out of range.

    Example:
        >>> split = best_static_split(Scenario.load("lad-ts"), steps=200)
        >>> split.share.shape
        (50, 20)
    """
    check_linear(scenario)
    if not isinstance(scenario.workload, Workload) or scenario.slots is None:
        raise InputError(f"scenario {scenario.name} needs a workload of kind lad-ts and 'slots' for a fluid optimum")
    if steps < 1 or seed < 0:
        raise InputError(f"steps must be at least 1 and seed at least 0, got {steps} and {seed}")
    fluid = _Fluid.of(scenario, scenario.workload, scenario.slots)
    generator = torch.Generator().manual_seed(seed)
    shape = STARTS, *fluid.fixed_s.shape
    start = fluid.capacity.log() + torch.randn(shape, generator=generator, dtype=torch.float64)
    logits = start.clone()
    optimizer = torch.optim.Adam([logits], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=1e-4)
    for n in range(steps):
        share = logits.softmax(-1).requires_grad_()
        (slope,) = torch.autograd.grad(fluid.mean_delay_s(share, _rounding(n, steps)).sum(), share)
        logits.grad = (
            slope / fluid.number[:, None] * fluid.number.sum()
        )  # mirror descent: no share is too small to move
        logits.grad -= (share.detach() * logits.grad).sum(-1, keepdim=True)
        optimizer.step()
        schedule.step()
    return fluid.result(logits.detach().softmax(-1))


LEAST_ROUNDING = 1e-3


def _rounding(n: int, steps: int) -> float:
    """Width of the rounded kink as a share of f D, from 0.1 down in a geometric row."""
    return float(0.1 * (LEAST_ROUNDING / 0.1) ** (n / steps))


@dataclass(frozen=True)
class _Fluid:
    """A scenario's law in numbers. Args: fixed_s: w_c / f_a + transfer_ca, `[C, S]`. growth: (T - 1) / 2."""

    number: Tensor
    work: Tensor
    capacity: Tensor
    fixed_s: Tensor
    slot_s: float
    growth: float

    @classmethod
    def of(cls, scenario: Scenario, workload: Workload, slots: int) -> _Fluid:
        lo, hi = workload.tasks_per_station_and_slot
        like: dict[str, Any] = {"dtype": torch.float64}
        f = torch.tensor([s.capacity_gcycles_per_s for s in scenario.servers], **like)
        v = torch.tensor([s.rate_mbit_per_s for s in scenario.servers], **like)
        counts = np.arange(lo, hi + 1)
        chance = [float((counts > n).mean()) for n in range(hi)]
        work = torch.tensor(workload.gcycles_per_step[:hi], **like) * torch.tensor(workload.steps[:hi], **like)
        result = torch.tensor(workload.result_mbit[:hi], **like)
        at_home = torch.tensor([scenario.stations.count(a) for a in range(len(f))], **like) / len(scenario.stations)
        transfer = ((1 - at_home) * sum(workload.input_mbit) / 2 + result[:, None]) / v
        number = len(scenario.stations) * torch.tensor(chance, **like)
        return cls(number, work, f, work[:, None] / f + transfer, scenario.slot_s, (slots - 1) / 2)

    def mean_delay_s(self, share: Tensor, rounding: float = 0.0) -> Tensor:
        """J of splits `[*, C, S]`, with softplus for ( )+ where `rounding` is above 0."""
        tasks = share * self.number[:, None]
        number, work = tasks.sum(-2), (tasks * self.work[:, None]).sum(-2)
        full = self.capacity * self.slot_s
        width = rounding * full
        over = work - full
        grows = over.clamp_min(0) if not rounding else width * torch.nn.functional.softplus(over / width)
        waiting = number * (grows * self.growth + work / 2) / self.capacity
        return (waiting.sum(-1) + (tasks * self.fixed_s).sum((-2, -1))) / self.number.sum()

    def result(self, shares: Tensor) -> StaticSplit:
        """The best of several splits `[*, C, S]`, with its prices and residual."""
        share = shares[int(self.mean_delay_s(shares).argmin())].requires_grad_()
        rounded = self.mean_delay_s(share, LEAST_ROUNDING)
        (slope,) = torch.autograd.grad(rounded, share)
        share = share.detach()
        gap = (share * slope).sum() - slope.min(-1).values.sum()
        tasks = share * self.number[:, None]
        work, full = (tasks * self.work[:, None]).sum(0), self.capacity * self.slot_s
        growing = torch.sigmoid((work - full) / (LEAST_ROUNDING * full))
        price = tasks.sum(0) * (growing * self.growth + 0.5) / self.capacity
        return StaticSplit(
            share.numpy(),
            self.work.numpy(),
            self.number.numpy(),
            (work / full).numpy(),
            price.numpy(),
            float(self.mean_delay_s(share)),
            float(gap / rounded.detach()),
        )
