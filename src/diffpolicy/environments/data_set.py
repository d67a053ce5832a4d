"""A data set as rows that objectives learn from: what was observed, decided, earned and met next; strict."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

from diffpolicy.environments.data_file import read_data as read_data
from diffpolicy.environments.transitions import COUNTED
from diffpolicy.errors import InputError
from diffpolicy.policies.heads import Head
from diffpolicy.policies.heads.bounds import WithinBounds
from diffpolicy.policies.keys import Keys
from diffpolicy.policies.masks import as_mask
from diffpolicy.policies.policy import Policy

SLACK = 1e-4
"""Of half of a range, by which a vector may lie outside of its bounds: files round."""


def rows_of(policy: Policy, data: TensorDictBase, keys: Keys, *, values: bool, name: str = "the data") -> TensorDict:
    """What a policy learns from, checked: rows of batch `[M]`, or `[G, M]` of G agents.

    Args:
        policy: reads the observations, and its head decides the actions.
        data: of `read_data`: batch `[M]`, where there are agents `[M, agents, ...]` within, and items after these.
        keys: of the environment. values: whether rewards and what came next are needed.
        name: of the data in messages.

    Returns:
        observation `[.., F]` as the policy reads it, action, and where they are needed action_mask, reward and the next
        ones, of the rows that exist by `valid` and `counted`, as `step_transitions` reads them; where agents
        differ in these, those of all, and which are an agent's under valid. An item that is there no more in the next
        step counts as terminated.

    Raises:
        InputError: one sentence that names what is missing, of another width or number of agents, not finite, no choice
            of the policy, outside of its bounds or forbidden by the mask, with the row; or an agent has no rows.

    Example:
        >>> from diffpolicy.policies.keys import Keys
        >>> env = Clinic(1)
        >>> policy, rollout = FeedforwardPolicy.from_specs(env), env.rollout(20, RandomRule(env)).reshape(-1)
        >>> rows_of(policy, rollout, Keys.of(env), values=True)["next", "observation"].shape
        torch.Size([20, 3])
    """
    read = _Reader(policy, data, keys, name)
    result: dict[str, Any] = {"observation": read.observation(()), "action": read.action()}
    if policy.reading.masked:
        result["action_mask"] = read.mask(())
        _check_allowed(policy.head, result["action"], result["action_mask"], read)
    if values:
        nxt: dict[str, Any] = {"observation": read.observation(("next",)), "terminated": read.flags()}
        if policy.reading.masked:
            nxt["action_mask"] = read.mask(("next",))
        result |= {"reward": read.reward(), "next": nxt}
    rows = TensorDict({**result, "valid": read.there}, batch_size=read.lead)
    return _of_those_there(rows, policy.agents, name)


def _of_those_there(rows: TensorDict, agents: int | None, name: str) -> TensorDict:
    """Rows that exist, without `valid` unless agents differ in it. Args: of `rows_of`; rows: batch `[M, ..]`."""
    flat = rows.reshape(-1) if agents is None else rows.transpose(0, 1).reshape(agents, -1)
    there = flat["valid"]
    if agents is not None and not bool(there.any(-1).all()):
        raise InputError(f"{name} holds no existing row for agent {int((~there.any(-1)).nonzero()[0])}")
    if not bool(there.any()):
        raise InputError(f"{name} holds no existing row: all are false under 'valid' or {COUNTED!r}")
    kept = flat if bool(there.all()) else flat[there] if agents is None else flat[:, there.any(0)]
    return kept if not bool(kept["valid"].all()) else kept.exclude("valid")


class _Reader:
    """Columns of a data set in the shape of its rows. Args: of `rows_of`."""

    def __init__(self, policy: Policy, data: TensorDictBase, keys: Keys, name: str) -> None:
        self.policy, self.data, self.keys, self.name = policy, data, keys, name
        if keys.action.items and keys.valid is not None:
            said = f"{name} cannot be learned from where items are joint and may be missing, as {keys.valid!r} says"
            raise InputError(f"{said}; use items=independent")
        observed = self._found("observation", policy.observation_keys)[1]
        m, agents = data.batch_size[0], () if keys.agents is None else (keys.agents,)
        if agents and observed.shape[1:2] != agents:
            shape = list(observed.shape[1:])
            raise InputError(f"{name} holds observations {shape} of each row, and the problem has {agents[0]} agents")
        leads = [torch.Size([m, *agents, *keys.items]), torch.Size([m, *agents])]
        wide = policy.observation_dim
        self.lead = next((s for s in leads if _fits(observed, s, wide)), None) or self._refuse_width(observed, leads[1])
        self.there = torch.ones(self.lead, dtype=torch.bool, device=observed.device)
        self.there = self._existing()
        self.stays = self.there & self._existing(("next",))
        """Rows whose item is there in the next step, too."""

    def _refuse_width(self, observed: Tensor, lead: torch.Size) -> torch.Size:
        width = math.prod(observed.shape[len(lead) :])
        raise InputError(
            f"{self.name} holds {width} numbers of each observation, and the policy reads {self.policy.observation_dim}"
        )

    def _existing(self, after: tuple[str, ...] = ()) -> Tensor:
        """Which rows there are, bool `[*lead]`: items that exist, at steps of a lane that has not ended.

        Args:
            after: `("next",)`, for those of the next step, or ().
        """
        there = self.there
        valid = [(*after, *((key,) if isinstance(key, str) else key)) for key in (self.keys.valid, "valid") if key]
        places = [key for key in valid if self.data.get(key, None) is not None]
        for key in (*places[:1], *(() if after else (COUNTED,))):
            value = self.data.get(key, None)
            if value is not None:
                there = there & self._flags(value, _told(key))
        return there

    def _found(
        self, what: str, keys: list[NestedKey], afters: tuple[tuple[str, ...], ...] = ((),)
    ) -> tuple[str, Tensor]:
        """A column and its name, under its plain one or the environment's key. Args: afters: see `_all`."""
        found = self._all(what, keys, afters)
        if found:
            return found[0]
        there = ", ".join(map(repr, self.data.keys(True, True)))
        said = " of what came next" if afters == (("next",),) else ""
        raise InputError(f"{self.name} has no {what!r}{said}; it has {there}")

    def _all(self, what: str, keys: list[NestedKey], afters: tuple[tuple[str, ...], ...]) -> list[tuple[str, Tensor]]:
        """The columns of a name, with where they stand, one of each place. Args: afters: `("next",)` and `()`."""
        own = [keys[0] if isinstance(keys[0], tuple) else (keys[0],)] if len(keys) == 1 else []
        found = []
        for after in afters:
            given = ((key, self.data.get((*after, *key), None)) for key in [(what,), *own])
            key, value = next(((k, v) for k, v in given if v is not None), ((), None))
            if value is None:
                continue
            if value.is_complex():
                said = f"{self.name} holds complex numbers in {_told((*after, *key))!r}"
                raise InputError(f"{said}, but only real ones can be learned from")
            found.append((_told((*after, *key)), value))
        return found

    def _finite(self, value: Tensor, key: str, there: Tensor | None = None) -> Tensor:
        """A column `[*lead, ..]`, nought where there is no row.

        Args:
            key: its name, for what is not finite. there: rows of which something is told, bool `[*lead]`; None: all.
        """
        there = (self.there if there is None else there).view(*self.lead, *[1] * (value.ndim - len(self.lead)))
        value = value if bool(there.all()) else torch.where(there, value, torch.zeros_like(value))
        if value.is_floating_point() and not bool((good := value.isfinite()).all()):
            at = (~good).nonzero()[0].tolist()
            raise InputError(f"{self.name} holds {value[tuple(at)].item()} in row {at[0]} of {key!r}")
        return value

    def observation(self, after: tuple[str, ...]) -> Tensor:
        key, value = self._found("observation", self.policy.observation_keys, (after,))
        if not _fits(value, self.lead, self.policy.observation_dim):
            self._refuse_width(value, self.lead)
        there = self.stays if after else self.there
        return self._finite(value.reshape(*self.lead, -1), key, there).to(self.policy.dtype)

    def action(self) -> Tensor:
        head = self.policy.head
        key, value = self._found("action", self.policy.action_keys)
        if value.shape[: len(self.lead)] != self.lead or value.numel() != math.prod((*self.lead, *head.event)):
            wanted = list(head.event)
            got = list(value.shape[len(self.lead) :])
            raise InputError(f"{self.name} holds actions {got} of each decision, and the policy decides {wanted}")
        value = self._finite(value.reshape(*self.lead, *head.event), key)
        if not bool(self.there.all()):  # a row that is not there has any choice that can be read
            value = value.clone()
            value[~self.there] = value[self.there][0] if bool(self.there.any()) else 0
        if head.written_as is None:
            value = value.to(self.policy.dtype)
            self._within(head, value)
        else:
            if value.is_floating_point():
                self._refuse(value != value.round(), value, "which is no whole number, and the policy makes choices")
            value = value.to(head.written_as)
        self._refuse(head.impossible(value), value, "which is no choice of the policy")
        return value

    def _within(self, head: Head, value: Tensor) -> None:
        bounds = f"the bounds {list(head.low)} to {list(head.high)}" if isinstance(head, WithinBounds) else "its bounds"
        self._refuse(head.beyond(value, SLACK), value, f"outside of {bounds}")

    def _refuse(self, bad: Tensor, value: Tensor, why: str) -> None:
        """Raises InputError for the first bad row, if there is one. Args: bad: bool `[M, ..]`. value: `[M, ..]`."""
        bad = bad & self.there
        if bool(bad.any()):
            at = tuple(bad.nonzero()[0].tolist())
            raise InputError(f"{self.name} holds the action {value[at].tolist()} in row {at[0]}, {why}")

    def mask(self, after: tuple[str, ...]) -> Tensor:
        policy = self.policy
        own = [] if policy.mask_key is None else [policy.mask_key]
        value = as_mask(self._found("action_mask", own or ["action_mask"], (after,))[1], "action_mask")
        width = policy.head.mask_width
        if value.shape == (*self.lead[: value.ndim - 1], width):  # items may share one
            value = value.view(*value.shape[:-1], *[1] * (len(self.lead) + 1 - value.ndim), width)
            value = value.expand(*self.lead, width)
        if not _fits(value, self.lead, width):
            got = list(value.shape[len(self.lead) :])
            raise InputError(f"{self.name} holds masks {got} of each decision, and the policy's are {[width]}")
        return value.reshape(*self.lead, width) | ~self.there.unsqueeze(-1)

    def reward(self) -> Tensor:
        afters: tuple[tuple[str, ...], ...] = ((), ("next",))
        self._found("reward", [self.keys.reward], afters)
        found = [
            (key, self._finite(self._each(value, "reward"), key))
            for key, value in self._all("reward", [self.keys.reward], afters)
        ]
        (first, value), (last, other) = found[0], found[-1]
        if bool((differs := value != other).any()):
            at = tuple(differs.nonzero()[0].tolist())
            said = f"{value[at].item():g} in row {at[0]} of {first!r} and {other[at].item():g} in {last!r}"
            raise InputError(f"{self.name} holds {said}, and a row has one reward; leave one of them out")
        return value.to(self.policy.dtype)

    def flags(self) -> Tensor:
        """After which rows nothing comes: a terminal state, or an item that is there no more (`nothing_follows`)."""
        key, value = self._found("terminated", ["terminated"], (("next",),))
        return (self._flags(value, key) | ~self.stays) & self.there

    def _flags(self, value: Tensor, key: str) -> Tensor:
        """Flags of each row, bool `[*lead]`. Args: value: bool, or 0 and 1 of any type. key: its name."""
        value = self._each(value, key)
        flags = value != 0
        if bool((bad := (value != flags) & self.there).any()):
            at = tuple(bad.nonzero()[0].tolist())
            raise InputError(f"{self.name} holds {value[at].item()} in row {at[0]} of {key!r}, which must be 0 or 1")
        return flags

    def _each(self, value: Tensor, key: str) -> Tensor:
        """One number of each row, which agents and items may share, `[*lead]`."""
        value = value.squeeze(-1) if value.ndim > 1 and value.shape[-1] == 1 else value
        if value.shape != self.lead[: value.ndim]:
            wanted = list(self.lead)
            raise InputError(f"{self.name} holds {key!r} of shape {list(value.shape)}, and {wanted} is needed")
        return value.reshape(*value.shape, *[1] * (len(self.lead) - value.ndim)).expand(self.lead)


def _told(key: NestedKey) -> str:
    """A key as files have it."""
    return ".".join(key) if isinstance(key, tuple) else key


def _fits(value: Tensor, lead: torch.Size, width: int) -> bool:
    """Whether a column holds so many numbers of each row."""
    return value.shape[: len(lead)] == lead and math.prod(value.shape[len(lead) :]) == width


def _check_allowed(head: Head, action: Tensor, mask: Tensor, read: _Reader) -> None:
    allowed = head.read_mask(mask)
    read._refuse(~head.allows(allowed), action, "where the mask allows nothing")
    read._refuse(head.impossible(action, allowed) | head.forbidden(action, allowed), action, "which the mask forbids")


def digest(rows: TensorDictBase) -> str:
    """SHA-256 of the columns of rows: their names, types, shapes and bytes."""
    found = hashlib.sha256()
    for key in sorted(rows.keys(True, True), key=str):
        value = rows[key].cpu().contiguous()
        found.update(f"{key!r} {value.dtype} {list(value.shape)}".encode())
        found.update(value.view(torch.uint8).numpy().tobytes() if value.ndim else b"")
    return found.hexdigest()
