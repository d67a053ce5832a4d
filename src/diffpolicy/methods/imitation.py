"""`ImitationMethod` and `ChainImitationMethod`: deciding as somebody else does, without a chain and by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from tensordict import TensorDictBase

from diffpolicy import _validate as check
from diffpolicy.environments.entrants import make_policy, rules_of
from diffpolicy.environments.problem import Problem
from diffpolicy.errors import InputError
from diffpolicy.methods.action_chain import ActionChainMethod
from diffpolicy.methods.fields import Rule, optional_text
from diffpolicy.methods.off_policy import OffPolicyMethod
from diffpolicy.objectives.denoising import DenoisingLoss
from diffpolicy.objectives.imitation import ImitationLoss
from diffpolicy.objectives.likelihood import LikelihoodLoss
from diffpolicy.objectives.token_imitation import TokenImitationLoss
from diffpolicy.policies.direct import FeedforwardPolicy
from diffpolicy.policies.policy import Policy
from diffpolicy.policies.protocols import Decides
from diffpolicy.training.offline import OfflineModule
from diffpolicy.training.taught import TaughtModule


@dataclass(frozen=True, kw_only=True)
class ImitationMethod(OffPolicyMethod):
    """Behaviour cloning (Pomerleau 1991, doi:10.1162/neco.1991.3.1.88): a policy decides as its teacher does.

    The teacher plays, and what it decided is learned out of a replay: by its likelihood where the policy's chain, if it
    has one, ends in a law (`LikelihoodLoss`), and where the chain ends in the action itself by the cross-entropy of its
    tokens (`TokenImitationLoss`) or by denoising it (`DenoisingLoss`).

    Args:
        teacher: whose decisions: a rule of the problem by its name, `pretrained:NAME`, a policy's folder, or
            `module:attribute`; None: the problem's first rule.
        others: of `OffPolicyMethod`.

    Raises:
        InputError: a field is out of range or of another kind; in `build`: there is no such teacher.

    Example:
        >>> problem = EnvProblem(Clinic, steps=50, rules={"longest": longest_queue})
        >>> method = ImitationMethod(learning_rates={"actor": 0.01}, teacher="longest")
        >>> module = method.build(problem, environments=8)
        >>> fit(module, episodes=8).episodes, type(module.policy).__name__
        (8, 'FeedforwardPolicy')
    """

    teacher: str | None = None
    rules: ClassVar[Mapping[str, Rule]] = {**OffPolicyMethod.rules, "teacher": optional_text}
    own_policy: ClassVar[type[Policy]] = FeedforwardPolicy
    module_class: ClassVar[Any] = TaughtModule
    learns_from_data: ClassVar[bool] = True

    def build_from(self, problem: Problem, data: TensorDictBase | str | Path, *, seed: int = 0) -> OfflineModule:
        if self.teacher is not None:
            raise InputError(f"teacher must be null where a data set says what was decided, got {self.teacher!r}")
        return super().build_from(problem, data, seed=seed)

    def make_player(self, problem: Problem, seed: int) -> Decides:
        name = next(iter(rules_of(problem))) if self.teacher is None else self.teacher
        return make_policy(name, problem, seed=seed)

    def make_objective(self, policy: Policy, seed: int) -> ImitationLoss | None:
        """What is minimised; None where `make_module` makes it, since it needs the teacher."""
        return imitation_loss(policy)


@dataclass(frozen=True, kw_only=True)
class ChainImitationMethod(ActionChainMethod, ImitationMethod):
    """Behaviour cloning by a chain that ends in the action: a diffusion policy (Chi et al. 2023, arXiv 2303.04137).

    Choices are tokens, hidden and shown again or replaced (`tokens`), one item or all of a row together; vectors within
    bounds are denoised, or carried along a straight path from noise (`process`).

    Args:
        condition_drop: chance that a row's condition is left out, so that `ClassifierFree` can guide what is trained.
        tokens, token_sampler: of `ActionChainMethod`.
        prior, steps, process, schedule, sampler, sampler_steps, prediction, denoiser, denoiser_output, time: of
            `ActionChainMethod`.
        others: of `ImitationMethod`.

    Raises:
        InputError: a field is out of range or of another kind; in `build`: there is no such teacher.

    Example:
        >>> problem = EnvProblem(Clinic, steps=50, rules={"longest": longest_queue})
        >>> module = ChainImitationMethod(learning_rates={"actor": 0.01}, steps=2).build(problem, environments=8)
        >>> fit(module, episodes=8).episodes, type(module.policy.process).__name__
        (8, 'MaskedProcess')
    """

    condition_drop: float = 0.0
    rules: ClassVar[Mapping[str, Rule]] = {
        **ImitationMethod.rules,
        **ActionChainMethod.rules,
        "condition_drop": partial(check.number, least=0, most=1),
    }

    def options(self) -> dict[str, Any]:
        return {**super().options(), **({"condition_drop": self.condition_drop} if self.condition_drop else {})}


def imitation_loss(policy: Policy) -> ImitationLoss:
    """The loss by which a policy imitates, as its head says what x_0 is. Args: policy: any, without a memory."""
    if policy.head.x0_is == "parameters":
        return LikelihoodLoss(policy)
    chained: Any = policy  # both losses refuse a policy without a chain
    return TokenImitationLoss(chained) if policy.head.tokens else DenoisingLoss(chained)
