"""A Gymnasium environment as the TorchRL environment of one lane."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from tensordict import TensorDictBase
from torchrl.data import MultiCategorical
from torchrl.envs import EnvBase

from diffpolicy.errors import InputError

SHARED = "gives the same environment each time; it must make a fresh one, whose state is its own"
"""What a function does that makes no environment, but gives one that is there already."""


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
    _check_flat(env.action_space, env.action_space)
    try:
        lane = GymWrapper(env, categorical_action_encoding=True)
    except Exception as error:  # of what it stumbles over there is no list
        told = ", ".join(f"{name} {space}" for name, space in spaces.items())
        raise InputError(f"TorchRL cannot take {type(env).__name__} with {told}: {_first(error)}") from None
    return observed_whole(one_decision(lane, env.action_space), env.observation_space)


def is_made(env: Any) -> bool:
    """Whether what stands where something makes environments is one already, of TorchRL or of Gymnasium."""
    gymnasium = sys.modules.get("gymnasium")
    return isinstance(env, EnvBase) or (gymnasium is not None and isinstance(env, gymnasium.Env))


def told_made(env: Any) -> str:
    """What is given instead of an environment that is made already. Args: env: of `is_made`."""
    name = type(getattr(env, "unwrapped", env)).__name__
    return f"an environment, made already; give the class {name}, or a function that makes one, not an instance"


def observed_whole(env: EnvBase, space: Any) -> EnvBase:
    """An environment that tells `Keys` to observe all parts of a `Dict`, as a goal beside its `observation` is one.

    Args:
        env: of Gymnasium, one lane. space: of its observations.
    """
    from gymnasium import spaces

    env.observed_whole = isinstance(space, spaces.Dict)
    env.set_info_dict_reader(_MaskInInfo(type(env.unwrapped).__name__))
    return env


class _MaskInInfo:
    """Warns of a mask that a Gymnasium environment tells in `info`, where no policy reads it. Args: name: of it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, info: Mapping[str, Any], td: TensorDictBase) -> TensorDictBase:
        """Looks at what a reset or a step told. Args: info: of it. td: what it showed, which stays as it is."""
        if "action_mask" in info and "action_mask" not in td.keys():
            _tell_of_mask(self.name)
        return td


@cache  # once for all lanes: Python's own "once" begins anew wherever filters change
def _tell_of_mask(name: str) -> None:
    warnings.warn(
        f"{name} puts an action_mask into info, where it masks nothing; for it to be read, give a Dict of observations "
        "with an action_mask at its top",
        stacklevel=1,  # it is no fault of whoever stepped
    )


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

    _check_start(space, space)
    sizes = space.nvec if isinstance(space, spaces.MultiDiscrete) else None
    if isinstance(space, spaces.MultiBinary) and len(space.shape) == 1:
        env.action_spec = MultiCategorical([2] * space.shape[0], device=env.device)
    elif sizes is not None and sizes.ndim == 1:
        env.action_spec = MultiCategorical(sizes.tolist(), device=env.device)
    return env


def _check_start(part: Any, space: Any) -> None:
    """Refuses choices that do not begin at 0. Args: part: of the space of actions, which may hold others."""
    from gymnasium import spaces

    if isinstance(part, (spaces.Dict, spaces.Tuple)):
        for inner in part.values() if isinstance(part, spaces.Dict) else part:
            _check_start(inner, space)
    start = getattr(part, "start", 0) if isinstance(part, (spaces.Discrete, spaces.MultiDiscrete)) else 0
    if bool(np.any(np.asarray(start) != 0)):
        raise InputError(f"the action_space {space} must begin at 0: give it no start, and add it in step")


def _check_flat(part: Any, space: Any) -> None:
    """Refuses a `MultiBinary` of rows, which TorchRL does not take. Args: as of `_check_start`."""
    from gymnasium import spaces

    if isinstance(part, (spaces.Dict, spaces.Tuple)):
        for inner in part.values() if isinstance(part, spaces.Dict) else part:
            _check_flat(inner, space)
    if isinstance(part, spaces.MultiBinary) and len(part.shape) != 1:
        flat = math.prod(part.shape)
        raise InputError(
            f"the action_space {space} must have one dimension: give MultiBinary({flat}), and reshape it in step"
        )


def _first(error: Exception) -> str:
    """The first line of what an error says."""
    return (str(error).splitlines() or [type(error).__name__])[0]
