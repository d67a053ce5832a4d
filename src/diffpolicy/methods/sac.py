"""`SACMethod`: soft actor-critic over choices (arXiv 1910.07207), or over vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch

from diffpolicy import _validate as check
from diffpolicy.methods.fields import Rule
from diffpolicy.methods.off_policy import OffPolicyMethod
from diffpolicy.networks.critic import CriticEnsemble
from diffpolicy.objectives.actor_critic import SoftActorCriticLoss
from diffpolicy.objectives.bounded_sac import LatentBoundedSACLoss
from diffpolicy.objectives.discrete_sac import LatentDiscreteSACLoss
from diffpolicy.policies.direct import FeedforwardPolicy
from diffpolicy.policies.heads import Head
from diffpolicy.policies.policy import Policy


@dataclass(frozen=True, kw_only=True)
class SACMethod(OffPolicyMethod):
    """Soft actor-critic without a chain (arXiv 1801.01290; over choices arXiv 1910.07207).

    The losses are `LatentDiscreteSACLoss`, or `LatentBoundedSACLoss` where actions are vectors, within bounds or of
    shares that sum to one.

    Args:
        alpha: initial temperature.
        tau: share of the new parameters in the targets, each update.
        target_entropy: in nats, or `share`: `entropy_share` of the greatest, and of vectors minus their dimension.
        entropy_share: from 0 to 1.
        entropy: `conditional` on one chain's noise, or `marginal`: of the mean over several chains. Without a chain
            both are the same.
        entropy_samples: chains a row for the marginal entropy.
        target_actor: whether the next action's law comes from a slowly following copy of the policy.
        critic_latent: whether critics read where the chain began; for a policy that remembers its actions.
        reward_scale: factor on rewards before anything else.
        draw: how the policy decides: a `sample` of its law, or the `argmax`.
        others: of `OffPolicyMethod`.

    Example:
        >>> rates = {"actor": 1e-3, "critic": 1e-3, "alpha": 1e-3}
        >>> method = SACMethod(learning_rates=rates, target_entropy="share", entropy_share=0.3)
        >>> module = method.build(EnvProblem(Clinic, steps=50), environments=8)
        >>> fit(module, episodes=8).episodes, type(module.objective).__name__
        (8, 'LatentDiscreteSACLoss')
    """

    alpha: float = 0.05
    tau: float = 0.005
    target_entropy: float | Literal["share"] = -1.0
    entropy_share: float = 0.5
    entropy: Literal["conditional", "marginal"] = "conditional"
    entropy_samples: int = 8
    target_actor: bool = False
    critic_latent: bool = False
    reward_scale: float = 1.0
    draw: Literal["sample", "argmax"] = "sample"
    rules: ClassVar[Mapping[str, Rule]] = {
        **OffPolicyMethod.rules,
        "alpha": partial(check.number, above=0),
        "tau": partial(check.number, above=0, most=1),
        "target_entropy": lambda value, key: value if value == "share" else check.number(value, key),
        "entropy_share": partial(check.number, least=0, most=1),
        "entropy": partial(check.choice, words=("conditional", "marginal")),
        "entropy_samples": partial(check.integer, least=1, most=10**4),
        "target_actor": check.flag,
        "critic_latent": check.flag,
        "reward_scale": partial(check.number, above=0),
        "draw": partial(check.choice, words=("sample", "argmax")),
    }

    own_policy: ClassVar[type[Policy]] = FeedforwardPolicy

    def brought_by(self, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        """Where items become joint, the temperature moves ten times as fast.

        Of all items of a row there is one temperature for the row's whole reward, which nobody knows: it must come
        down to it, and may be ten times too high. At a rate of 1e-3 that takes 2,300 updates, in which nothing else is
        learned.
        """
        becomes, rate = changes.get("items") == "joint" and self.items != "joint", self.learning_rates.get("alpha")
        return {"learning_rates.alpha": 10 * rate} if becomes and rate else {}

    def refuses(self, head: Head) -> str:
        """It sums over all joint choices, or goes through the draw of a vector."""
        fits = head.expectation != "sampled"
        return "" if fits else "the choices cannot be enumerated, and no gradient goes through their draw"

    def options(self) -> dict[str, Any]:
        return {**super().options(), "head": self.asked_head(self.draw)}

    def make_objective(self, policy: Policy, seed: int) -> SoftActorCriticLoss:
        """Over all joint choices where they can be enumerated, pathwise through the action where it is a vector."""
        pathwise = policy.head.expectation == "pathwise"
        critic = CriticEnsemble(
            policy.observation_dim
            + self.critic_latent * policy.choices
            + (policy.head.feature_width if pathwise else 0),
            1 if pathwise else policy.head.joint,
            hidden=self.hidden,
            act=self.act,
            agents=policy.agents,
            generator=torch.Generator().manual_seed(seed),
        )
        shared: dict[str, Any] = {
            "gamma": self.gamma,
            "tau": self.tau,
            "alpha": self.alpha,
            "target_actor": self.target_actor,
            "critic_latent": self.critic_latent,
            "reward_scale": self.reward_scale,
        }
        if pathwise:
            target: Any = "auto" if self.target_entropy == "share" else self.target_entropy
            return LatentBoundedSACLoss(policy, critic, target_entropy=target, **shared)
        return LatentDiscreteSACLoss(
            policy,
            critic,
            target_entropy=self.target_entropy,
            entropy_share=self.entropy_share,
            entropy=self.entropy,
            samples=self.entropy_samples,
            **shared,
        )
