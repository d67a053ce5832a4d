"""`PlayedModule`: what the modules share that play environments side by side: how many, and what tells a run."""

from __future__ import annotations

from typing import Any

from diffpolicy.policies.policy import Policy
from diffpolicy.training.trainable import Trainable, env_content, part_content, policy_content


class PlayedModule(Trainable):
    """A module whose `stream` has a `base_env`, of batch `[E]`, and that trains a policy by an objective.

    Example:
        >>> build(EnvProblem(Clinic, steps=50), "d2sac", environments=8).lanes
        8
    """

    policy: Policy
    objective: Any
    learning_rates: dict[str, float]
    stream: Any

    @property
    def lanes(self) -> int:
        """Environments side by side, each of which plays an episode a pass."""
        return int(self.stream.base_env.batch_size.numel())

    def content(self) -> dict[str, Any]:
        return {
            **super().content(),
            "environments": self.lanes,
            "env": env_content(self.stream.base_env),
            "policy": policy_content(self.policy),
            "objective": part_content(self.objective),
            "learning_rates": self.learning_rates,
        }
