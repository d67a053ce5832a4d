"""The state of an environment, saved and taken up again."""

from __future__ import annotations

from types import MethodType

from torch import nn
from torchrl.envs import EnvBase


def saves_state(env: EnvBase) -> bool:
    """Whether an environment can save its state and take it up again."""
    hooks = (env.get_extra_state, nn.Module.get_extra_state), (env.set_extra_state, nn.Module.set_extra_state)
    return not any(isinstance(mine, MethodType) and mine.__func__ is default for mine, default in hooks)
