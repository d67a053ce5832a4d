"""`check_policy`: whether a policy fits an environment, told in one sentence before anything is played."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.data import TensorSpec
from torchrl.envs import EnvBase

from diffpolicy import _validate as check
from diffpolicy.environments.chosen import Choice, check_chosen
from diffpolicy.errors import InputError
from diffpolicy.policies.nested_keys import elsewhere, next_key, plain
from diffpolicy.policies.protocols import Decides
from diffpolicy.policies.saving import SavedPolicy


def check_env(env: Any) -> None:
    """Whether an environment's specs are those of a decision problem: an action, a reward, and ends of its batch.

    Args:
        env: any; it is not played.

    Raises:
        InputError: it is no environment, or a spec is missing or of another batch.
    """
    if not isinstance(env, EnvBase):
        raise InputError(f"an environment must be a TorchRL EnvBase, got {check.show(env)}")
    name, batch = type(env).__name__, list(env.batch_size)
    if not list(env.action_keys):
        raise InputError(f"{name} has no action in its action_spec, so there is nothing to decide")
    if not env.reward_keys or not list(env.full_reward_spec.keys(True, True)):
        raise InputError(f"{name} has no reward in its reward_spec")
    done = {plain(key): spec for key, spec in env.full_done_spec.items(True, True)}
    if "done" not in done:
        raise InputError(f"{name} has no 'done' at the root of its done_spec, got {sorted(map(str, done))}")
    for key, spec in done.items():
        if list(spec.shape[: len(batch)]) != batch:
            raise InputError(f"{key!r} of {name} must begin with the batch {batch}, got shape {list(spec.shape)}")
        if spec.dtype != torch.bool:
            raise InputError(f"{key!r} of {name} must be bool, got {_dtype(spec.dtype)}")
    for key, spec in env.full_reward_spec.items(True, True):
        if not spec.dtype.is_floating_point:
            raise InputError(f"the reward {plain(key)!r} of {name} must be a real number, got {_dtype(spec.dtype)}")


def check_policy(policy: Decides, env: EnvBase) -> None:
    """Whether a policy fits an environment: keys, shapes, types, masks, agents, recurrent state, and its own networks.

    Nothing is played and nothing is drawn. A policy that is not one of this package's is tried on what the specs say
    that it will see, as a copy.

    Args:
        policy: a tensordict module, or a function of a tensordict.
        env: where it is to act, any batch; for a policy that remembers, `with_recurrent_state(env, policy)`.

    Raises:
        InputError: one sentence that names the key and the value.

    Example:
        >>> env = Clinic(1)
        >>> check_policy(longest_queue, env)
        >>> check_policy(lambda td: td.set("action", td["observation"]), env)
        Traceback (most recent call last):
        diffpolicy.errors.InputError: 'action' of the policy must have shape [1], got [1, 3]
    """
    check_env(env)
    check_is_policy(policy)
    if isinstance(policy, SavedPolicy):
        policy.check_env(env)
    check_reads(policy, env)
    check_device(policy, env)
    if not isinstance(policy, SavedPolicy):
        with suppress(ArithmeticError, RuntimeError, TypeError):  # zeros may be nothing that it can act on
            check_acts(copy.deepcopy(policy), env, specimen(env))


def check_is_policy(policy: Any) -> None:
    """Refuses what cannot decide: a class of policies, an environment, and what cannot be called.

    Args:
        policy: anything.

    Raises:
        InputError: names what is wanted.
    """
    check.no_class(policy, "the policy")
    if isinstance(policy, EnvBase):
        name = type(policy).__name__
        raise InputError(f"a policy must be a module or a function of a tensordict, got the environment {name}")
    if not callable(policy):
        raise InputError(f"a policy must be a module or a function of a tensordict, got {check.show(policy)}")


def check_reads(policy: Decides, env: EnvBase) -> None:
    """Whether an environment gives what a policy reads. Args: both of `check_policy`."""
    if not isinstance(policy, TensorDictModuleBase):
        return
    specs = (env.full_observation_spec, env.full_done_spec, env.full_state_spec)
    shown = {plain(key) for spec in specs for key in spec.keys(True, True)}
    for key in map(plain, policy.in_keys):
        if key not in shown:
            if next_key(key) in map(plain, policy.out_keys):
                raise InputError(
                    f"the policy carries {key!r} from step to step, which the environment does not give; act in "
                    "with_recurrent_state(env, policy)"
                )
            raise InputError(f"the policy reads {key!r}, which the environment does not show")


def check_device(policy: Decides, env: EnvBase) -> None:
    """Whether all parts of a policy are on one device, and one that computes. Args: both of `check_policy`."""
    if not isinstance(policy, nn.Module):
        return
    tensors = {**dict(policy.named_parameters()), **dict(policy.named_buffers())}
    first = next(iter(tensors.items()), None)
    for name, tensor in tensors.items():
        if tensor.device.type == "meta":
            raise InputError(f"parameter {name!r} of the policy is on the device meta, where nothing is computed")
        if isinstance(policy, SavedPolicy) and first is not None and tensor.device != first[1].device:
            raise InputError(
                f"parameter {name!r} of the policy is on {tensor.device}, and {first[0]!r} on {first[1].device}"
            )


def check_acts(
    policy: Any, env: EnvBase, td: TensorDictBase, who: str = "the policy", choices: list[Choice] | None = None
) -> TensorDictBase:
    """Whether a policy writes the environment's actions, in their type and shape, and in range and allowed.

    Args:
        policy: a module or a function; it is called once. env: says what actions are. td: what it sees.
        who: names it. choices: of `choices_of`; None: what it sees is made up, and any number will do.

    Returns:
        What it gave back, with the actions in it.

    Raises:
        InputError: it fails, or what it writes is no action.
    """
    try:
        with torch.no_grad():
            result = policy(td)
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"{who} reads what the environment does not show: {error.args[0]!s}") from None
    if not isinstance(result, TensorDictBase):
        raise InputError(f"{who} must give back a tensordict, got {check.show(result)}")
    for key in map(plain, env.action_keys):
        action = result.get(key, None)
        if action is None:
            raise InputError(f"{who} writes no action {key!r}{elsewhere(key, result.keys(True, True))}")
        check_value(key, action, env.full_action_spec[key], who)
    if choices is not None:
        check_chosen(result, choices, env.batch_size, who, shown=td)
    return result


def check_value(key: NestedKey, value: Any, spec: TensorSpec, who: str) -> None:
    """Whether a value is of its spec's shape and type, and finite.

    Args:
        key: of it. value: or None. spec: of it. who: gives it.

    Raises:
        InputError: names the key and what it is.
    """
    if value is None:
        raise InputError(f"{who} does not give {key!r}, which the specs name")
    if not isinstance(value, Tensor):
        return
    if value.shape != spec.shape:
        raise InputError(f"{key!r} of {who} must have shape {list(spec.shape)}, got {list(value.shape)}")
    if value.dtype != spec.dtype:
        raise InputError(f"{key!r} of {who} must be {_dtype(spec.dtype)}, got {_dtype(value.dtype)}")
    if value.is_floating_point() and not torch.isfinite(value).all():
        bad = value[~torch.isfinite(value)].flatten()[0].item()
        raise InputError(f"{key!r} of {who} must be finite, got {bad}")


TOUCHED = "changed the {key!r} that it was given; it must work on a copy of it"
REUSED = "was changed by a later step, and so is what was stored of it; give back a copy (.clone())"
"""What an environment does that works on what is not its own, or hands out the same storage twice."""


def check_untouched(now: TensorDictBase, before: TensorDictBase, sentence: str) -> None:
    """Whether the values under the keys of `before` are what they were.

    Args:
        now: has the keys. before: a copy. sentence: said otherwise, with `{key!r}` in it.

    Raises:
        InputError: names the first that is another.
    """
    for key, value in before.items(True, True):
        other = now.get(key, None)
        if isinstance(value, Tensor) and isinstance(other, Tensor) and not _identical(value, other):
            raise InputError(sentence.format(key=plain(key)))


def _identical(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same, numbers that are none included."""
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def specimen(env: EnvBase) -> TensorDict:
    """What an environment may show, without playing it: zeros, and true where there is a mask or an item."""
    seen: TensorDict = env.full_observation_spec.zero()
    for key, value in seen.items(True, True):
        if value.dtype == torch.bool:
            seen.set(key, torch.ones_like(value))
    return seen.update(env.full_done_spec.zero())


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
