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
from diffpolicy.policies.heads import Head
from diffpolicy.policies.policy import Policy


@dataclass(frozen=True, kw_only=True)
class PPOMethod(OnPolicyMethod):
    """Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347), by `ChainPPOLoss`.

    Args:
        clip: most by which a ratio of probabilities counts, above or below 1.
        entropy: weight of the entropy.
        critic_weight: of the critic's error.
        others: of `OnPolicyMethod`.

    Example:
        >>> method = PPOMethod(learning_rates={"actor": 3e-4, "critic": 1e-3}, clip=0.1, collect=400)
        >>> module = method.build(EnvProblem(Clinic, steps=50), environments=8)
        >>> fit(module, episodes=8).episodes, type(module.policy).__name__
        (8, 'FeedforwardPolicy')
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

    def refuses(self, head: Head) -> str:
        """It asks how probable an action was."""
        return "" if head.x0_is == "parameters" else "x_0 is the action, which has no probability in closed form"

    def make_critic(self, policy: Policy, seed: int) -> CriticEnsemble:
        """One network of a state's value. Args: policy: gives the widths and the agents. seed: of its parameters."""
        return CriticEnsemble(
            policy.observation_dim,
            1,
            ensemble=1,
            hidden=self.hidden,
            act=self.act,
            agents=policy.agents,
            generator=torch.Generator().manual_seed(seed),
        )

    def make_objective(self, policy: Policy, seed: int) -> ChainPPOLoss:
        critic = self.make_critic(policy, seed)
        return ChainPPOLoss(policy, critic, clip=self.clip, entropy=self.entropy, critic_weight=self.critic_weight)


@dataclass(frozen=True, kw_only=True)
class DiffusionPPOMethod(ChainedMethod, PPOMethod):
    """Proximal policy optimisation through a denoising chain, on the draws that acting recorded.

    Its ratios are those of the state with the chain's noise in it, so the gradient goes through all steps of the chain
    and at unchanged parameters each ratio is 1 (see `ChainPPOLoss`). DPPO (Ren et al. 2024, arXiv 2409.00588,
    `DPPOMethod`), which takes each step for a decision, is another way to the same end.

    Args:
        prior, steps, schedule, sampler, sampler_steps, prediction, denoiser, denoiser_output, time: of
            `ChainedMethod`.
        others: of `PPOMethod`.

    Raises:
        InputError: a field is out of range or of another kind.

    Example:
        >>> rates = {"actor": 3e-4, "critic": 1e-3}
        >>> method = DiffusionPPOMethod(learning_rates=rates, steps=3, collect=400, epochs=2)
        >>> module = method.build(EnvProblem(Clinic, steps=50), environments=8)
        >>> fit(module, episodes=8).episodes, type(module.policy).__name__
        (8, 'DiffusionPolicy')
    """

    rules: ClassVar[Mapping[str, Rule]] = {**PPOMethod.rules, **ChainedMethod.rules}
