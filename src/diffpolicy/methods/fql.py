"""`FQLMethod` and `PlainFQLMethod`: flow Q-learning, and its control without a chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torchrl.envs import EnvBase

from diffpolicy import _validate as check
from diffpolicy.diffusion.processes import FlowProcess
from diffpolicy.methods.chained import ChainedMethod
from diffpolicy.methods.fields import Rule
from diffpolicy.methods.off_policy import OffPolicyMethod
from diffpolicy.objectives.critics import action_critic
from diffpolicy.objectives.fql import FQLLoss
from diffpolicy.policies.diffusion import DiffusionPolicy
from diffpolicy.policies.direct import FeedforwardPolicy
from diffpolicy.policies.heads import BoundedHead, Head, VectorHead
from diffpolicy.policies.keys import Keys
from diffpolicy.policies.policy import Policy


@dataclass(frozen=True, kw_only=True)
class PlainFQLMethod(OffPolicyMethod):
    """The control of flow Q-learning (arXiv 2502.02538): a normal law instead of a flow and a chain of one step.

    Its critics and its weights are the same; it is held near what was played by the log-probability of that.

    Args:
        alpha: weight of staying near what was played.
        normalize_q: whether alpha is in units of the mean magnitude of Q.
        tau: share of the new parameters in the critics' targets, each update.
        reward_scale: factor on rewards before anything else.
        others: of `OffPolicyMethod`.

    Raises:
        InputError: a field is out of range or of another kind; in `build`: the action is no vector within bounds.

    Example:
        >>> method = PlainFQLMethod(learning_rates={"actor": 1e-3, "critic": 1e-3}, alpha=0.1)
        >>> method.refuses(BoundedHead()), method.normalize_q
        ('', True)
    """

    alpha: float = 1.0
    normalize_q: bool = True
    tau: float = 0.005
    reward_scale: float = 1.0
    rules: ClassVar[Mapping[str, Rule]] = {
        **OffPolicyMethod.rules,
        "alpha": partial(check.number, least=0),
        "normalize_q": check.flag,
        "tau": partial(check.number, above=0, most=1),
        "reward_scale": partial(check.number, above=0),
    }
    own_policy: ClassVar[type[Policy]] = FeedforwardPolicy
    learns_from_data: ClassVar[bool] = True

    def refuses(self, head: Head) -> str:
        """It sends a gradient through a vector."""
        fits = isinstance(head, (BoundedHead, VectorHead))
        return "" if fits else "flow Q-learning is of vectors within bounds"

    def make_flow(self, policy: Any, seed: int) -> DiffusionPolicy | None:
        """What imitates the rows beside a policy; None: nothing."""
        return None

    def make_objective(self, policy: Policy, seed: int) -> FQLLoss:
        generator = torch.Generator().manual_seed(seed)
        return FQLLoss(
            policy,
            action_critic(policy, hidden=self.hidden, act=self.act, generator=generator),
            self.make_flow(policy, seed),
            alpha=self.alpha,
            normalize_q=self.normalize_q,
            gamma=self.gamma,
            tau=self.tau,
            reward_scale=self.reward_scale,
        )


@dataclass(frozen=True, kw_only=True)
class FQLMethod(ChainedMethod, PlainFQLMethod):
    """Flow Q-learning (Park et al. 2025, arXiv 2502.02538), by `FQLLoss`, of vectors within bounds.

    A flow of `steps` steps imitates the replay; the policy, a chain of one step, is drawn to the flow's ends and to
    high values. The replay is of its own play, as in the paper's online part.

    Args:
        prior, schedule, sampler, sampler_steps, prediction: without effect here, since flow and policy start from
            noise on a straight path.
        steps: of the flow.
        denoiser, denoiser_output, time: of `ChainedMethod`; both networks have them.
        others: of `PlainFQLMethod`.

    Raises:
        InputError: a field is out of range or of another kind; in `build`: the action is no vector within bounds.

    Example:
        >>> method = FQLMethod(learning_rates={"actor": 1e-3, "critic": 1e-3, "flow": 1e-3}, steps=10)
        >>> method.refuses(CategoricalHead(choices=3))
        'flow Q-learning is of vectors within bounds'
    """

    rules: ClassVar[Mapping[str, Rule]] = {**PlainFQLMethod.rules, **ChainedMethod.rules}
    through_chain: ClassVar[bool] = True

    def options_in(self, env: EnvBase) -> dict[str, Any]:
        options = self.options()
        if self.head is not None or Keys.of(env, mask_key=self.mask_key).action.kind != "bounded":
            return options  # its usual head is refused by its name
        one = {"schedule": FlowProcess(self.steps), "sampler": "one-step", "sampler_steps": None, "prediction": "x0"}
        return options | one | {"head": VectorHead()}

    def make_flow(self, policy: Any, seed: int) -> DiffusionPolicy | None:
        if not isinstance(policy.head, VectorHead):
            return None
        flow = {"sampler": "flow-euler", "sampler_steps": None, "prediction": "velocity", "seed": seed}
        return DiffusionPolicy._from_config({**policy.config(), **flow})
