"""What a policy reads off an environment's specs, and whether it fits them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from tensordict.utils import NestedKey
from torchrl.envs import EnvBase, ParallelEnv, SerialEnv

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.policies.heads import CategoricalHead, CompositeHead, Head, JointHead, for_items, head_for, named_head
from diffpolicy.policies.heads.registry import NAMED
from diffpolicy.policies.keys import Keys
from diffpolicy.policies.protocols import ShowsLevel, bare


def read_specs(
    env: EnvBase,
    action_key: NestedKey | list[NestedKey] | None = None,
    observation_keys: Sequence[NestedKey] | None = None,
    mask_key: NestedKey | str | None = "auto",
    *,
    share_parameters: bool = False,
    head: Head | str | None = None,
    items: Literal["independent", "joint"] = "independent",
) -> dict[str, Any]:
    """The arguments of a `Policy` that an environment tells; see `Policy.from_specs`.

    Raises:
        InputError: a key is not in the specs or of a shape that does not fit the action's, or no head takes the action.
    """
    check.no_class(env, "the environment")
    check.no_class(head, "head")
    keys = Keys.of(env, action_key=action_key, observation_keys=observation_keys, mask_key=mask_key, items=items)
    if head is not None and not isinstance(head, (Head, str)):
        raise InputError(f"head must be a Head, {' or '.join(NAMED)}, sample or argmax, got {head!r}")
    if isinstance(head, str) and head not in ("sample", "argmax"):
        head = named_head(head)
    sized = for_items(head, keys.action) if isinstance(head, Head) else head_for(keys.action, head or "sample")
    _check(env, keys, sized)
    apart = keys.agents is not None and not share_parameters
    return {
        "choices": sized.width,
        "head": sized,
        "observation_dim": keys.width,
        "observation_widths": [o.width for o in keys.observations],
        "observation_shapes": [o.shape for o in keys.observations],
        "observation_values": [o.values for o in keys.observations],
        "agents": keys.agents if apart else None,
        "item_dims": len(keys.items) if apart else None,
        "action_key": keys.action.key,
        "observation_keys": [o.key for o in keys.observations],
        "mask_key": keys.mask,
        "valid_key": keys.valid,
        **({"joint_items": keys.action.items} if keys.action.items else {}),
        **(
            {"action_keys": list(keys.action.keys), "mask_keys": [part.mask for part in keys.action.parts]}
            if keys.action.parts
            else {}
        ),
    }


def keys_of(policy: Any, env: EnvBase) -> Keys:
    """What a policy reads and writes of an environment. Args: policy: a `Policy`."""
    return Keys.of(
        env,
        action_key=list(policy.action_keys) if len(policy.action_keys) > 1 else policy.action_key,
        observation_keys=policy.observation_keys,
        mask_key="auto" if any(policy.reading.masks) else policy.mask_key,
        items="joint" if policy.reading.items else "independent",
    )


def information_of(env: EnvBase) -> str:
    """What may be seen of an environment, as it says itself (see `OffloadingEnv`), `paper` by default."""
    base = bare(env)
    if isinstance(base, ParallelEnv):
        return "paper"  # its workers would have to be asked, and one that does not know ends
    if isinstance(base, SerialEnv):
        if base.is_closed:
            base.start()  # until then it looks for an attribute of its environments without end
        return str(getattr(base, "information", ["paper"])[0])  # TorchRL's way to ask each of its environments
    return str(base.information) if isinstance(base, ShowsLevel) else "paper"


def _check(env: EnvBase, keys: Keys, head: Head) -> None:
    """Refuses observations that items share, and a mask that is not of the items' shape, or the first part of it."""
    leading = keys.action.leading
    whole = env.full_action_spec[leading.key].shape
    lead, joint = whole[: len(whole) - len(leading.shape)], keys.action.items
    if joint and keys.valid is not None and not head.maskable:
        raise InputError(
            f"items of {keys.action.key!r} may not exist, which {keys.valid!r} tells, and a {type(head).__name__} has "
            "no mask that could leave them out of a joint one"
        )
    for observed in keys.observations:
        # a number of each item looks like features that the items share
        if observed.shared or (observed.shape == () and (keys.items or joint) and keys.valid is None):
            shape = list(env.observation_spec[observed.key].shape)
            raise InputError(
                f"the observation {observed.key!r} has shape {shape}, and a policy reads {list(lead)}, the items', and "
                "what follows; repeat it for each item first"
            )
    masks = [(keys.mask, head)]
    if isinstance(head, CompositeHead):
        masks = [(part.mask, own) for part, own in zip(keys.action.parts, head.parts, strict=True)]
    for mask, own in masks:
        if mask is None:
            continue
        shape, choices = env.observation_spec[mask].shape, own.mask_width // math.prod(joint)
        if not shape or shape[-1] != choices or shape[:-1] != lead[: len(shape) - 1]:
            raise InputError(f"the mask {mask!r} must have shape {[*lead, choices]}, got {list(shape)}")


def _chosen(head: Head) -> str:
    """What a head decides, in words: a joint one's width is no number of choices. Args: head: sized."""
    if isinstance(head, JointHead):
        items = "one item that is" if head.count == 1 else f"{head.count} items that are"
        return f"{items} decided together, {_chosen(head.each)} each"
    return f"{head.width} {'choices' if isinstance(head, CategoricalHead) else 'numbers'}"


def check_specs(policy: Any, env: EnvBase) -> None:
    """Raises InputError if a policy does not fit an environment's actions, agents and observations."""
    for key in policy.action_keys:
        if env.full_action_spec.get(key, None) is None:
            raise InputError(f"the policy decides {key!r}, which the environment does not have")
    for key in (*policy.observation_keys, policy.mask_key, *policy.reading.masks, policy.valid_key):
        if key is not None and key not in env.observation_spec.keys(True, True):
            raise InputError(f"the policy reads {key!r}, which the environment does not show")
    keys = keys_of(policy, env)
    theirs = policy.head.sized(keys.action)
    if policy.choices != theirs.width and isinstance(theirs, (CategoricalHead, JointHead)):
        raise InputError(f"the policy was made for {_chosen(policy.head)}, and the environment has {_chosen(theirs)}")
    mine = {
        "numbers of an action's law": (policy.choices, theirs.width),
        "agents": (policy.agents, None if policy.agents is None else keys.agents),
        "observed features": (policy.observation_dim, keys.width),
    }
    for name, (own, other) in mine.items():
        if own != other:
            raise InputError(f"the policy was made for {own} {name}, and the environment has {other}")
    if theirs != policy.head:
        raise InputError(f"the policy was made for actions of {policy.head}, and the environment has {theirs}")
    _check(env, keys, theirs)
