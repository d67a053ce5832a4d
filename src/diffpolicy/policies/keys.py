"""`Keys`: what a policy reads and writes of an environment, read off its specs once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.envs import EnvBase

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.policies.actions import Action, action_of, composite_of, side_by_side
from diffpolicy.policies.joint import joint_mask, joint_row, joint_width
from diffpolicy.policies.masks import as_mask
from diffpolicy.policies.nested_keys import as_json, group_of, last_of, plain
from diffpolicy.policies.observed import Observed, check_free, check_masks, observed_of, seen
from diffpolicy.policies.recurrent import remembered_keys

__all__ = ["Action", "Keys", "Observed", "as_json", "plain"]


@dataclass(frozen=True)
class Keys:
    """Names the tensordict keys that a policy reads and writes.

    Args:
        action: what is decided. observations: what of. mask: allowed choices, or None. valid: which items exist, or
            None. reward: where it stands; one at the root belongs to every agent and item.
        group: names above the action, `("agents",)` or `()`. agents: size of that group, or None.
        items: shape of what is decided at once for each agent, each item alone, the slots of one decision left out;
            () where they are joint, and then `action.items` is their shape.

    Example:
        >>> keys = Keys.of(Clinic(1))
        >>> keys.action.key, keys.mask, keys.reward
        ('action', 'action_mask', 'reward')
    """

    action: Action
    observations: tuple[Observed, ...]
    mask: NestedKey | None
    valid: NestedKey | None
    reward: NestedKey
    group: tuple[str, ...]
    agents: int | None
    items: tuple[int, ...]

    @classmethod
    def of(
        cls,
        env: EnvBase,
        *,
        action_key: NestedKey | list[NestedKey] | None = None,
        observation_keys: Sequence[NestedKey] | None = None,
        mask_key: NestedKey | str | None = "auto",
        items: Literal["independent", "joint"] = "independent",
    ) -> Keys:
        """Those of an environment.

        Args:
            env: any TorchRL environment.
            action_key: by default its only one, or all of its only group; a list of some of a group.
            observation_keys: by default `observation` beside the action, or all other keys there, by name, or where
                there are none and the action is at the root, what lies in dicts; all of a Gymnasium `Dict`.
            mask_key: by default `action_mask` beside the action if there is one, and of several the key with `_mask`
                at its end; None: masks are not read.
            items: whether each item is decided alone, or all of a row (an environment's, or an agent's) together.

        Raises:
            InputError: a key is not in the specs, the action is of a kind that no head takes, there are no items, or a
                mask lies within a Gymnasium `Dict`.
        """
        batch = len(env.batch_size)
        actions = [plain(k) for k in env.action_keys]
        wanted = _wanted(action_key, actions)
        key = wanted[0]
        group = group_of(key)
        parts = [action_of(k, env.full_action_spec[k], batch) for k in wanted]
        action, beyond = parts[0] if len(parts) == 1 else (composite_of(parts, group), parts[0][1])
        agents, each = (beyond[0], beyond[1:]) if group and beyond else (None, beyond)
        if items not in ("independent", "joint"):
            raise InputError(f"items must be independent or joint, got {items!r}")
        if items == "joint" and not each and action.kind in ("multi-categorical", "multi-one-hot"):
            kind = "MultiCategorical" if action.kind == "multi-categorical" else "MultiOneHot"
            raise InputError(
                f"the action {key!r} has no items that could be joint: a {kind} action is one decision of several "
                "slots already; leave items out"
            )
        if items == "joint" and not each:
            raise InputError(f"the action {key!r} has no items that could be joint: what is decided is one of a row")
        if items == "joint" and action.parts:
            raise InputError(
                f"the actions {wanted} are decided together of one item, and joint items have one action each"
            )
        lead = batch + (agents is not None) + len(each)
        carried = remembered_keys(env)  # by a policy, and none of what is observed
        shown = {plain(k): env.observation_spec[k] for k in env.observation_spec.keys(True, True) if k not in carried}
        beside = {k[-1] if isinstance(k, tuple) else k: k for k in shown if group_of(k) == group}
        if mask_key == "auto":
            check_masks(env, wanted, shown)
        if action.parts:
            action, mask_key = _masked_parts(action, beside, mask_key), None
        own = beside.get(f"{last_of(key)}_mask", beside.get("action_mask"))
        mask = own if mask_key == "auto" else None if mask_key is None else plain(mask_key)
        valid = beside.get("valid")
        if mask is not None and mask not in shown:
            raise InputError(f"the environment has no mask {mask!r}; it has {sorted(map(str, shown))}")
        if observation_keys is not None:
            check.names(observation_keys, "observation_keys", "keys")
            names = [plain(k) for k in observation_keys]
        else:
            names = seen(env, beside, wanted, shown)
        if not names and not each:
            raise InputError("a policy reads at least one observation, and observation_keys name none")
        for name in names:
            check_free(name, actions, group)
        joint = items == "joint"
        return cls(
            replace(action, items=each) if joint else action,
            tuple(observed_of(k, shown, lead - len(each), each) for k in names),
            mask,
            valid,
            _reward(env, group),
            tuple(group),
            agents,
            () if joint else each,
        )

    @property
    def width(self) -> int:
        """Features of a row: those of all observations together, of each of its items where these are joint."""
        each = sum(o.width for o in self.observations)
        return joint_width(each, self.action.items, self.valid is not None) if self.action.items else each

    @property
    def masked(self) -> bool:
        """Whether rows have a mask: the environment's, or that of joint items that may not exist."""
        parts = any(part.mask is not None for part in self.action.parts)
        return parts or self.mask is not None or bool(self.action.items and self.valid is not None)

    def decided(self, td: TensorDictBase) -> Tensor:
        """The action, `[*, *event]`; of several keys as numbers side by side, `[*, D]`. Args: td: holds them."""
        values: list[Tensor] = [td[key] for key in self.action.keys]
        if not self.action.parts:
            return values[0]
        return side_by_side(values, [part.shape for part in self.action.parts])

    def allowed(self, td: TensorDictBase) -> Tensor | None:
        """The mask of rows whose items are joint, `[*, n A]`; None where there is none. Args: of `observe`."""
        if not self.action.items or not self.masked:
            return None
        mask = None if self.mask is None else as_mask(td[self.mask], self.mask)
        valid = None if self.valid is None else td[self.valid]
        return joint_mask(mask, valid, self.action.first(), self.action.items)

    def observe(self, td: TensorDictBase, dtype: torch.dtype = torch.float32) -> Tensor:
        """All observations as features, side by side. Args: td: of the environment's batch. dtype: of the features."""
        agents, joint = () if self.agents is None else (self.agents,), self.action.items
        lead = torch.Size([*td.batch_size, *agents, *self.items, *joint])
        parts = []
        for o in self.observations:
            value = td[o.key]
            while value.ndim < len(lead) + len(o.shape):
                value = value.unsqueeze(value.ndim - len(o.shape))
            parts.append(o.features(value.expand(*lead, *o.shape), lead, dtype))
        whole = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        return joint_row(whole, None if self.valid is None else td[self.valid], joint) if joint else whole


