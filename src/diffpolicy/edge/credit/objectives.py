"""What a team may want of its tasks' delays: differentiable costs of an outcome, to be combined with plain arithmetic.

An **outcome** is a tensordict whose last dimensions are K tasks and A alternatives: the S servers of the fluid form,
with chances as weights, or the one server on which a task was played. Its keys:

* `delay_s`, `weight`: `[*, K, A]`; the weights of a task sum to one, those of an entry that is no task are zero.
* `work_gcycles`: `[*, K]`.
* `unloaded_s`: the delay on the server that is best if nothing is queued, `[*, K]`; of played rollouts from level
  `stale` on.
* `energy_j`, `price`: what a task costs on each alternative, `[*, K, A]`; where all servers have `power_w`,
  `price_per_hour`.

An objective is any function from an outcome to a scalar, as `lambda o: mean_delay_s(o) + 0.1 * cvar_delay_s(o, 0.99)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from diffpolicy.edge.physics.queueing import ServerSpeeds, SlotTasks, unloaded_delay_s
from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.errors import InputError

Objective = Callable[[TensorDictBase], Tensor]


def mean_delay_s(outcome: TensorDictBase) -> Tensor:
    """Mean service delay, seconds."""
    return _mean(outcome, outcome["delay_s"])


def mean_slowdown(outcome: TensorDictBase) -> Tensor:
    """Mean of delay / unloaded delay: how many times longer than on an empty fleet; small tasks count as much."""
    _need(outcome, "unloaded_s", "the tasks' results and homes, which a rollout has from level stale on")
    unloaded = outcome["unloaded_s"]
    return _mean(outcome, outcome["delay_s"] / torch.where(unloaded > 0, unloaded, 1.0).unsqueeze(-1))


def cvar_delay_s(outcome: TensorDictBase, level: float = 0.95) -> Tensor:
    """Mean delay of the slowest 1 - level of the tasks, seconds: the conditional value at risk.

    min over eta of eta + E[(delay - eta)+] / (1 - level) (Rockafellar & Uryasev 2000); the best eta is the quantile,
    which therefore needs no gradient, and the task that stands at it counts in part.

    Args:
        outcome: see above. level: from 0 (the mean) to below 1.
    """
    if not 0 <= level < 1:
        raise InputError(f"level must be at least 0 and below 1, got {level}")
    delay, weight = outcome["delay_s"].flatten(), outcome["weight"].flatten()
    with torch.no_grad():
        ordered, place = delay.sort()
        each = weight[place].double()
        below = each.cumsum(0)
        slow = (below - level * below[-1]).clamp_min(0)
        eta = ordered[(slow > 0).byte().argmax()]
        part = torch.where(each > 0, slow / each.clamp_min(1e-300), 0.0).clamp_max(1)
        part = torch.empty_like(delay).scatter(0, place, part.to(delay))
    tail: Tensor = eta + (weight * part * (delay - eta)).sum() / weight.sum() / (1 - level)
    return tail


def late_share(outcome: TensorDictBase, deadline_s: float, softness_s: float = 0.1) -> Tensor:
    """Share of tasks that take longer than a deadline.

    Args:
        outcome: see above. deadline_s: of all tasks.
        softness_s: a task counts as sigmoid((delay - deadline) / softness); 0: as late or not, without a gradient.
    """
    if softness_s < 0:
        raise InputError(f"softness_s must be at least 0, got {softness_s}")
    over = outcome["delay_s"] - deadline_s
    return _mean(outcome, (over > 0).to(over) if softness_s == 0 else (over / softness_s).sigmoid())


def size_weighted_delay_s(outcome: TensorDictBase, fairness: float) -> Tensor:
    """Mean delay in which a task counts as work^fairness, seconds.

    Args:
        outcome: see above.
        fairness: 0 is the mean over tasks, 1 the mean over units of work, and large values look at the largest tasks
            alone.
    """
    work = outcome["work_gcycles"]
    known = (outcome["weight"].sum(-1) > 0) & (work > 0)
    share = torch.where(known, work / work.max().clamp_min(1e-30), 1.0).pow(fairness) * known
    weight = outcome["weight"] * share.unsqueeze(-1)
    mean: Tensor = (weight * outcome["delay_s"]).sum() / weight.sum()
    return mean


def mean_energy_j(outcome: TensorDictBase) -> Tensor:
    """Mean electrical energy of a task's computation, its server's power x busy time, joules."""
    _need(outcome, "energy_j", "'power_w' of every server of the scenario")
    return _mean(outcome, outcome["energy_j"])


def mean_price(outcome: TensorDictBase) -> Tensor:
    """Mean price of a task's computation, its server's price per hour x busy time."""
    _need(outcome, "price", "'price_per_hour' of every server of the scenario")
    return _mean(outcome, outcome["price"])


def named_objective(text: str) -> Objective:
    """An objective by its name: `mean`, `slowdown`, `cvar:LEVEL`, `late:SECONDS` or `size:FAIRNESS`.

    `late` counts a task as late or not, so it has no gradient; the others are those of this module.

    Args:
        text: the name, and its number where it takes one: from 0, a level below 1.

    Raises:
        InputError: there is none of that name, or its number is missing or out of range.
    """
    name, _, number = text.partition(":")
    plain: dict[str, Objective] = {"mean": mean_delay_s, "slowdown": mean_slowdown}
    if name in plain and not number:
        return plain[name]
    ranges = {"cvar": (0.0, 1.0), "late": (0.0, math.inf), "size": (0.0, math.inf)}
    try:
        value = float(number)
        lo, hi = ranges[name]
    except (KeyError, ValueError):
        raise InputError(
            f"an objective is mean, slowdown, cvar:LEVEL, late:SECONDS or size:FAIRNESS, got {text!r}"
        ) from None
    if not lo <= value < hi:
        raise InputError(f"the number of objective {text!r} must be at least {lo:g} and below {hi:g}")
    if name == "cvar":
        return partial(cvar_delay_s, level=value)
    if name == "late":
        return partial(late_share, deadline_s=value, softness_s=0.0)
    return partial(size_weighted_delay_s, fairness=value)


def busy_costs(work_gcycles: Tensor, scenario: Scenario) -> dict[str, Tensor]:
    """`energy_j` and `price` of work on each server, `[*, S]`, where the scenario has them. Args: work: `[*]`."""
    like = work_gcycles.new_tensor
    busy_s = work_gcycles.unsqueeze(-1) / like([s.capacity_gcycles_per_s for s in scenario.servers])
    power = [s.power_w for s in scenario.servers]
    price = [s.price_per_hour for s in scenario.servers]
    costs = {}
    if None not in power:
        costs["energy_j"] = busy_s * like(power)
    if None not in price:
        costs["price"] = busy_s * like(price) / 3600
    return costs


def least_unloaded_s(tasks: SlotTasks, fleet: ServerSpeeds) -> Tensor:
    """Delay of each task on the server that is best if nothing is queued, `[*, K]`."""
    return unloaded_delay_s(tasks, fleet).amin(-1)


def played_outcome(rollout: TensorDictBase, scenario: Scenario) -> TensorDict:
    """The outcome of a rollout of `OffloadingEnv`: batch `[E, T]`, K = B N tasks, one alternative.

    Args:
        rollout: batch `[E, T]`. scenario: whose servers they are.
    """
    agents = rollout["agents"]
    valid, work = agents["valid"].flatten(2), agents["work_gcycles"].flatten(2)
    server = agents["action"].flatten(2).unsqueeze(-1)
    values = {
        "delay_s": -rollout["next", "agents", "reward"].flatten(2).unsqueeze(-1),
        "weight": valid.to(work).unsqueeze(-1),
        "work_gcycles": work,
    }
    values |= {name: cost.gather(-1, server) for name, cost in busy_costs(work, scenario).items()}
    if "home" in agents.keys():
        fields = ("home", "input_mbit", "result_mbit", "work_gcycles", "valid")
        fleet = ServerSpeeds(*(rollout["servers", key] for key in ("capacity_gcycles_per_s", "rate_mbit_per_s")))
        tasks = SlotTasks(*(agents[key].flatten(2) for key in fields))
        values["unloaded_s"] = least_unloaded_s(tasks, fleet)
    return TensorDict(values, batch_size=rollout.batch_size)


def delay_prices(objective: Objective, outcome: TensorDictBase) -> Tensor:
    """What a second more of each task's delay costs, in units in which it is 1 for the mean delay, `[*, K]`.

    The objective's derivative by each delay, times the number of tasks; with it `difference_rewards` gives the exact
    first-order credit of any objective.

    Args:
        objective: differentiable. outcome: of `played_outcome`.
    """
    delay = outcome["delay_s"].detach().requires_grad_()
    cost = objective(outcome.copy().set("delay_s", delay))
    (slope,) = torch.autograd.grad(cost, delay)
    prices: Tensor = slope.sum(-1) * outcome["weight"].sum()
    return prices


def _mean(outcome: TensorDictBase, value: Tensor) -> Tensor:
    weight = outcome["weight"]
    mean: Tensor = (weight * value).sum() / weight.sum()
    return mean


def _need(outcome: TensorDictBase, key: str, what: str) -> None:
    if key not in outcome.keys():
        raise InputError(f"this objective needs {what}")
