"""`DistillationMethod` and `OneStepMethod`: a student that decides by a teacher's law in one pass of its network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torchrl.envs import EnvBase

from diffpolicy._read import what_is
from diffpolicy.diffusion.processes import FlowProcess
from diffpolicy.methods.chained import ChainedMethod
from diffpolicy.methods.fields import Rule
from diffpolicy.methods.imitation import ImitationMethod
from diffpolicy.methods.rollouts import Parts
from diffpolicy.objectives.distillation import DistillationLoss
from diffpolicy.policies.heads import Head, VectorHead
from diffpolicy.policies.policy import Policy
from diffpolicy.policies.saving import SavedPolicy
from diffpolicy.training.off_policy import OffPolicyModule
from diffpolicy.training.taught import TaughtModule


@dataclass(frozen=True, kw_only=True)
class DistillationMethod(ImitationMethod):
    """Distillation of a policy into a network without a chain, by `DistillationLoss` (cf. FQL, arXiv 2502.02538).

    Args:
        teacher: a trained policy's folder, above all; else whatever an `ImitationMethod` takes, of which the decisions
            are learned.
        others: of `ImitationMethod`.

    Raises:
        InputError: a field is out of range or of another kind; in `build`: there is no such teacher.

    Example:
        >>> _ = DiffusionPolicy.from_specs(Clinic(1), steps=5).save("policies/teacher")
        >>> method = DistillationMethod(learning_rates={"actor": 0.01}, teacher="policies/teacher")
        >>> module = method.build(EnvProblem(Clinic, steps=50), environments=8)
        >>> fit(module, episodes=8).episodes, type(module.policy).__name__
        (8, 'FeedforwardPolicy')
    """

    rules: ClassVar[Mapping[str, Rule]] = ImitationMethod.rules

    def refuses(self, head: Head) -> str:
        """A student tells the law of its decisions."""
        return "a student of tokens has no law that could come near a teacher's" if head.tokens else ""

    def make_objective(self, policy: Policy, seed: int) -> None:
        """Made with the teacher, in `make_module`."""

    def make_module(self, parts: Parts) -> OffPolicyModule:
        made = Parts(**{**vars(parts), "objective": DistillationLoss(parts.policy, parts.player)})
        module: TaughtModule = super().make_module(made)  # type: ignore[assignment]
        return module


@dataclass(frozen=True, kw_only=True)
class OneStepMethod(ChainedMethod, DistillationMethod):
    """Distillation of a chain into a chain of one step from the same noise (cf. FQL, arXiv 2502.02538).

    The student's network predicts x_0 at once, `sampler: one-step`; where the teacher's x_0 is a vector, so is its.

    Args:
        prior, steps, schedule, sampler, sampler_steps, prediction, denoiser, denoiser_output, time: of `ChainedMethod`.
        others: of `DistillationMethod`.

    Raises:
        InputError: a field is out of range or of another kind; in `build`: there is no such teacher.

    Example:
        >>> _ = DiffusionPolicy.from_specs(Clinic(1), steps=5).save("policies/teacher")
        >>> rates = {"actor": 0.01}
        >>> one = {"steps": 1, "sampler": "one-step", "prediction": "x0"}
        >>> module = OneStepMethod(learning_rates=rates, teacher="policies/teacher", **one).build(
        ...     EnvProblem(Clinic, steps=50), environments=8
        ... )
        >>> fit(module, episodes=8).episodes, module.policy.path
        (8, (1,))
    """

    rules: ClassVar[Mapping[str, Rule]] = {**DistillationMethod.rules, **ChainedMethod.rules}

    def options_in(self, env: EnvBase) -> dict[str, Any]:
        options = self.options()
        folder = self.teacher is not None and what_is(Path(self.teacher) / "policy.json") == "file"
        if not folder:
            return options
        head = getattr(SavedPolicy.load(str(self.teacher)), "head", None)
        return (
            options | {"head": head, "schedule": FlowProcess(self.steps)} if isinstance(head, VectorHead) else options
        )
