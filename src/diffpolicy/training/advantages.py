"""Generalised advantages (Schulman et al. 2016, arXiv 1506.02438) of transitions in time order, with what is missing.

The recursion itself is TorchRL's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase
from torchrl.objectives.value.functional import generalized_advantage_estimate

from diffpolicy.policies.keys import Keys


@dataclass(frozen=True)
class Advantages:
    """Advantages and value targets of a problem's transitions, `[E, agents, T, items]`, as its policy decides.

    Args:
        gamma: discount. lmbda: lambda.
        sequential: whether an item's successor in the transitions is the agent's next item.
        shared: whether all items of a step show one reward. time: dimension of the steps. items: those of a step.
    """

    gamma: float
    lmbda: float
    sequential: bool
    shared: bool
    time: int
    items: tuple[int, ...]

    @classmethod
    def of(cls, keys: Keys, env: EnvBase, gamma: float, lmbda: float, *, sequential: bool) -> Advantages:
        """Those of an environment's transitions. Args: keys: of env. The others: see the class."""
        shape = env.full_reward_spec[keys.reward].shape[len(env.batch_size) :]
        of_agents = isinstance(keys.reward, tuple) and keys.agents is not None
        shared = math.prod(shape[of_agents:]) == 1
        return cls(gamma, lmbda, sequential, shared, 1 + (keys.agents is not None), tuple(keys.items))

    def __call__(self, rows: TensorDictBase, value: Tensor, after: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        """Both, of the transitions' batch.

        Args:
            rows: the transitions. value, after: of each and of its successor, of their batch. scale: of rewards.
        """
        shape, none, time = rows.batch_size, torch.zeros_like(value, dtype=torch.bool), self.time
        ends = (rows.get(("next", key), None) for key in ("terminated", "done"))
        terminated, done = (none if x is None else x.view(shape) for x in ends)
        columns = [scale * rows["reward"].view(shape).to(value), value, after, terminated, done, rows["valid"]]
        if self.sequential or rows.batch_dims == time + 1:
            given = in_sequence(*(x.flatten(time) for x in columns), gamma=self.gamma, lmbda=self.lmbda)
            return given[0].view(shape), given[1].view(shape)
        valid = rows.get(("next", "valid"), None)
        columns.append(~none if valid is None else valid)
        items = (x.flatten(time + 1) for x in columns)
        given = at_once(*items, shared=self.shared, gamma=self.gamma, lmbda=self.lmbda)
        advantage, target = (x.view(*x.shape, *[1] * len(self.items)).expand(shape) for x in given)
        return advantage, target

    def fitting_scale(self, parts: Sequence[TensorDictBase]) -> float:
        """One over the deviation of the discounted returns of transitions; 1 where all are the same."""
        returns, whole = [], replace(self, lmbda=1.0)
        for rows in parts:
            zero = torch.zeros(rows.batch_size, dtype=torch.float64, device=rows["valid"].device)
            returns.append(whole(rows, zero, zero.clone())[0][rows["valid"]])
        deviation = float(torch.cat(returns).std(correction=0))
        return 1 / deviation if deviation > 1e-8 else 1.0


def in_sequence(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    done: Tensor,
    valid: Tensor,
    *,
    gamma: float,
    lmbda: float,
) -> tuple[Tensor, Tensor]:
    """Advantages of decisions that follow one another, A_i = sum_k (gamma lambda)^k delta_{i+k}, `[*, T]`.

    delta_i = r_i + gamma (1 - terminated_i) V(s_i') - V(s_i). The sum ends with the episode, `done`, and with what was
    played; beyond a truncation V(s') stands for what would have come, beyond `terminated` nothing.

    Args:
        reward, value, next_value: of each decision and its successor's state, `[*, T]`.
        terminated, done: after it, bool `[*, T]`.
        valid: which decisions there are, bool `[*, T]`; others are left out, as if the row were shorter, and get 0.
        gamma: discount. lmbda: lambda.

    Returns:
        Advantages, and with V(s_i) the targets of the values, both 0 where there is no decision.
    """
    # what stands where there is no decision may be no number, and no factor of 0 would take that away
    reward, value, next_value = (torch.where(valid, x, 0) for x in (reward, value, next_value))
    whole, order = value, (~valid).byte().argsort(dim=-1, stable=True)
    reward, value, next_value, terminated, done = (
        x.gather(-1, order).unsqueeze(-1) for x in (reward, value, next_value, terminated, done)
    )
    count = valid.sum(-1, keepdim=True)
    last = torch.arange(valid.shape[-1], device=valid.device) >= count - 1
    # the vectorised form takes memory of the square of T
    advantage = generalized_advantage_estimate(
        gamma, lmbda, value, next_value, reward, done | last.unsqueeze(-1), terminated
    )[0]
    advantage = torch.zeros_like(whole).scatter(-1, order, advantage.squeeze(-1)) * valid
    return advantage, advantage + whole


def at_once(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    done: Tensor,
    valid: Tensor,
    next_valid: Tensor,
    *,
    shared: bool,
    gamma: float,
    lmbda: float,
) -> tuple[Tensor, Tensor]:
    """Advantages of steps in each of which several items are decided at once, for all items of a step alike.

    Each of the items had its part in the whole of what the step brought, so a step has one advantage: its reward is the
    sum of those of its items, and V(s) the mean of what the critic says of them. A step without an item decides
    nothing: V(s_t) is what came, r_t + gamma (1 - terminated) V(s_{t+1}), so that what it costs reaches the decision
    before it.

    Args:
        reward, value, next_value: of each item, `[*, T, N]`. terminated, done: after the step, bool `[*, T, N]`.
        valid, next_valid: which items there are, and in the next step, bool `[*, T, N]`. Where the last step shows
            none, the last value that was seen stands for what comes.
        shared: whether the reward is one of the step, which each of its items shows.
        gamma, lmbda: of `in_sequence`.

    Returns:
        Advantages and targets of the steps, `[*, T]`.
    """
    here = valid.any(-1)
    total = reward[..., 0] if shared else torch.where(valid, reward, 0).sum(-1)
    over, ends = terminated[..., 0], done[..., 0]
    seen, after = _mean(value, valid), _mean(next_value, next_valid)
    steps = here.shape[-1]
    known = torch.zeros_like(seen[..., 0])
    for t in range(steps):
        known = torch.where(here[..., t], seen[..., t], known)
        after[..., t] = torch.where(next_valid[..., t, :].any(-1), after[..., t], known)
    for t in reversed(range(steps)):
        if t + 1 < steps:
            goes_on = ~ends[..., t] & ~next_valid[..., t, :].any(-1)
            after[..., t] = torch.where(goes_on, seen[..., t + 1], after[..., t])
        came = total[..., t] + gamma * torch.where(over[..., t], 0, after[..., t])
        seen[..., t] = torch.where(here[..., t], seen[..., t], came)
    return in_sequence(total, seen, after, over, ends, torch.ones_like(here), gamma=gamma, lmbda=lmbda)


def normalized(advantage: Tensor, valid: Tensor) -> Tensor:
    """Advantages with mean 0 and deviation 1 over the valid rows of each agent. Args: both `[.., M]`."""
    count = valid.sum(-1, keepdim=True).clamp_min(1)
    mean = torch.where(valid, advantage, 0).sum(-1, keepdim=True) / count
    centred = torch.where(valid, advantage - mean, 0)
    return centred / ((centred.square().sum(-1, keepdim=True) / count).sqrt() + 1e-8)


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    """Over the items that there are, 0 where there are none, `[*, T]`. Args: both `[*, T, N]`."""
    return torch.where(valid, values, 0).sum(-1) / valid.sum(-1).clamp_min(1)