def _wanted(given: Any, actions: list[Any]) -> list[Any]:
    """The keys that are decided. Args: given: of `Keys.of`. actions: all that there are."""
    texts = isinstance(given, list) and all(isinstance(name, str) for name in given)
    several = isinstance(given, list) and not (texts and plain(given) in actions)
    wanted = actions if given is None else [plain(key) for key in given] if several else [plain(given)]
    for key in wanted:
        if key not in actions:
            raise InputError(f"the environment has no action {key!r}; it has {actions}")
    if not wanted or len({group_of(key) for key in wanted}) > 1:
        raise InputError(
            f"the environment has several actions, {actions}: a policy decides those of one group, such as "
            f"action_key={actions[0]!r}; make one for each, and TensorDictSequential(first, second) acts with all"
        )
    return wanted


def _masked_parts(action: Action, beside: Mapping[str, Any], mask_key: Any) -> Action:
    """A composite action whose parts know the keys of their masks. Args: beside: keys by their last name."""
    if mask_key not in ("auto", None):
        raise InputError(
            f"several actions have a mask each, their keys with _mask at the end, got mask_key={mask_key!r}"
        )
    if mask_key is None:
        return action
    return replace(action, parts=tuple(replace(p, mask=beside.get(f"{last_of(p.key)}_mask")) for p in action.parts))


def _reward(env: EnvBase, group: tuple[str, ...]) -> NestedKey:
    keys = [plain(k) for k in env.reward_keys]
    own = plain((*group, "reward"))
    if own in keys:
        return own
    if "reward" in keys or len(keys) == 1:
        return "reward" if "reward" in keys else keys[0]
    raise InputError(f"which of the rewards {keys} belongs to the action? one at the root or beside it is needed")
