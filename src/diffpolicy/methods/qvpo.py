"""`QVPOMethod`: Q-weighted variational policy optimisation, and its control without a chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import nn

from diffpolicy import _validate as check
from diffpolicy.methods.action_critic import ActionCriticMethod
from diffpolicy.methods.fields import Rule
from diffpolicy.objectives.qvpo import QVPOLoss
from diffpolicy.policies.policy import Policy


@dataclass(frozen=True, kw_only=True)
class QVPOMethod(ActionCriticMethod):
    """A chain learns its own actions, each by how far a critic puts it above the average (QVPO, arXiv 2405.16173).

    The losses are those of `QVPOLoss`.

    Args:
        kept: how many of the weighed actions are learned from, the best ones; None: all.
        entropy: weight of actions drawn alike from all, which keep the law wide.
        uniform: how many of them are drawn in a state.
        others: of `ActionCriticMethod`.

    Raises:
        InputError: a field is out of range or of another kind.

    Example:
        >>> method = QVPOMethod(learning_rates={"actor": 1e-3, "critic": 1e-3}, steps=3)
        >>> module = method.build(EnvProblem(Clinic, steps=50), environments=8)
        >>> fit(module, episodes=8).episodes, type(module.policy.head).__name__
        (8, 'TokenHead')
    """

    kept: int | None = None
    entropy: float = 0.01
    uniform: int = 4
    rules: ClassVar[Mapping[str, Rule]] = {
        **ActionCriticMethod.rules,
        "kept": lambda value, key: None if value is None else check.integer(value, key, least=1),
        "entropy": partial(check.number, least=0),
        "uniform": partial(check.integer, least=1, most=10**5),
    }

    def make_loss(self, policy: Policy, critic: nn.Module, shared: dict[str, Any]) -> QVPOLoss:
        return QVPOLoss(policy, critic, kept=self.kept, entropy=self.entropy, uniform=self.uniform, **shared)
