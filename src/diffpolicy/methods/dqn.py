"""`DQNMethod`: deep Q-learning (Mnih et al. 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy.methods.fields import Rule
from diffpolicy.methods.off_policy import OffPolicyMethod
from diffpolicy.objectives.dqn import AgentsDQNLoss
from diffpolicy.policies.direct import GreedyValuePolicy
from diffpolicy.policies.heads import CategoricalHead, Head
from diffpolicy.policies.policy import Policy


@dataclass(frozen=True, kw_only=True)
class DQNMethod(OffPolicyMethod):
    """Deep Q-learning (Mnih et al. 2015, doi:10.1038/nature14236), by `AgentsDQNLoss`.

    For one choice among few at each item; the policy is greedy in the action values that an MLP gives.

    Args:
        epsilon: rate of uniform choices while training, from 0 to 1.
        target_interval: updates between two copies to the target.
        double: whether the online network chooses the target's action (double DQN, arXiv 1509.06461).
        others: of `OffPolicyMethod`.

    Example:
        >>> method = DQNMethod(learning_rates={"critic": 1e-3}, epsilon=0.05, double=True)
        >>> module = method.build(EnvProblem(Clinic, steps=50), environments=8)
        >>> fit(module, episodes=8).episodes, type(module.policy).__name__
        (8, 'GreedyValuePolicy')
    """

    epsilon: float = 0.01
    target_interval: int = 200
    double: bool = False
    rules: ClassVar[Mapping[str, Rule]] = {
        **OffPolicyMethod.rules,
        "epsilon": partial(check.number, least=0, most=1),
        "target_interval": partial(check.integer, least=1, most=_limits.TRAINING),
        "double": check.flag,
    }

    own_policy: ClassVar[type[Policy]] = GreedyValuePolicy

    def refuses(self, head: Head) -> str:
        """It has a value for each of some choices."""
        return "" if isinstance(head, CategoricalHead) else "action values need one choice among some"

    def options(self) -> dict[str, Any]:
        return {**super().options(), "epsilon": self.epsilon}

    def make_objective(self, policy: GreedyValuePolicy, seed: int) -> AgentsDQNLoss:
        return AgentsDQNLoss(policy, gamma=self.gamma, target_interval=self.target_interval, double=self.double)
