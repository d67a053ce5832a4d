"""Whether what an environment gives is what its specs say: keys, shapes, types and ranges, and specs that stay."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import Bounded, Categorical, Composite, MultiCategorical
from torchrl.envs import EnvBase

from diffpolicy.environments.checks import check_value
from diffpolicy.errors import InputError
from diffpolicy.policies.nested_keys import elsewhere, plain

ROUNDING = 1e-4
"""By how much of its range a number may be out of bounds before it is told: float32 rounds what simulators compute."""


def check_values(td: TensorDictBase, specs: Any, who: str) -> None:
    """Whether values are of the specs' shapes and types, finite, among the choices, and free of gradients.

    Args:
        td: holds the values. specs: a `Composite` of all that must be there. who: gives them.

    Raises:
        InputError: names the key, and what is there in its place.
    """
    for key, spec in specs.items(True, True):
        value = td.get(key, None)
        if value is None:
            raise InputError(
                f"{who} does not give {plain(key)!r}, which the specs name{elsewhere(plain(key), td.keys(True, True))}"
            )
        check_value(plain(key), value, spec, who)
        if not isinstance(value, Tensor):
            continue
        if value.requires_grad and not torch.is_grad_enabled():  # what is stored would keep the graph of each update
            raise InputError(f"{plain(key)!r} of {who} requires a gradient; give it back detached (.detach())")
        if isinstance(spec, (Categorical, MultiCategorical)):
            _check_choices(value, spec, f"{plain(key)!r} of {who}")


def _check_choices(value: Tensor, spec: Categorical | MultiCategorical, what: str) -> None:
    """Refuses numbers that are none of a spec's choices; a size of -1 is not known yet. Args: what: they are."""
    sizes = torch.as_tensor(spec.nvec if isinstance(spec, MultiCategorical) else spec.space.n, device=value.device)
    sizes = sizes.expand_as(value)
    out = ((value < 0) | (value >= sizes)) & (sizes >= 0)
    if out.any():
        raise InputError(
            f"{what} holds {value[out][0].item()}, and its spec says whole numbers from 0 to {sizes[out][0].item() - 1}"
        )


def check_raw_shapes(td: TensorDictBase, specs: Any, who: str) -> None:
    """Whether what `_step` itself gives keeps its order where TorchRL brings its numbers into the specs' shapes.

    TorchRL views a reward or an end of the right number of entries as one of the right shape, in whatever order they
    stand: one that is turned, agents before lanes, would become that of others without a word. Dimensions of one entry
    may be there or not: a reward `[E]` is the same as one `[E, 1]`.

    Args:
        td: of `_step`. specs: of rewards or ends; what is not there is not looked at. who: gives it.

    Raises:
        InputError: names the key and both shapes.
    """
    for key, spec in specs.items(True, True):
        value = td.get(key, None)
        if isinstance(value, Tensor) and _without_ones(value.shape) != _without_ones(spec.shape):
            raise InputError(f"{plain(key)!r} of {who} must have shape {list(spec.shape)}, got {list(value.shape)}")


def _without_ones(shape: torch.Size) -> list[int]:
    """The sizes of dimensions of more than one entry."""
    return [size for size in shape if size != 1]


def warn_of_bounds(env: EnvBase, rollout: TensorDictBase, name: str) -> None:
    """Warns of numbers out of the bounds that their specs give: what they are is learned of, but the specs are wrong.

    Args:
        env: that was played. rollout: of it, `[E, T]`. name: of it.
    """
    states = [rollout[:, 0], *(rollout[:, k]["next"] for k in range(rollout.batch_size[1]))]
    for specs in (env.full_observation_spec, env.full_reward_spec):
        for key, spec in specs.items(True, True):
            if isinstance(spec, Bounded):
                values = (state.get(key, None) for state in states)
                told = next((t for x in values if isinstance(x, Tensor) and (t := _out_of_bounds(x, spec))), None)
                if told is not None:
                    warnings.warn(f"{plain(key)!r} of {name} is {told}: is its spec right?", stacklevel=3)


def _out_of_bounds(value: Tensor, spec: Bounded) -> str | None:
    """A number that is out of its bounds, and the bounds; None: all are within."""
    low, high = (bound.to(value.device).expand_as(value) for bound in (spec.space.low, spec.space.high))
    slack = (ROUNDING * (high.double() - low.double())).nan_to_num(posinf=0.0)
    out = (value < low - slack) | (value > high + slack)
    if not out.any():
        return None
    number, least, most = (x[out][0].item() for x in (value, low, high))
    return f"{number:g}, out of its bounds {least:g} to {most:g}"


def actions_of(env: EnvBase) -> Composite:
    """The action spec as it is now, without masks, which TorchRL's `update_mask` changes. Args: env: whose."""
    specs: Composite = env.full_action_spec.clone()
    for spec in specs.values(True, True):
        if getattr(spec, "mask", None) is not None:
            spec.mask = None
    return specs


def check_same_actions(env: EnvBase, before: Composite, name: str) -> None:
    """Refuses an environment whose action spec has become another one while it was played.

    Args:
        env: that was played. before: of `actions_of`. name: of it.

    Raises:
        InputError: names the environment and the key.
    """
    now = actions_of(env)
    for key in {*before.keys(True, True), *now.keys(True, True)}:
        if before.get(key, None) != now.get(key, None):
            raise InputError(
                f"the action_spec of {name} has become another one at {plain(key)!r} while it was played; a policy is "
                "made for one spec, so keep it and forbid choices by an action_mask"
            )
