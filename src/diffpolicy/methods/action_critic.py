"""`ActionCriticMethod`: what the methods share whose chain learns its own actions from a critic of actions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn
from torchrl.envs import EnvBase

from diffpolicy import _validate as check
from diffpolicy.methods.action_chain import ActionChainMethod
from diffpolicy.methods.fields import Rule
from diffpolicy.methods.off_policy import OffPolicyMethod
from diffpolicy.methods.rollouts import RolloutMethod
from diffpolicy.objectives.critics import action_critic
from diffpolicy.policies.direct import FeedforwardPolicy
from diffpolicy.policies.heads import Head, VectorHead
from diffpolicy.policies.policy import Policy


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
        tokens, token_sampler: of `ActionChainMethod`, as the next ones.
        prior, steps, process, schedule, sampler, sampler_steps, prediction, denoiser, denoiser_output, time: of
            `ActionChainMethod`.
        others: of `OffPolicyMethod`.

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
    rules: ClassVar[Mapping[str, Rule]] = {
        **OffPolicyMethod.rules,
        **ActionChainMethod.rules,
        "chain": check.flag,
        "samples": partial(check.integer, least=2, most=10**5),
        "next_samples": partial(check.integer, least=1, most=10**5),
        "tau": partial(check.number, above=0, most=1),
        "target_actor": check.flag,
        "reward_scale": partial(check.number, above=0),
    }

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

    def make_objective(self, policy: Policy, seed: int) -> Any:
        generator = torch.Generator().manual_seed(seed)
        critic = action_critic(policy, hidden=self.hidden, act=self.act, generator=generator)
        shared = {
            name: getattr(self, name)
            for name in ("samples", "next_samples", "gamma", "tau", "target_actor", "reward_scale")
        }
        return self.make_loss(policy, critic, shared)

    @abstractmethod
    def make_loss(self, policy: Policy, critic: nn.Module, shared: dict[str, Any]) -> Any:
        """What is minimised. Args: policy, critic: of the problem. shared: arguments of all these losses."""
