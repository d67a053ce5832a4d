"""Exact team credit: what each task of a played episode cost everybody, its own user and those behind it.

A task of work w on server a delays every later task of the same busy period by w / f_a. In first order that is

    externality(i) = w_i / f_a * (later tasks on a in this slot + M[t, a])
    M[t, a] = 1[q_{t+1,a} > 0] * (n_{t+1,a} + M[t+1, a])

with n_{t,a} the tasks sent to a in slot t: the derivative of the sum of delays by w_i / f_a, less the task's own. The
difference reward of Wolpert & Tumer (2001), -(own delay + externality), credits a decision with all that it does and
nothing else, so it needs no discount and no bootstrap.

All of it needs whole episodes, since what a task costs is known when the last busy period is over; the linear law; and
servers that are never down.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase, Transform

from diffpolicy.edge.credit.objectives import Objective, delay_prices, played_outcome
from diffpolicy.edge.env.transitions import task_transitions
from diffpolicy.edge.physics.queueing import work_ahead_gcycles, work_sent_gcycles
from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.errors import InputError

Counterfactual = Literal["marginal", "removal"]
REWARD = ("next", "agents", "reward")
_NEEDED = (
    *(("agents", name) for name in ("action", "valid", "observation", "work_gcycles")),
    *(("next", name) for name in ("queue_gcycles", "done")),
    REWARD,
)


def later_tasks(rollout: TensorDictBase, price: Tensor | None = None) -> Tensor:
    """For each task the number of later tasks of the same busy period on its server, `[E, T, B, N]`.

    Args:
        rollout: of `OffloadingEnv`, batch `[E, T]`; each row holds one or more episodes, the last one to its end.
            Tasks of a slot arrive in the order of `("agents", "arrival")`, or without that key (below level `live`)
            station by station, as workloads send them; a task file in another order needs level `live`.
        price: weights of the tasks that are counted, `[E, T, B, N]`; by default 1 each.

    Raises:
        InputError: the rollout ends within an episode, or has measured service times or outages.
    """
    _check(rollout)
    return _later(rollout, price).view_as(rollout["agents", "valid"])


def externality_s(
    rollout: TensorDictBase,
    scenario: Scenario | None = None,
    *,
    counterfactual: Counterfactual = "marginal",
    price: Tensor | None = None,
) -> Tensor:
    """Seconds that each task cost all others together, `[E, T, B, N]`; zero where there is no task.

    Args:
        rollout, price: of `later_tasks`.
        scenario: whose servers they are; by default their capacities are read off the rollout, which has them from
            level `stale` on.
        counterfactual: `marginal`: w_i / f_a times the later tasks, exact as long as less work would end no busy
            period sooner. `removal`: what the others would have saved had the task not come at all; never more than
            that. Takes O(T^2) instead of O(T).
    """
    _check(rollout)
    if counterfactual not in get_args(Counterfactual):
        raise InputError(f"counterfactual must be marginal or removal, got {counterfactual!r}")
    agents = rollout["agents"]
    work, server = agents["work_gcycles"].flatten(2), agents["action"].flatten(2)
    delayed = work * _later(rollout, price) if counterfactual == "marginal" else _removed(rollout, price)
    f = _capacity(rollout, scenario)
    cost: Tensor = delayed / f.expand(*work.shape[:2], f.shape[-1]).gather(-1, server)
    return cost.view_as(agents["valid"])


def difference_rewards(
    rollout: TensorDictBase,
    scenario: Scenario | None = None,
    *,
    counterfactual: Counterfactual = "marginal",
    price: Tensor | None = None,
) -> Tensor:
    """-(own delay + externality) of each task, seconds `[E, T, B, N]`; with a price, -(price x own delay + ...).

    Args:
        rollout, scenario, counterfactual, price: of `externality_s`.

    Example:
        >>> env = OffloadingEnv(Scenario.load("lad-ts"), batch_size=[8], information="stale")
        >>> rollout = env.rollout(59)
        >>> rollout["next", "agents", "reward"] = difference_rewards(rollout)
    """
    others = externality_s(rollout, scenario, counterfactual=counterfactual, price=price)
    own: Tensor = -rollout[REWARD]
    return -(others + (own if price is None else price * own))


class DifferenceReward(Transform):
    """Puts difference rewards in the place of a rollout's rewards; used as TorchRL's `Reward2GoTransform` is.

    Credit is known once an episode is over, so this needs complete episodes, `[E, T]` as `env.rollout` and collectors
    give them: call `inv(rollout)`, give it to a replay buffer (which then takes whole rollouts), or to a collector as
    `postproc=transform.inv` with as many frames per batch as an episode has. It cannot be part of an environment.

    Args:
        scenario: whose servers they are; by default as in `externality_s`. An objective needs it.
        counterfactual: as in `externality_s`.
        objective: what the team wants, if not the mean delay; credit is then of first order in the delays.
        out_key: where the rewards go; by default in the place of the environment's own.

    Example:
        >>> env = OffloadingEnv(Scenario.load("lad-ts"), batch_size=[8], information="stale")
        >>> DifferenceReward().inv(env.rollout(59))["next", "agents", "reward"].shape
        torch.Size([8, 59, 20, 50])
    """

    def __init__(
        self,
        scenario: Scenario | None = None,
        *,
        counterfactual: Counterfactual = "marginal",
        objective: Objective | None = None,
        out_key: Any = REWARD,
    ) -> None:
        super().__init__(in_keys_inv=[REWARD], out_keys_inv=[out_key])
        if objective is not None and scenario is None:
            raise InputError("DifferenceReward needs the scenario to weigh delays by an objective, got None")
        self.scenario, self.objective, self.out_key = scenario, objective, out_key
        self.counterfactual: Counterfactual = counterfactual

    def _inv_call(self, tensordict: TensorDictBase) -> TensorDictBase:
        price = None
        if self.objective is not None and self.scenario is not None:
            _check(tensordict)
            price = delay_prices(self.objective, played_outcome(tensordict, self.scenario))
            price = price.view_as(tensordict["agents", "valid"])
        reward = difference_rewards(tensordict, self.scenario, counterfactual=self.counterfactual, price=price)
        return tensordict.set(self.out_key, reward)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        return tensordict

    def _call(self, next_tensordict: TensorDictBase) -> TensorDictBase:
        raise InputError("DifferenceReward needs complete episodes, so it cannot be part of an environment")

    def set_container(self, container: Any) -> None:
        if isinstance(container, EnvBase) or container.parent is not None:
            raise InputError("DifferenceReward needs complete episodes, so it cannot be part of an environment")
        super().set_container(container)


def team_transitions(rollout: TensorDictBase, *, scenario: Scenario | None = None, masks: bool = False) -> TensorDict:
    """`task_transitions` with difference rewards, for an off-policy method with `gamma` 0.

    Args:
        rollout: whole episodes: the method's `rollout_steps` must be the scenario's slots.
        scenario: of `externality_s`; give it by `functools.partial`. masks: of `task_transitions`.
    """
    credited = rollout.copy().set(REWARD, difference_rewards(rollout, scenario))
    return task_transitions(credited, masks=masks)


def _check(rollout: TensorDictBase) -> None:
    keys = rollout.keys(True, True)
    for key in _NEEDED:
        if key not in keys:
            raise InputError(f"credit needs a rollout of OffloadingEnv, and this one lacks {key!r}")
    if rollout.batch_dims != 2:
        raise InputError(f"credit needs a rollout of batch [E, T], got {list(rollout.batch_size)}")
    servers = rollout["next", "queue_gcycles"].shape[-1]
    if rollout["agents", "observation"].shape[-1] != 2 + servers:
        raise InputError("credit is exact under the linear law alone, and these servers have measured service times")
    if ("agents", "task") in keys:
        raise InputError("credit is exact for servers that are never down, and these have outages")
    if not rollout["next", "done"][:, -1].all():
        raise InputError("credit needs complete episodes, and this rollout ends within one")


def _capacity(rollout: TensorDictBase, scenario: Scenario | None) -> Tensor:
    if scenario is not None:
        work: Tensor = rollout["agents", "work_gcycles"]
        return work.new_tensor([s.capacity_gcycles_per_s for s in scenario.servers])
    if "servers" not in rollout.keys():
        raise InputError("a rollout at level paper does not tell the servers' capacities; give the scenario")
    capacity: Tensor = rollout["servers", "capacity_gcycles_per_s"]
    return capacity


def _counts(rollout: TensorDictBase, price: Tensor | None) -> tuple[Tensor, Tensor]:
    """What each task counts, `[E, T, K]`, and those of each slot by server, n, `[E, T, S]`."""
    agents = rollout["agents"]
    counted = agents["valid"].to(agents["work_gcycles"])
    counted = (counted if price is None else price.view_as(counted) * counted).flatten(2)
    servers = rollout["next", "queue_gcycles"].shape[-1]
    return counted, work_sent_gcycles(agents["action"].flatten(2), counted, servers)


def _later_in_slot(rollout: TensorDictBase, counted: Tensor, by_server: Tensor) -> Tensor:
    """Later tasks on each task's server in its own slot, `[E, T, K]`."""
    agents = rollout["agents"]
    server = agents["action"].flatten(2)
    arrival = agents.get("arrival", None)
    if arrival is None:
        ahead = work_ahead_gcycles(server, counted, by_server.shape[-1])
    else:
        order = arrival.flatten(2).argsort(dim=-1, stable=True)
        in_order = work_ahead_gcycles(server.gather(-1, order), counted.gather(-1, order), by_server.shape[-1])
        ahead = torch.empty_like(in_order).scatter(-1, order, in_order)
    return by_server.gather(-1, server) - ahead - counted


