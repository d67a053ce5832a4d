"""`Keys`: what a policy reads and writes of an environment, read off its specs once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.data import Bounded, Categorical, MultiCategorical, MultiOneHot, OneHot, TensorSpec
from torchrl.envs import EnvBase

from diffpolicy.errors import InputError

Kind = Literal["categorical", "one-hot", "multi-categorical", "bounded"]


@dataclass(frozen=True)
class Observed:
    """One observation key.

    Args:
        key: of it. shape: of one item's value. values: n of an integer below n, or None.
        shared: whether all items of an agent see the same value, which has no dimension for them.
    """

    key: NestedKey
    shape: tuple[int, ...]
    values: int | None = None
    shared: bool = False

    @property
    def width(self) -> int:
        """Features that it gives: an integer below n gives n, one of them 1, as its size means nothing."""
        return self.values if self.values is not None else math.prod(self.shape)

    def features(self, value: Tensor, lead: torch.Size, dtype: torch.dtype) -> Tensor:
        """As networks read it, `[*lead, width]`. Args: value: `[*lead, *shape]`; lead: the items' shape."""
        if value.shape[len(lead) :] != self.shape:
            raise InputError(
                f"observation {self.key!r} has shape {list(value.shape)}, and {[*lead, *self.shape]} is expected"
            )
        if self.values is not None:
            return torch.nn.functional.one_hot(value.long(), self.values).to(dtype).view(*lead, -1)
        return value.reshape(*lead, self.width).to(dtype)


@dataclass(frozen=True)
class Action:
    """One action key. Args: key: of it. kind: of its spec. nvec: choices of each of its slots, or its dimensions.

    low, high: bounds of each dimension, where it is bounded. shape: of one item's action.
    """

    key: NestedKey
    kind: Kind
    nvec: tuple[int, ...]
    shape: tuple[int, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Keys:
    """What a policy reads and writes.

    Args:
        action: what is decided. observations: what of. mask: allowed choices, or None. valid: which items exist, or
            None. reward: where it stands; one at the root belongs to every agent and item.
        group: names above the action, `("agents",)` or `()`. agents: size of that group, or None.
        items: shape of what is decided at once for each agent, the slots of one decision left out.
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
        action_key: NestedKey | None = None,
        observation_keys: Sequence[NestedKey] | None = None,
        mask_key: NestedKey | str | None = "auto",
    ) -> Keys:
        """Those of an environment.

        Args:
            env: any TorchRL environment.
            action_key: by default its only one.
            observation_keys: by default `observation` beside the action, or the only other key there.
            mask_key: by default `action_mask` beside the action if there is one; None: masks are not read.

        Raises:
            InputError: a key is not in the specs, or the action is of a kind that no head takes.
        """
        batch = len(env.batch_size)
        actions = [plain(k) for k in env.action_keys]
        if action_key is None and len(actions) > 1:
            raise InputError(f"the environment has several actions, {actions}; say which by action_key")
        key = plain(action_key) if action_key is not None else actions[0]
        if key not in actions:
            raise InputError(f"the environment has no action {key!r}; it has {actions}")
        group = key[:-1] if isinstance(key, tuple) else ()
        action, beyond = _action(key, env.full_action_spec[key], batch)
        agents, items = (beyond[0], beyond[1:]) if group and beyond else (None, beyond)
        lead = batch + (agents is not None) + len(items)
        shown = {plain(k): env.observation_spec[k] for k in env.observation_spec.keys(True, True)}
        beside = {k[-1] if isinstance(k, tuple) else k: k for k in shown if _group(k) == group}
        mask = beside.get("action_mask") if mask_key == "auto" else None if mask_key is None else plain(mask_key)
        valid = beside.get("valid")
        if mask is not None and mask not in shown:
            raise InputError(f"the environment has no mask {mask!r}; it has {sorted(map(str, shown))}")
        names = [plain(k) for k in observation_keys] if observation_keys is not None else [_only(beside, key)]
        return cls(
            action,
            tuple(_observed(k, shown, lead - len(items), items) for k in names),
            mask,
            valid,
            _reward(env, group),
            tuple(group),
            agents,
            items,
        )

    @property
    def width(self) -> int:
        """Features of all observations together."""
        return sum(o.width for o in self.observations)

    def observe(self, td: TensorDictBase, dtype: torch.dtype = torch.float32) -> Tensor:
        """All observations as features, side by side. Args: td: of the environment's batch. dtype: of the features."""
        lead = torch.Size([*td.batch_size, *(() if self.agents is None else (self.agents,)), *self.items])
        parts = []
        for o in self.observations:
            value = td[o.key]
            while value.ndim < len(lead) + len(o.shape):
                value = value.unsqueeze(value.ndim - len(o.shape))
            parts.append(o.features(value.expand(*lead, *o.shape), lead, dtype))
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def plain(key: Any) -> Any:
    """A nested key in its plain form: a text, or a tuple of at least two."""
    if isinstance(key, str) or key is None:
        return key
    names = tuple(key) if isinstance(key, Iterable) else (key,)
    if not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"a key must be a text or a tuple of texts, got {key!r}")
    return names[0] if len(names) == 1 else names


