"""What a policy reads off an environment's specs, and whether it fits them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tensordict.utils import NestedKey
from torchrl.data import Categorical
from torchrl.envs import EnvBase

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
        InputError: a key is not in the specs, or the action is not categorical.
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
    spec = env.full_action_spec[action]
    if not isinstance(spec, Categorical):
        raise InputError(f"the action {action!r} must be categorical, got {type(spec).__name__}")
    if mask_key == "auto":
        mask_key = beside("action_mask") if beside("action_mask") in names else None
    elif mask_key is not None and plain_key(mask_key) not in names:
        raise InputError(f"the environment has no mask {mask_key!r}; it has {sorted(map(str, names))}")
    widths = [specs[k].shape[-1] for k in keys]
    return {
        "choices": int(spec.space.n),
        "observation_dim": sum(widths),
        "observation_widths": widths,
        "agents": env.full_action_spec[group].shape[-1] if group and not share_parameters else None,
        "action_key": action,
        "observation_keys": keys,
        "mask_key": mask_key,
        "valid_key": beside("valid") if beside("valid") in names else None,
    }


def check_specs(policy: Any, env: EnvBase) -> None:
    """Raises InputError if a policy does not fit an environment's numbers of choices, agents and features."""
    spec = env.full_action_spec.get(policy.action_key, None)
    if spec is None:
        raise InputError(f"the policy decides {policy.action_key!r}, which the environment does not have")
    for key in (*policy.observation_keys, policy.mask_key, policy.valid_key):
        if key is not None and key not in env.observation_spec.keys(True, True):
            raise InputError(f"the policy reads {key!r}, which the environment does not show")
    mine = {"choices": policy.choices, "agents": policy.agents, "observed features": policy.observation_dim}
    group = policy.action_key[:-1] if isinstance(policy.action_key, tuple) else ()
    theirs = {
        "choices": int(spec.space.n),
        "agents": env.full_action_spec[group].shape[-1] if group and policy.agents is not None else None,
        "observed features": sum(env.observation_spec[k].shape[-1] for k in policy.observation_keys),
    }
    for name, value in mine.items():
        if value != theirs[name]:
            raise InputError(f"the policy was made for {value} {name}, and the environment has {theirs[name]}")