def _goes_on(rollout: TensorDictBase) -> Tensor:
    """Whether a server's busy period goes on beyond each slot, bool `[E, T, S]`."""
    on: Tensor = (rollout["next", "queue_gcycles"] > 0) & ~rollout["next", "done"]
    return on


def _later(rollout: TensorDictBase, price: Tensor | None) -> Tensor:
    """Later tasks of the busy period, `[E, T, K]`, zero where there is no task; one scan from the last slot back."""
    counted, n = _counts(rollout, price)
    on, beyond, m = _goes_on(rollout), torch.zeros_like(n[:, 0]), []
    for t in reversed(range(n.shape[1])):
        m.append(beyond)
        if t:
            beyond = torch.where(on[:, t - 1], n[:, t] + beyond, 0.0)
    after = torch.stack(m[::-1], 1).gather(-1, rollout["agents", "action"].flatten(2))
    later: Tensor = (_later_in_slot(rollout, counted, n) + after) * rollout["agents", "valid"].flatten(2)
    return later


def _removed(rollout: TensorDictBase, price: Tensor | None) -> Tensor:
    """Work less in front of later tasks, summed over them, if a task had not come, Gcycles `[E, T, K]`.

    Without it a queue is shorter by min(w, least queue of the busy period since): less work that was there is missed
    no longer once the queue would have been empty.
    """
    counted, n = _counts(rollout, price)
    server = rollout["agents", "action"].flatten(2)
    missing: Tensor = rollout["agents", "work_gcycles"].flatten(2).clone()
    saved = missing * _later_in_slot(rollout, counted, n)
    queue = rollout["next", "queue_gcycles"] * _goes_on(rollout)
    for t in range(1, n.shape[1]):
        on = server[:, :t]
        before = torch.minimum(missing[:, :t], queue[:, t - 1 : t].expand(-1, t, -1).gather(-1, on))
        missing[:, :t] = before
        saved[:, :t] += before * n[:, t : t + 1].expand(-1, t, -1).gather(-1, on)
    return saved