def as_json(key: NestedKey | None) -> str | list[str] | None:
    """A plain key as JSON holds it."""
    return list(key) if isinstance(key, tuple) else key


def _group(key: Any) -> tuple[str, ...]:
    return key[:-1] if isinstance(key, tuple) else ()


def _action(key: NestedKey, spec: TensorSpec, lead: int) -> tuple[Action, tuple[int, ...]]:
    """An action and the shape of its agents and items. Args: lead: dimensions of the batch."""
    after = tuple(spec.shape[lead:])
    if isinstance(spec, MultiCategorical):
        nvec = spec.nvec if spec.nvec.ndim == 1 else spec.nvec.reshape(-1, spec.nvec.shape[-1])[0]
        return Action(key, "multi-categorical", tuple(int(n) for n in nvec), after[-1:]), after[:-1]
    if isinstance(spec, Categorical):
        return Action(key, "categorical", (int(spec.space.n),), ()), after
    if isinstance(spec, OneHot) and not isinstance(spec, MultiOneHot):
        return Action(key, "one-hot", (int(spec.space.n),), after[-1:]), after[:-1]
    if isinstance(spec, Bounded):
        if not after:
            raise InputError(f"action {key!r} must be a vector, got shape {list(spec.shape)}")
        low, high = (x.reshape(-1, after[-1])[0].tolist() for x in (spec.space.low, spec.space.high))
        if not all(math.isfinite(x) for x in (*low, *high)):
            raise InputError(f"action {key!r} must have finite bounds, got {low} and {high}")
        return Action(key, "bounded", after[-1:], after[-1:], tuple(low), tuple(high)), after[:-1]
    raise InputError(
        f"action {key!r} is a {type(spec).__name__}, and what is decided must be categorical, one-hot, "
        "multi-categorical or bounded"
    )


def _only(beside: dict[str, Any], action: NestedKey) -> NestedKey:
    if "observation" in beside:
        return beside["observation"]
    others = sorted(k for name, k in beside.items() if name not in ("action_mask", "valid"))
    if len(others) == 1:
        return others[0]
    raise InputError(f"which keys beside {action!r} are observed? say by observation_keys; there are {others}")


def _observed(key: NestedKey, shown: dict[Any, TensorSpec], lead: int, items: tuple[int, ...]) -> Observed:
    """An observation, whose shape is what follows batch, agents and, where it has a value for each, items.

    Args: key: of it. shown: all observations. lead: dimensions of batch and agents. items: shape of them.
    """
    if key not in shown:
        raise InputError(f"the environment has no observation {key!r}; it has {sorted(map(str, shown))}")
    spec = shown[key]
    after = tuple(spec.shape[lead:])
    each = after[: len(items)] == items
    shape = after[len(items) :] if each else after
    integer = isinstance(spec, Categorical) and not isinstance(spec, MultiCategorical) and shape in ((), (1,))
    return Observed(key, shape, int(spec.space.n) if integer else None, shared=not each)


def _reward(env: EnvBase, group: tuple[str, ...]) -> NestedKey:
    keys = [plain(k) for k in env.reward_keys]
    own = plain((*group, "reward"))
    if own in keys:
        return own
    if "reward" in keys or len(keys) == 1:
        return "reward" if "reward" in keys else keys[0]
    raise InputError(f"which of the rewards {keys} belongs to the action? one at the root or beside it is needed")
