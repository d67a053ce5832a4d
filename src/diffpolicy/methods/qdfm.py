"""`QDFMMethod`: Q-weighted discrete flow matching, and its control without a chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

from torch import nn

from diffpolicy import _validate as check
from diffpolicy.methods.action_critic import ActionCriticMethod
from diffpolicy.methods.fields import Rule
from diffpolicy.objectives.qdfm import QDFMLoss
from diffpolicy.policies.heads import BoundedHead, Head, VectorHead
from diffpolicy.policies.policy import Policy


@dataclass(frozen=True, kw_only=True)
class QDFMMethod(ActionCriticMethod):
    """A flow of tokens matches its rates to its own actions, weighted by their values (QDFM, arXiv 2602.06138).

    The losses are those of `QDFMLoss`.

    Args:
        beta: how much values weigh, per unit of scaled reward.
        others: of `ActionCriticMethod`; tokens are `uniform`, and the sampler of them is `TauLeaping`, by default.

    Raises:
        InputError: a field is out of range or of another kind.

    Example:
        >>> method = QDFMMethod(learning_rates={"actor": 1e-3, "critic": 1e-3}, steps=5)
        >>> module = method.build(EnvProblem(Clinic, steps=50), environments=8)
        >>> fit(module, episodes=8).episodes, type(module.policy.process).__name__
        (8, 'UniformProcess')
    """

    beta: float = 5.0
    tokens: Literal["masked", "uniform"] = "uniform"
    token_sampler: dict[str, Any] = field(default_factory=lambda: {"kind": "TauLeaping"})
    rules: ClassVar[Mapping[str, Rule]] = {**ActionCriticMethod.rules, "beta": partial(check.number, above=0)}

    def refuses(self, head: Head) -> str:
        """As its family; and rates are of tokens."""
        numbers = self.chain and isinstance(head, (BoundedHead, VectorHead))
        return super().refuses(head) or ("it matches rates of jumps between choices" if numbers else "")

    def make_loss(self, policy: Policy, critic: nn.Module, shared: dict[str, Any]) -> QDFMLoss:
        return QDFMLoss(policy, critic, beta=self.beta, **shared)
