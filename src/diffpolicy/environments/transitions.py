"""From a rollout of any environment to transitions, step by step."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

from diffpolicy.errors import InputError
from diffpolicy.policies.keys import Keys
from diffpolicy.policies.masks import as_mask
from diffpolicy.policies.nested_keys import beside

COUNTED = "counted"
"""Which steps of a rollout are of its lanes' episodes, bool of its batch; false after an end. Without it all are."""

RECORDED = ("draws", "action_log_prob")
"""What acting records of its law beside the action."""


def step_transitions(rollout: TensorDictBase, keys: Keys) -> TensorDict:
    """Transitions (s, a, r, s') from each step to the next.

    Args:
        rollout: batch `[E, T]`; steps that `counted` says are after a lane's end are not valid.
        keys: of its environment.

    Returns:
        Batch `[E, T, *items]`, or `[E, B, T, *items]` for B agents, with observation (features, `[*, F]`), action,
        reward, valid, ("next", observation), ("next", terminated), ("next", done), and, where they are there,
        action_mask and latent with their next ones; ("next", valid) where items that decide alone may be missing, and
        where the policy recorded its law (`record`), then also draws and action_log_prob. Where items are joint `items`
        is (), and a row's reward the sum of theirs.

    Raises:
        InputError: a key is not in the rollout, or a value has another shape; names both.

    Example:
        >>> from diffpolicy.policies.keys import Keys
        >>> env = Clinic(4)
        >>> rows = step_transitions(env.rollout(50, RandomRule(env)), Keys.of(env))
        >>> rows.batch_size, rows["observation"].shape, bool(rows["next", "terminated"].any())
        (torch.Size([4, 50]), torch.Size([4, 50, 3]), False)
    """
    alone = None if keys.action.items else keys.valid  # joint rows are there whichever of their items exist
    shape = torch.Size([*rollout.batch_size, *(() if keys.agents is None else (keys.agents,)), *keys.items])

    def ordered(x: Tensor) -> Tensor:
        """From `[E, T, B, ...]` to `[E, B, T, ...]`."""
        return x if keys.agents is None else x.transpose(1, 2)

    def each(key: NestedKey, td: TensorDictBase, after: int = 0, value: Tensor | None = None) -> Tensor:
        """A value of every item, `[*shape, *after]`; what several share is repeated. Args: value: else the key's."""
        value = td.get(key, None) if value is None else value
        if value is None:
            raise InputError(f"the rollout has no {key!r}")
        at_root = not isinstance(key, tuple)
        if not after and value.ndim > rollout.ndim + (not at_root and keys.agents is not None):
            value = value.squeeze(-1) if value.shape[-1] == 1 else value
        if at_root and keys.agents is not None:
            value = value.unsqueeze(rollout.ndim)
        while value.ndim < len(shape) + after:
            value = value.unsqueeze(value.ndim - after)
        try:
            return ordered(value.expand(*shape, *value.shape[value.ndim - after :] if after else ()))
        except RuntimeError:
            raise InputError(
                f"{key!r} has shape {list(td.get(key).shape)}, which does not fit items of shape {list(shape)}: it "
                "must be one value for each of them, or one that they share; let the environment add up several in one"
            ) from None

    after = rollout["next"]
    result: dict[str, Any] = {
        "observation": ordered(keys.observe(rollout)),
        "action": ordered(keys.decided(rollout)),
        "reward": each(keys.reward, after, value=_joint_reward(rollout, keys)),
        "next": {
            "observation": ordered(keys.observe(after)),
            "terminated": each("terminated", after),
            "done": each("done", after),
        },
    }
    extra = {"action_mask": keys.mask, "latent": beside(keys.action.key, "latent")}
    joint, joint_after = keys.allowed(rollout), keys.allowed(after)
    if joint is not None and joint_after is not None:
        result["action_mask"], result["next"]["action_mask"] = ordered(joint), ordered(joint_after)
        del extra["action_mask"]
    masks = [part.mask for part in keys.action.parts if part.mask is not None]
    if masks:  # of several keys, side by side
        for td, place in ((rollout, result), (after, result["next"])):
            place["action_mask"] = torch.cat([as_mask(each(key, td, 1), key) for key in masks], -1)
    for name, key in extra.items():
        if key is not None and rollout.get(key, None) is not None:
            result[name], result["next"][name] = each(key, rollout, 1), each(key, after, 1)
    for name in RECORDED:
        key = beside(keys.action.key, name)
        if rollout.get(key, None) is not None:
            result[name] = ordered(rollout[key])
    valid = torch.ones(shape, dtype=torch.bool, device=rollout.device)
    if alone is not None or any(name in result for name in RECORDED):
        result["next"]["valid"] = ordered(valid if alone is None else after[alone])
    if alone is not None:
        valid = valid & rollout[alone]
    counted = rollout.get(COUNTED, None)
    if counted is not None:
        valid = valid & counted.view(*rollout.batch_size, *[1] * (len(shape) - rollout.ndim))
    result["valid"] = ordered(valid)
    return TensorDict(result, batch_size=result["valid"].shape)


def _joint_reward(rollout: TensorDictBase, keys: Keys) -> Tensor | None:
    """The sum of the rewards of joint items that exist, `[E, T, 1]` or `[E, T, B, 1]`; None if each has not its own."""
    items, reward = keys.action.items, rollout["next"].get(keys.reward, None)
    lead = rollout.ndim + (isinstance(keys.reward, tuple) and keys.agents is not None)
    if not items or reward is None or reward.shape[lead : lead + len(items)] != items:
        return None
    own = reward.reshape(*reward.shape[:lead], *items)
    own = own if keys.valid is None else torch.where(rollout[keys.valid], own, 0)
    return own.flatten(lead).sum(-1, keepdim=True)
