"""`ActionCriticMethod`: what the methods share whose chain learns its own actions from a critic of actions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn
from torchrl.envs import EnvBase
from torchrl.objectives import LossModule

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.methods.action_chain import ActionChainMethod
from diffpolicy.methods.fields import Rule
from diffpolicy.methods.off_policy import OffPolicyMethod
from diffpolicy.methods.rollouts import Parts, RolloutMethod
from diffpolicy.objectives.critics import action_critic
from diffpolicy.policies.direct import FeedforwardPolicy
from diffpolicy.policies.guidance import BestOf
from diffpolicy.policies.heads import Head, VectorHead
from diffpolicy.policies.policy import Policy
from diffpolicy.training.off_policy import OffPolicyModule


@dataclass(frozen=True, kw_only=True)
class ActionCriticMethod(ActionChainMethod, OffPolicyMethod):
    """A chain that ends in the action, a twin critic Q(s, a), and a replay; a subclass gives `make_loss`.

    Args:
        chain: whether there is one; false: the control, a law without a chain that learns by the same objective.
        samples: actions of a state from which the policy learns in an update, at least 2.
        next_samples: actions of a next state, of which its value is had.
        tau: share of the new parameters in the targets, each update.
        target_actor: whether a slowly following copy of the policy draws these actions.
        reward_scale: factor on rewards before anything else.
        best_of: actions of a chain that are drawn where it acts, of which the critic's best is played, while it is
            trained and afterwards; 1: one is drawn, and played.
        tokens, token_sampler: of `ActionChainMethod`.
        prior, steps, process, schedule, sampler, sampler_steps, prediction, denoiser, denoiser_output, time: of
            `ActionChainMethod`.
        others: of `OffPolicyMethod`.

    Raises:
        InputError: a field is out of range or of another kind, or there is more than one draw to act by without a chain
            or under averaged weights.

    Example:
        >>> method = QVPOMethod(learning_rates={"actor": 1e-3, "critic": 1e-3}, chain=False)
        >>> isinstance(method, ActionCriticMethod), method.samples
        (True, 16)
    """

    chain: bool = True
    samples: int = 16
    next_samples: int = 4
    tau: float = 0.005
    target_actor: bool = True
    reward_scale: float = 1.0
    best_of: int = 1
    rules: ClassVar[Mapping[str, Rule]] = {
        **OffPolicyMethod.rules,
        **ActionChainMethod.rules,
        "chain": check.flag,
        "samples": partial(check.integer, least=2, most=10**5),
        "next_samples": partial(check.integer, least=1, most=10**5),
        "tau": partial(check.number, above=0, most=1),
        "target_actor": check.flag,
        "reward_scale": partial(check.number, above=0),
        "best_of": partial(check.integer, least=1, most=10**5),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.best_of > 1 and not self.chain:
            raise InputError(f"best_of must be 1 without a chain, got {self.best_of}")
        if self.best_of > 1 and self.ema is not None:
            raise InputError(f"best_of must be 1 under ema, whose weights no critic values, got {self.best_of}")

    def refuses(self, head: Head) -> str:
        """As chains do; without one there is nothing to refuse."""
        return super().refuses(head) if self.chain else ""

    def options_in(self, env: EnvBase) -> dict[str, Any]:
        options = super().options_in(env)
        if isinstance(options.get("head"), VectorHead) and self.refuses(options["head"]):
            return self.options()  # its usual head is refused by its name
        return options

    def make_policy(self, env: EnvBase, seed: int) -> Policy:
        if self.chain or isinstance(self.policy, Policy):
            return super().make_policy(env, seed)
        plain: type[Policy] = FeedforwardPolicy if self.policy is None else self.policy
        return plain.from_specs(env, **{**RolloutMethod.options(self), "head": self.asked_head("sample")}, seed=seed)

    def make_objective(self, policy: Policy, seed: int) -> LossModule:
        generator = torch.Generator().manual_seed(seed)
        critic = action_critic(policy, hidden=self.hidden, act=self.act, generator=generator)
        shared = {
            name: getattr(self, name)
            for name in ("samples", "next_samples", "gamma", "tau", "target_actor", "reward_scale")
        }
        return self.make_loss(policy, critic, shared)

    def make_module(self, parts: Parts) -> OffPolicyModule:
        if self.best_of == 1:
            return super().make_module(parts)
        acting = parts.policy.with_guidance(BestOf(parts.objective.critic, draws=self.best_of))
        acting.generator = parts.policy.generator  # whose state a checkpoint keeps
        return super().make_module(replace(parts, policy=acting))

    @abstractmethod
    def make_loss(self, policy: Policy, critic: nn.Module, shared: dict[str, Any]) -> LossModule:
        """What is minimised. Args: policy, critic: of the problem. shared: arguments of all these losses."""
