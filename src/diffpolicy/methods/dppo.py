"""`DPPOMethod`: diffusion policy policy optimisation, PPO whose decisions are the steps of a chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torchrl.envs import EnvBase

from diffpolicy import _validate as check
from diffpolicy.diffusion.named import SAMPLERS
from diffpolicy.errors import InputError
from diffpolicy.methods.action_chain import ActionChainMethod
from diffpolicy.methods.fields import Rule
from diffpolicy.methods.ppo import PPOMethod
from diffpolicy.objectives.dppo import DPPOLoss
from diffpolicy.policies.heads import Head
from diffpolicy.policies.keys import Keys
from diffpolicy.policies.registry import part_with


@dataclass(frozen=True, kw_only=True)
class DPPOMethod(ActionChainMethod, PPOMethod):
    """Diffusion policy policy optimisation (Ren et al. 2024, arXiv 2409.00588), by `DPPOLoss`.

    The chain ends in the action, and each of its steps is a decision whose probability is known; `DiffusionPPOMethod`
    goes through all steps to a law of the action instead.

    Args:
        min_std: of vectors: least standard deviation of a step, by which it explores. A trained policy keeps it;
            `with_sampler` takes it away.
        denoising_gamma: discount of a step for each that follows it, above 0 and at most 1.
        prior, steps, process, schedule, sampler, sampler_steps, prediction, denoiser, denoiser_output, time,
            tokens, token_sampler: of `ActionChainMethod`.
        entropy: 0, since a chain's is not at hand.
        others: of `PPOMethod`, `clip` of each step's ratio.

    Raises:
        InputError: a field is out of range or of another kind; in `build`: the chain does not end in the action.

    Example:
        >>> rates = {"actor": 1e-3, "critic": 1e-3}
        >>> method = DPPOMethod(learning_rates=rates, steps=3, collect=400, epochs=2)
        >>> module = method.build(EnvProblem(Clinic, steps=50), environments=8)
        >>> fit(module, episodes=8).episodes, type(module.policy.head).__name__
        (8, 'TokenHead')
    """

    min_std: float = 0.1
    denoising_gamma: float = 0.99
    rules: ClassVar[Mapping[str, Rule]] = {
        **PPOMethod.rules,
        **ActionChainMethod.rules,
        "min_std": partial(check.number, above=0),
        "denoising_gamma": partial(check.number, above=0, most=1),
        "entropy": partial(check.number, least=0, most=0),
    }
    through_chain: ClassVar[bool] = True

    def refuses(self, head: Head) -> str:
        """As its family; and its chain ends in the action, so that no law of actions is asked for."""
        return "" if head.x0_is == "action" else super().refuses(head)

    def options_in(self, env: EnvBase) -> dict[str, Any]:
        options = super().options_in(env)
        if self.head is not None or Keys.of(env, mask_key=self.mask_key).action.kind != "bounded":
            return options
        named = SAMPLERS[str(options["sampler"])](options["prediction"])
        return options | {"sampler": part_with(named, min_std=self.min_std)}

    def make_objective(self, policy: Any, seed: int) -> DPPOLoss:
        if policy.head.x0_is != "action":
            what = type(policy.head).__name__
            raise InputError(
                f"DPPOMethod cannot train a policy with a {what}: its chain must end in the action itself, as that of "
                "a TokenHead or a VectorHead"
            )
        return DPPOLoss(
            policy,
            self.make_critic(policy, seed),
            clip=self.clip,
            critic_weight=self.critic_weight,
            denoising_gamma=self.denoising_gamma,
        )
