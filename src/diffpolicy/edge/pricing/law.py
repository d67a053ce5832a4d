"""The law of the learned price: what a network reads of a server, and what its outputs count.

    score(i, a) = delay of task i on a now + s_ia price_ia,    price_ia = sum_k c_k(a) count_k(i, a),

s_ia being the seconds that i keeps a busy. A price counts the tasks that will wait behind i on a (see
`docs/deciding.md`). The K coefficients c are softplus(SCALE x_0 + BIAS) of a chain's end; the counts are those of now.

These pure functions are the one definition: acting (`state`), the labels of training and the export (`decision`) call
them; `compiled` is their only second form, held equal by tests. Shapes: R fleets of S servers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from diffpolicy.diffusion.sampler import ReverseStep
from diffpolicy.diffusion.samplers import run
from diffpolicy.networks.set_denoiser import SetDenoiser

LATENTS = 5
"""K: coefficients of one server's price, the x_0 of the chain."""
SCALE = 4.0
"""A coefficient is softplus(SCALE x + bias)."""
BIAS = (0.54, -2.0, -3.0, -3.0, -1.0)
"""Biases of the K coefficients: at x = 0 a price counts the tasks that the slot will still bring, and little else."""
CEILING = 200.0
"""Services, or tasks, towards which the logarithms of backlogs saturate: beyond it a policy sees how they compare, and
what it learned in some hundred slots holds for longer ones."""
TASKS_PER_SERVER = 160.0
"""Memory of the moving averages, in tasks a server: after so many a step counts for 1 / e."""

OVER = (0.02, 0.12)
"""Overloads between which the set of parameters for overload takes over from the one for less; see `shares`."""
BUSY, LONG = (2.0, 6.0), (60.0, 180.0)
"""Values of tau between which the sets for overload and for long overload take over; see `shares`."""
LEAST_OVERLOAD = 0.05
"""Overload, at least, by which the seconds of a backlog are divided."""

Coefficients = Callable[[Tensor, Tensor], Tensor]
"""`(features [*, F], latents [*, K]) -> x_0 [*, K]`: the network, or the chain."""


class Servers(NamedTuple):
    """What a price knows of servers, `[R, S]` each.

    Args:
        load: work queued and sent, Gcycles. waiting: tasks that wait.
        capacity: Gcycles/s. tasks, work: moving averages of what it is sent in a step, tasks and Gcycles.
        capacity_rank: of its capacity, from -1 to 1.
    """

    load: Tensor
    waiting: Tensor
    capacity: Tensor
    tasks: Tensor
    work: Tensor
    capacity_rank: Tensor


class Whole(NamedTuple):
    """What a price knows of a fleet, over the servers that are up, `[R, 1]` each.

    Args:
        number: of them. capacity: of all, Gcycles/s. tasks, work: means of the servers' averages, above zero.
    """

    number: Tensor
    capacity: Tensor
    tasks: Tensor
    work: Tensor

    @classmethod
    def of(cls, servers: Servers, up: Tensor) -> Whole:
        """The fleet that these servers are. Args: up: bool `[R, S]`."""
        here = up.to(servers.load)
        count = here.sum(-1, keepdim=True)
        capacity, tasks, work = (
            (x * here).sum(-1, keepdim=True) for x in (servers.capacity, servers.tasks, servers.work)
        )
        return cls.told(count, capacity, tasks / count, work / count)

    @classmethod
    def told(cls, count: Tensor, capacity: Tensor, tasks: Tensor, work: Tensor) -> Whole:
        """The fleet of given sums, kept above zero."""
        return cls(count, capacity, tasks.clamp_min(1e-9), work.clamp_min(1e-12))

    @property
    def service_s(self) -> Tensor:
        """Seconds that a mean task takes on a mean server."""
        return self.work / self.tasks * self.number / self.capacity


class Features(NamedTuple):
    """What the network reads of a server, in this order: no seconds, no number of servers, no clock.

    Args:
        backlog, fleet_backlog: in mean services; logarithms that saturate. excess: their difference over their sum.
        capacity: over the mean, logarithm. capacity_rank, backlog_rank: from -1 to 1.
        share: of the fleet's tasks, logarithm. task_work: mean work of its tasks over the fleet's, logarithm.
        overload: offered work over what the fleet can do in a step, minus 1, from -1 to 2.
        turn: share of the slot's tasks that have come.
        waiting: tasks that wait; saturating. tasks: of a slot and server, logarithm.
        fleet_fill, fill: backlogs of the fleet and of the server, x / (x + a step).
    """

    backlog: Tensor
    fleet_backlog: Tensor
    excess: Tensor
    capacity: Tensor
    capacity_rank: Tensor
    backlog_rank: Tensor
    share: Tensor
    task_work: Tensor
    overload: Tensor
    turn: Tensor
    waiting: Tensor
    tasks: Tensor
    fleet_fill: Tensor
    fill: Tensor

    def stacked(self) -> Tensor:
        """The network's input, `[R, S, F]`."""
        return torch.stack([x.expand_as(self.backlog) for x in self], -1)


