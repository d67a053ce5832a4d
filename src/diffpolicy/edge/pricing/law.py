"""The law of the learned price: what a network reads of a server, and what its outputs count.

    score(i, a) = delay of task i on a now + s_ia price_ia,    price_ia = sum_k c_k(a) count_k(i, a),

s_ia being the seconds that i keeps a busy. A price counts the tasks that will wait behind i on a (see
`docs/deciding.md`). The K coefficients c are softplus(SCALE x_0 + BIAS) of a chain's end; the counts are those of now.

These pure functions are the one definition: acting (`state`), the labels of training and the export (`decision`) call
them; `compiled` is their only second form, held equal by tests. The chains are `chains`. Shapes: R fleets of S servers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

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
