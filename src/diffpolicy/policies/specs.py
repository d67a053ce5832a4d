"""What a policy reads off an environment's specs, and whether it fits them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tensordict.utils import NestedKey
from torchrl.data import Categorical, MultiCategorical
from torchrl.envs import EnvBase, ParallelEnv, SerialEnv

from diffpolicy.errors import InputError


def plain_key(key: Any) -> Any:
    """A nested key in its plain form: a text, or a tuple of at least two."""
    if isinstance(key, str) or key is None:
        return key
    names = tuple(key) if isinstance(key, Iterable) else (key,)
    return names[0] if len(names) == 1 else names


def json_key(key: NestedKey | None) -> str | list[str] | None:
    """A plain key as JSON holds it."""
    return list(key) if isinstance(key, tuple) else key


def read_specs(
    env: EnvBase,
    action_key: NestedKey | None,
    observation_keys: Sequence[NestedKey] | None,
    mask_key: NestedKey | str | None,
    *,
    share_parameters: bool,
) -> dict[str, Any]:
    """The arguments of a `ChoicePolicy` that an environment tells; see `ChoicePolicy.from_specs`.

    Raises:
        InputError: a key is not in the specs or of a shape that does not fit the action's, or the action is not
            categorical.
    """
    action = plain_key(action_key if action_key is not None else env.action_key)
    if action not in {plain_key(k) for k in env.full_action_spec.keys(True, True)}:
        raise InputError(f"the environment has no action {action!r}; it has {env.action_keys}")
    group = action[:-1] if isinstance(action, tuple) else ()
    specs = env.observation_spec
    names = {plain_key(k) for k in specs.keys(True, True)}

    def beside(name: str) -> NestedKey:
        return plain_key((*group, name))

    keys = [plain_key(k) for k in observation_keys] if observation_keys is not None else [beside("observation")]
    for key in keys:
        if key not in names:
            raise InputError(f"the environment has no observation {key!r}; it has {sorted(map(str, names))}")
    if mask_key == "auto":
        mask_key = beside("action_mask") if beside("action_mask") in names else None
    elif mask_key is not None and plain_key(mask_key) not in names:
        raise InputError(f"the environment has no mask {mask_key!r}; it has {sorted(map(str, names))}")
    mask_key = plain_key(mask_key)
    valid_key = beside("valid") if beside("valid") in names else None
    choices = _choices(env, action)
    _check_mask(env, action, mask_key, choices)
    widths = [_width(env, action, k, valid_key) for k in keys]
    agents, item_dims = _agents(env, action)
    return {
        "choices": choices,
        "observation_dim": sum(widths),
        "observation_widths": widths,
        "agents": None if share_parameters else agents,
        "item_dims": None if share_parameters or agents is None else item_dims,
        "action_key": action,
        "observation_keys": keys,
        "mask_key": mask_key,
        "valid_key": valid_key,
    }


def information_of(env: EnvBase) -> str:
    """What may be seen of an environment, as it says itself (see `OffloadingEnv`), `paper` by default."""
    base: Any = env
    while hasattr(type(base), "base_env"):
        base = base.base_env
    if isinstance(base, ParallelEnv):
        return "paper"  # its workers would have to be asked, and one that does not know ends
    if isinstance(base, SerialEnv) and base.is_closed:
        base.start()  # until then it looks for an attribute of its environments without end
    found = getattr(base, "information", "paper")
    return found if isinstance(found, str) else str(found[0])


def _choices(env: EnvBase, action: NestedKey) -> int:
    """A, the number of choices."""
    spec = env.full_action_spec[action]
    if not isinstance(spec, Categorical) or isinstance(spec, MultiCategorical):
        raise InputError(f"the action {action!r} must be categorical, got {type(spec).__name__}")
    choices: int = spec.space.n
    return choices


def _agents(env: EnvBase, action: NestedKey) -> tuple[int | None, int]:
    """B agents of the action's group, None without one, and how many dimensions of its shape count items."""
    beyond = env.full_action_spec[action].shape[len(env.batch_size) :]
    group = isinstance(action, tuple) and len(beyond) > 0
    return (beyond[0], len(beyond) - 1) if group else (None, len(beyond))


def _width(env: EnvBase, action: NestedKey, key: NestedKey, valid_key: NestedKey | None) -> int:
    """Features of an observation of each item: F of the action's shape and F, 1 of the action's own shape."""
    shape, lead = env.observation_spec[key].shape, env.full_action_spec[action].shape
    if shape[:-1] == lead and len(shape) > len(lead):
        return int(shape[-1])
    group = env.observation_spec[key[:-1]] if isinstance(key, tuple) else env.observation_spec
    if shape == lead and (valid_key is not None or len(group.shape) == len(lead)):
        return 1
    raise InputError(
        f"the observation {key!r} has shape {list(shape)}, and a policy reads {list(lead)}, the action's, or "
        f"{list(lead)} and one dimension of features; flatten or repeat it first"
    )


def _check_mask(env: EnvBase, action: NestedKey, key: NestedKey | None, choices: int) -> None:
    """Refuses a mask that is not of the action's shape, or the first part of it, and A."""
    if key is None:
        return
    shape, lead = env.observation_spec[key].shape, env.full_action_spec[action].shape
    if not shape or shape[-1] != choices or shape[:-1] != lead[: len(shape) - 1]:
        raise InputError(f"the mask {key!r} must have shape {[*lead, choices]}, got {list(shape)}")


def check_specs(policy: Any, env: EnvBase) -> None:
    """Raises InputError if a policy does not fit an environment's numbers of choices, agents and features."""
    spec = env.full_action_spec.get(policy.action_key, None)
    if spec is None:
        raise InputError(f"the policy decides {policy.action_key!r}, which the environment does not have")
    for key in (*policy.observation_keys, policy.mask_key, policy.valid_key):
        if key is not None and key not in env.observation_spec.keys(True, True):
            raise InputError(f"the policy reads {key!r}, which the environment does not show")
    mine = {"choices": policy.choices, "agents": policy.agents, "observed features": policy.observation_dim}
    theirs = {
        "choices": _choices(env, policy.action_key),
        "agents": None if policy.agents is None else _agents(env, policy.action_key)[0],
        "observed features": sum(_width(env, policy.action_key, k, policy.valid_key) for k in policy.observation_keys),
    }
    for name, value in mine.items():
        if value != theirs[name]:
            raise InputError(f"the policy was made for {value} {name}, and the environment has {theirs[name]}")
    _check_mask(env, policy.action_key, policy.mask_key, policy.choices)