_OVERLOAD, _FLEET_FILL = (Features._fields.index(name) for name in ("overload", "fleet_fill"))
FEATURES = len(Features._fields)
"""F: scale-free features of one server."""


def saturating(x: Tensor) -> Tensor:
    """A logarithm that saturates: log((1 + x) / (1 + x / CEILING)) / 4."""
    return 0.25 * ((1 + x) / (1 + x / CEILING)).log()


def rank(below: Tensor, number: Tensor) -> Tensor:
    """A place among a number of servers, from -1 to 1. Args: below: how many have less."""
    return 2 * (below + 0.5) / number - 1


def features(
    servers: Servers, whole: Whole, fleet_load: Tensor, backlog_rank: Tensor, turn: Tensor, step_s: float | Tensor
) -> Features:
    """What the network reads of servers.

    Args:
        servers: any of the fleet's. whole: of all of them that are up.
        fleet_load: their load, Gcycles `[R, 1]`. backlog_rank: of each among them, see `rank`, `[R, S]`.
        turn: share of the slot's tasks that have come, `[R, 1]`.
        step_s: usual length of a step, seconds; a decision that is traced gives it as a tensor `[1]`.
    """
    backlog, fleet_s, mean_s = servers.load / servers.capacity, fleet_load / whole.capacity, whole.service_s
    tasks, work = servers.tasks + 0.1 * whole.tasks, servers.work + 0.1 * whole.work
    return Features(
        backlog=saturating(backlog / mean_s),
        fleet_backlog=saturating(fleet_s / mean_s),
        excess=(backlog - fleet_s) / (backlog + fleet_s + mean_s),
        capacity=(servers.capacity * whole.number / whole.capacity).log(),
        capacity_rank=servers.capacity_rank,
        backlog_rank=backlog_rank,
        share=(tasks / (1.1 * whole.tasks)).log(),
        task_work=(work / tasks * whole.tasks / whole.work).log(),
        overload=(whole.work * whole.number / (whole.capacity * step_s) - 1).clamp(-1, 2),
        turn=turn,
        waiting=saturating(servers.waiting),
        tasks=0.25 * whole.tasks.log1p(),
        fleet_fill=fleet_s / (fleet_s + step_s),
        fill=backlog / (backlog + step_s),
    )


def shares(overload: Tensor, fleet_fill: Tensor) -> Tensor:
    """How much each of three sets of parameters counts, `[*, 3]`: for low load, for overload, for long overload.

    tau = (backlog seconds / slot) / max(overload, LEAST_OVERLOAD) is about how many slots the overload has lasted, read
    off what it left, since no clock is known. The last set takes over as log(1 + tau) passes between those of LONG; of
    the rest, the second one has what overload and tau say together, between OVER and between those of BUSY.

    Args:
        overload, fleet_fill: of `Features`, `[*]`.
    """
    backlog = fleet_fill / (1 - fleet_fill)
    age = (backlog / overload.clamp_min(LEAST_OVERLOAD)).log1p()
    busy, long = (
        ((age - math.log1p(least)) / (math.log1p(most) - math.log1p(least))).clamp(0, 1) for least, most in (BUSY, LONG)
    )
    busy = busy * ((overload - OVER[0]) / (OVER[1] - OVER[0])).clamp(0, 1)
    return torch.stack([(1 - long) * (1 - busy), (1 - long) * busy, long], -1)


def coefficients(x0: Tensor, weight: float = 1.0) -> Tensor:
    """What a chain's end says each count weighs, `[*, K]`. Args: x0: `[*, K]`. weight: of prices."""
    return weight * softplus(SCALE * x0 + torch.tensor(BIAS, dtype=x0.dtype, device=x0.device))


class Terms(NamedTuple):
    """A price as a function of what changes from task to task, `[R, S]` each; see `price`."""

    rest: Tensor
    backlog: Tensor
    fixed: Tensor
    service: Tensor


