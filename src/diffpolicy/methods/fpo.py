"""`FPOMethod`: flow policy optimisation, PPO whose ratios are of a flow's matching losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torchrl.envs import EnvBase

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.methods.action_chain import ActionChainMethod
from diffpolicy.methods.fields import Rule
from diffpolicy.methods.ppo import PPOMethod
from diffpolicy.objectives.fpo import FPOLoss
from diffpolicy.policies.heads import BoundedHead, Head, VectorHead
from diffpolicy.policies.keys import Keys


@dataclass(frozen=True, kw_only=True)
class FPOMethod(ActionChainMethod, PPOMethod):
    """Flow policy optimisation (McAllister et al. 2025, arXiv 2507.21053), by `FPOLoss`, of vectors within bounds.

    Args:
        samples: levels and noises at which the matching loss of each action is compared.
        process: of `ActionChainMethod`; the flow is FPO as published.
        prior, steps, schedule, sampler, sampler_steps, prediction, denoiser, denoiser_output, time, tokens,
            token_sampler: of `ActionChainMethod`.
        entropy: 0, since a flow's is not at hand.
        others: of `PPOMethod`.

    Raises:
        InputError: a field is out of range or of another kind; in `build`: the action is no vector within bounds.

    Example:
        >>> method = FPOMethod(learning_rates={"actor": 1e-3, "critic": 1e-3}, process="flow")
        >>> method.refuses(CategoricalHead(choices=3)), method.samples
        ('flow policy optimisation is of vectors within bounds', 8)
    """

    samples: int = 8
    rules: ClassVar[Mapping[str, Rule]] = {
        **PPOMethod.rules,
        **ActionChainMethod.rules,
        "samples": partial(check.integer, least=1, most=10**4),
        "entropy": partial(check.number, least=0, most=0),
    }

    def refuses(self, head: Head) -> str:
        """It compares losses of flows."""
        fits = isinstance(head, (BoundedHead, VectorHead))
        return "" if fits else "flow policy optimisation is of vectors within bounds"

    def options_in(self, env: EnvBase) -> dict[str, Any]:
        if Keys.of(env, mask_key=self.mask_key).action.kind not in VectorHead.kinds:
            return self.options()  # its usual head is refused by its name
        return super().options_in(env)

    def make_objective(self, policy: Any, seed: int) -> FPOLoss:
        if not isinstance(policy.head, VectorHead):
            why = self.refuses(policy.head) or "its chain must end in the action itself, as that of a VectorHead"
            raise InputError(f"FPOMethod cannot train a policy with a {type(policy.head).__name__}: {why}")
        critic = self.make_critic(policy, seed)
        return FPOLoss(policy, critic, clip=self.clip, critic_weight=self.critic_weight, samples=self.samples)
