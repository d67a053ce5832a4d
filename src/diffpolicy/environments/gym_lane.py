"""A Gymnasium environment as the TorchRL environment of one lane."""

from __future__ import annotations

import sys
from typing import Any

from torchrl.data import MultiCategorical
from torchrl.envs import EnvBase

from diffpolicy.errors import InputError


def as_lane(env: Any) -> Any:
    """A Gymnasium environment as TorchRL has it, choices as whole numbers; anything else as it is.

    Args:
        env: what a function made.

    Raises:
        InputError: TorchRL has no such spaces, or choices begin elsewhere than at 0.
    """
    # whoever made one has imported it, and importing it for others takes time
    gymnasium = sys.modules.get("gymnasium")
    if gymnasium is None or not isinstance(env, gymnasium.Env):
        return env
    from torchrl.envs import GymWrapper

    spaces = {name: getattr(env, name, None) for name in ("observation_space", "action_space")}
    for name, space in spaces.items():
        if not isinstance(space, gymnasium.Space):
            raise InputError(f"{type(env).__name__} has no {name}, got {space!r}")
    try:
        lane = GymWrapper(env, categorical_action_encoding=True)
    except Exception as error:  # of what it stumbles over there is no list
        told = ", ".join(f"{name} {space}" for name, space in spaces.items())
        raise InputError(f"TorchRL cannot take {type(env).__name__} with {told}: {_first(error)}") from None
    return one_decision(lane, env.action_space)


def one_decision(env: EnvBase, space: Any) -> EnvBase:
    """An environment whose `MultiDiscrete` or `MultiBinary` action is one of several slots, whatever their sizes.

    Where all sizes are the same TorchRL makes choices of it that stand side by side, and these would be items, each of
    which is decided alone and sees what is observed of it.

    Args:
        env: of Gymnasium, one lane. space: of its action.

    Raises:
        InputError: the choices do not begin at 0, which TorchRL does not heed.
    """
    from gymnasium import spaces

    start = getattr(space, "start", 0) if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)) else 0
    if bool((start != 0) if isinstance(start, int) else (start != 0).any()):
        raise InputError(f"the action_space {space} must begin at 0: give it no start, and add it in step")
    sizes = space.nvec if isinstance(space, spaces.MultiDiscrete) else None
    if isinstance(space, spaces.MultiBinary) and len(space.shape) == 1:
        env.action_spec = MultiCategorical([2] * space.shape[0], device=env.device)
    elif sizes is not None and sizes.ndim == 1:
        env.action_spec = MultiCategorical(sizes.tolist(), device=env.device)
    return env


def _first(error: Exception) -> str:
    """The first line of what an error says."""
    return (str(error).splitlines() or [type(error).__name__])[0]