def terms(c: Tensor, servers: Servers, whole: Whole, step_s: float | Tensor) -> Terms:
    """The counts of now but for what changes from task to task, weighed. Args: c: of `coefficients`, `[R, S, K]`.

    The counts are the tasks that the slot will still bring there, those that wait there now, the server's rate times
    the fleet's backlog, the fleet's rate, and the server's rate times the seconds that the task itself takes.
    """
    of_rest, of_waiting, of_backlog, of_fleet, of_service = c.unbind(-1)
    rate = servers.tasks / step_s
    return Terms(
        rest=servers.tasks * of_rest,
        backlog=rate * of_backlog,
        fixed=servers.waiting * of_waiting + whole.tasks * of_fleet,
        service=rate * of_service,
    )


def price(of: Terms, rest: Tensor, fleet_s: Tensor, service_s: Tensor) -> Tensor:
    """Tasks that will wait behind a task on each server, `[R, S]`.

    Args:
        of: the servers' terms. rest: share of a slot's tasks still to come, this one among them, `[R, 1]`.
        fleet_s: backlog of the whole fleet, seconds `[R, 1]`. service_s: that the task keeps each busy, `[R, S]`.
    """
    at_once = torch.addcmul(torch.addcmul(of.fixed, of.rest, rest), of.backlog, fleet_s)
    return torch.addcmul(at_once, of.service, service_s)


def counts(
    servers: Servers, whole: Whole, rest: Tensor, fleet_s: Tensor, service_s: Tensor, step_s: float | Tensor
) -> Tensor:
    """What the coefficients weigh, `[R, S, K]`, for one task: `price` is the sum of their products. Args: see `price`.

    To place many tasks, `terms` weighs once what stays; for one task this is fewer operations.
    """
    rate = servers.tasks / step_s
    of_fleet = whole.tasks.expand_as(rate)
    return torch.stack([servers.tasks * rest, servers.waiting, rate * fleet_s, of_fleet, rate * service_s], -1)


@dataclass(frozen=True)
class PriceChain:
    """The coefficients' chain of every server, a `Coefficients` that has a compiled form.

    Args:
        denoiser: predicts x_0. path: its reverse steps, which spread nothing.
        remember: whether it starts from the remembered x_0; otherwise from zero.
    """

    denoiser: SetDenoiser
    path: Sequence[ReverseStep]
    remember: bool

    def __call__(self, features: Tensor, latents: Tensor) -> Tensor:
        prepared = self.denoiser.prepare(features)
        start = latents if self.remember else torch.zeros_like(latents)
        return run(lambda x, i: self.denoiser(x, i, prepared), start, list(self.path))

    @property
    def chains(self) -> tuple[PriceChain, ...]:
        """Itself alone: no other set of parameters."""
        return (self,)

    @property
    def compilable(self) -> bool:
        """Whether the compiled form, which is of float64 and sums in four parts, computes it."""
        return self.denoiser.out.dtype == torch.float64 and self.denoiser.hidden % 4 == 0

    def to(self, dtype: torch.dtype) -> PriceChain:
        """The same chain, computed in another precision."""
        if self.denoiser.out.dtype == dtype:
            return self
        # a shallow copy, since a policy asks at every step: whatever else a deep copy would find is not computed with
        other = copy.copy(self.denoiser)
        other._parameters = {name: nn.Parameter(x.detach().to(dtype)) for name, x in self.denoiser.named_parameters()}
        return PriceChain(other, self.path, self.remember)


@dataclass(frozen=True)
class GatedChain:
    """Three sets of parameters, of which what a fleet has behind it says how much each counts: a `Coefficients`.

        x_0 = sum_m share_m x_0^m, each chain from the same remembered x_0.

    Args:
        chains: for low load, for overload and for long overload, of one width and memory; see `shares`.
    """

    chains: tuple[PriceChain, ...]

    def __call__(self, features: Tensor, latents: Tensor) -> Tensor:
        share = shares(features[..., _OVERLOAD], features[..., _FLEET_FILL])
        each = torch.stack([chain(features, latents) for chain in self.chains], -1)
        return (each * share.unsqueeze(-2)).sum(-1)

    @property
    def remember(self) -> bool:
        """Of each of them."""
        return self.chains[0].remember

    @property
    def compilable(self) -> bool:
        """Whether the compiled form computes it."""
        alike = len({(chain.denoiser.hidden, chain.remember) for chain in self.chains}) == 1
        return alike and all(chain.compilable for chain in self.chains)

    def to(self, dtype: torch.dtype) -> GatedChain:
        """The same chains, computed in another precision."""
        return GatedChain(tuple(chain.to(dtype) for chain in self.chains))
