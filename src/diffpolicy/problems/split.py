"""`Split`: a vehicle's task split over the road-side units in reach; the best split stands at one water level."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Bounded, Unbounded
from torchrl.envs import EnvBase

from diffpolicy.environments import Cost
from diffpolicy.environments.problem import Kind
from diffpolicy.policies.keys import Keys
from diffpolicy.policies.policy import Policy
from diffpolicy.policies.protocols import Decides
from diffpolicy.problems.drawn import DrawnEnv, DrawnProblem
from diffpolicy.problems.filling import water_level
from diffpolicy.problems.shares import lone_transitions, shares_of

VEHICLES = 32
"""Of an episode, each with a task."""
LEAST = 0.01
"""A smaller piece of a task is not worth a message, and is left out."""
SCALE = 4.0
"""Seconds that are 1 in an observation."""


def finished(share: Tensor, wait_s: Tensor, whole_s: Tensor) -> Tensor:
    """When the last piece is done, s, max over units with x_m > 0 of wait_m + x_m whole_m, `[*]`.

    Args:
        share: x, of each unit, `[*, M]`.
        wait_s: until a unit begins. whole_s: that the whole task would take there, to be sent and done; both `[*, M]`.
    """
    return (wait_s + share * whole_s).masked_fill(share <= 0, 0.0).amax(-1)


def best_split(wait_s: Tensor, whole_s: Tensor, in_reach: Tensor) -> Tensor:
    """The shares of the least delay, x_m = max(T - wait_m, 0) / whole_m with T such that they sum to one.

    The delay is convex in x, and where all units that do something end at T nothing can be moved to gain.

    Args:
        wait_s: until a unit begins, at least 0. whole_s: that the whole task would take there; both `[*, M]`.
        in_reach: of the vehicle, bool `[*, M]`, at least one of M.

    Returns:
        Shares `[*, M]`.

    Example:
        >>> best_split(torch.tensor([0.0, 1.0, 9.0]), torch.tensor([4.0, 4.0, 4.0]), torch.tensor([True] * 3))
        tensor([0.6250, 0.3750, 0.0000])
    """
    floor = wait_s.masked_fill(~in_reach, torch.inf)
    level = water_level(floor, 1 / whole_s, 1.0)
    return (level.unsqueeze(-1) - floor).clamp_min(0) / whole_s


class SplitEnv(DrawnEnv):
    """One vehicle a step: how much of its task each road-side unit does.

    A task has d ~ U[2, 5) Mbit and w ~ U[4, 12) Gcycles; a unit is in reach with probability 0.7, one always; it is
    reached at r ~ U[2, 20) Mbit/s, computes f ~ U[2, 12) Gcycles/s, the fleet's for good, and has a backlog of
    seconds ~ Exp(1). So whole_m = d / r_m + w / f_m.

    Args:
        seeds: of the lanes. units: M. fleet: which units there are, a seed. device: of all tensors.
    """

    def __init__(self, seeds: Sequence[int], units: int, fleet: int, device: Any = None) -> None:
        shape = (len(seeds), units)
        shown = {
            "observation": Unbounded((len(seeds), 3 * units)),
            "action_mask": Binary(units, shape, dtype=torch.bool),
        }
        super().__init__(seeds, VEHICLES, shown, Bounded(-1.0, 1.0, shape), device)
        speed = torch.rand(units, generator=torch.Generator().manual_seed(fleet))
        self.units, self.speed = units, 2 + 10 * speed

    def draw(self, generator: torch.Generator) -> TensorDict:
        shape = (VEHICLES + 1, self.units)
        u = torch.rand(4, *shape, generator=generator)
        task = torch.rand(2, VEHICLES + 1, 1, generator=generator)
        whole = (2 + 3 * task[0]) / (2 + 18 * u[0]) + (4 + 8 * task[1]) / self.speed
        nearest = u[2] == u[2].amin(-1, keepdim=True)
        return TensorDict(wait_s=-(1 - u[1]).log(), whole_s=whole, in_reach=(u[2] < 0.7) | nearest)

    def begin(self, drawn: TensorDict) -> TensorDict:
        return TensorDict({key: value[:, 0] for key, value in drawn.items()}, batch_size=self.batch_size)

    def show(self) -> dict[str, Tensor]:
        return _shown(self.state)

    def act(self, action: Tensor) -> tuple[Tensor, Tensor]:
        s = self.state
        delay = finished(shares_of(action, s["in_reach"], LEAST), s["wait_s"], s["whole_s"])
        self.state = TensorDict(
            {k: v[torch.arange(len(v), device=v.device), self.now.squeeze(-1) + 1] for k, v in self.drawn.items()},
            batch_size=self.batch_size,
        )
        return -delay, torch.zeros_like(delay, dtype=torch.bool)


def _shown(state: TensorDict) -> dict[str, Tensor]:
    """What is seen of `wait_s`, `whole_s` and `in_reach`, `[*, M]`; zeros of units that are not."""
    reach = state["in_reach"].float()
    seen = [state["wait_s"] * reach / SCALE, state["whole_s"] * reach / SCALE, reach]
    return {"observation": torch.cat(seen, -1), "action_mask": state["in_reach"].clone()}


class SplitRollout:
    """Episodes with a gradient of their delays through the shares: `rollout(policy)`, as a `PathwiseModule` takes it.

    Nothing that a vehicle does changes what comes, so that all of an episode are decided at once.

    Args:
        env: of the problem; each call plays the next episode of each of its lanes.

    Example:
        >>> rollout = SplitRollout(Split().make_env(8, seed=1))
        >>> policy = FeedforwardPolicy.from_specs(rollout.env, head=SimplexHead(draw="argmax"))
        >>> loss = PathwiseLoss(policy, lambda played: soft_delay(played["end_s"], 0.1).mean())
        >>> run = fit(PathwiseModule(policy, loss, rollout, learning_rates={"actor": 0.01}), episodes=8 * 20)
        >>> run.history[-1]["cost"] < run.history[0]["cost"]
        True
    """

    def __init__(self, env: SplitEnv) -> None:
        self.env = env

    def __call__(self, policy: Policy) -> TensorDict:
        """What is seen, and `end_s`, when each unit's piece is done, 0 without one, all of batch `[E (V + 1)]`.

        Args:
            policy: whose head gives shares, with a gradient: a `SimplexHead`.
        """
        self.env.reset()
        state = self.env.drawn.apply(lambda x: x.flatten(0, 1), batch_size=[])
        wait, whole = state["wait_s"], state["whole_s"]
        td = TensorDict(_shown(state), batch_size=wait.shape[:1])
        share = policy.get_dist(td).rsample()
        # as `shares_of` leaves pieces out, but for what the others then have more
        return td.set("end_s", (wait + share * whole).masked_fill(share < LEAST, 0.0))


def soft_delay(end_s: Tensor, softness_s: float) -> Tensor:
    """Tau log sum exp(end / tau), s `[*]`: the last end as tau goes to 0, at most tau log M above it.

    The gradient of a maximum moves one piece alone, and that of its soft form all that are done late.

    Args:
        end_s: of the pieces, `[*, M]`. softness_s: tau.

    Returns:
        Seconds, `[*]`.

    Example:
        >>> soft_delay(torch.tensor([1.0, 2.0, 0.0]), 0.01)
        tensor(2.)
    """
    return softness_s * (end_s / softness_s).logsumexp(-1)


class Split(DrawnProblem):
    """How much of a vehicle's task each road-side unit in reach does, so that the last piece is done soonest.

    Servers that share one task by a closed form are those of AMCoEdge (Xu et al., ICDCS 2024). An
    action is M numbers from -1 to 1, of which the environment makes shares of the units in reach, a / sum a of the
    positive ones; shares themselves, as of a simplex head, stay as they are. Policies need not read the mask; a simplex
    head does with `masks: true`.

    Args:
        units: how many, M. fleet: which units there are, a seed.

    Raises:
        InputError: a knob is out of range.

    Example:
        >>> env = Split(units=4).make_env(8, seed=1)
        >>> env.reset()["observation"].shape  # of each unit: its wait, the time of the whole task, whether in reach
        torch.Size([8, 12])
    """

    name, steps = "split", VEHICLES
    cost = Cost("delay", "s", per="step", column="delay_s", counted="vehicles")
    methods: Sequence[str] = ("d2sac", "sac", "ppo")
    masks = False
    kinds: Mapping[str, Kind] = {"units": "whole", "fleet": "whole"}
    least: Mapping[str, float] = {"units": 2, "fleet": 0}

    def __init__(self, units: int = 5, fleet: int = 0) -> None:
        super().__init__(units=units, fleet=fleet)

    def lanes(self, seeds: Sequence[int], device: Any) -> EnvBase:
        return SplitEnv(seeds, **self.options, device=device)

    def transitions(self, rollout: TensorDictBase, keys: Keys) -> TensorDict:
        return lone_transitions(rollout, keys)

    def rules(self) -> Mapping[str, Callable[[int], Decides]]:
        shares: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
            "best-unit": _best_unit,
            "best-split": best_split,
            "equal-split": lambda wait, whole, reach: reach / reach.sum(-1, keepdim=True),
            "by-speed": lambda wait, whole, reach: _normalised(reach / whole),
        }
        return {name: partial(_rule, of) for name, of in shares.items()}


def _normalised(part: Tensor) -> Tensor:
    return part / part.sum(-1, keepdim=True)


def _best_unit(wait: Tensor, whole: Tensor, reach: Tensor) -> Tensor:
    """All to the one that would be done first."""
    alone = (wait + whole).masked_fill(~reach, torch.inf)
    return torch.nn.functional.one_hot(alone.argmin(-1), alone.shape[-1]).to(alone)


def _rule(shares: Callable[[Tensor, Tensor, Tensor], Tensor], seed: int) -> Callable[[TensorDictBase], TensorDictBase]:
    """A rule. Args: shares: of waits and times of the whole task, s, and of who is in reach. seed: of nothing."""

    def rule(td: TensorDictBase) -> TensorDictBase:
        wait, whole, reach = td["observation"].double().chunk(3, -1)
        # what is out of reach shows zeros, by which nothing may be divided
        whole = torch.where(reach > 0, whole * SCALE, 1.0)
        return td.set("action", shares(wait * SCALE, whole, reach > 0).to(td["observation"]))

    return rule
