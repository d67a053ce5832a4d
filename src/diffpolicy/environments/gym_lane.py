"""A Gymnasium environment that a function made, as the TorchRL environment of one lane."""

from __future__ import annotations

import sys
from typing import Any


def as_lane(env: Any) -> Any:
    """A Gymnasium environment as TorchRL has it, choices as whole numbers; anything else as it is.

    Args:
        env: what a function made.
    """
    # whoever made one has imported it, and importing it for others takes time
    gymnasium = sys.modules.get("gymnasium")
    if gymnasium is None or not isinstance(env, gymnasium.Env):
        return env
    from torchrl.envs import GymWrapper

    return GymWrapper(env, categorical_action_encoding=True)
