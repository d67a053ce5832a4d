"""`PPOMethod` and `DiffusionPPOMethod`: proximal policy optimisation, without a chain and through one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from diffpolicy import _validate as check
from diffpolicy.methods.chained import ChainedMethod
from diffpolicy.methods.fields import Rule
from diffpolicy.methods.on_policy import OnPolicyMethod
from diffpolicy.networks.critic import CriticEnsemble
from diffpolicy.objectives.ppo import ChainPPOLoss
from diffpolicy.policies.direct import FeedforwardPolicy
from diffpolicy.policies.policy import Policy


@dataclass(frozen=True, kw_only=True)
class PPOMethod(OnPolicyMethod):
    """Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347).

    Args:
        clip, entropy, critic_weight: of `ChainPPOLoss`.
        others: of `OnPolicyMethod`.
    """

    clip: float = 0.2
    entropy: float = 0.0
    critic_weight: float = 0.5
    rules: ClassVar[Mapping[str, Rule]] = {
        **OnPolicyMethod.rules,
        "clip": partial(check.number, above=0, most=0.99),
        "entropy": partial(check.number, least=0),
        "critic_weight": partial(check.number, above=0),
    }

    own_policy: ClassVar[type[Policy]] = FeedforwardPolicy

    def make_objective(self, policy: Policy, seed: int) -> ChainPPOLoss:
        critic = CriticEnsemble(
            policy.observation_dim,
            1,
            ensemble=1,
            hidden=self.hidden,
            act=self.act,
            stack=policy.agents,
            generator=torch.Generator().manual_seed(seed),
        )
        return ChainPPOLoss(policy, critic, clip=self.clip, entropy=self.entropy, critic_weight=self.critic_weight)


@dataclass(frozen=True, kw_only=True)
class DiffusionPPOMethod(ChainedMethod, PPOMethod):
    """The same through a chain, on the draws that acting recorded.

    Args: of `ChainedMethod` and `PPOMethod`.
    """

    rules: ClassVar[Mapping[str, Rule]] = {**PPOMethod.rules, **ChainedMethod.rules}
