"""A data set on disk as rows that objectives learn from: what was observed, decided, earned and met next; strict."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

from diffpolicy._read import show_path, what_is
from diffpolicy.environments.decision_log import read_decisions
from diffpolicy.environments.tensor_folder import read_folder
from diffpolicy.errors import InputError
from diffpolicy.policies.heads import Head
from diffpolicy.policies.heads.bounds import WithinBounds
from diffpolicy.policies.keys import Keys
from diffpolicy.policies.masks import as_mask
from diffpolicy.policies.policy import Policy

NAMES: dict[str, NestedKey] = {
    "mask": "action_mask",
    "next_observation": ("next", "observation"),
    "next_mask": ("next", "action_mask"),
    "next_action_mask": ("next", "action_mask"),
    "terminated": ("next", "terminated"),
    "observations": "observation",
    "actions": "action",
    "rewards": "reward",
    "next_observations": ("next", "observation"),
    "terminals": ("next", "terminated"),
}
"""Where arrays stand that files call otherwise, those of D4RL among them."""
SLACK = 1e-4
"""Of half of a range, by which a vector may lie outside of its bounds: files round."""


def read_data(path: str | Path) -> TensorDict:
    """Rows of a data set out of a file; nothing is unpickled.

    Args:
        path: of a folder that `TensorDict.memmap` wrote, such as a rollout; of an `.npz` or `.safetensors` file; or of
            a `.csv`, the log of decisions that `read_decisions` reads. Arrays are called `observation`, `action` and,
            where they are there, `action_mask` (or `mask`), `reward`, `next_observation`, `terminated`, `next_mask`, or
            as D4RL calls them (`observations`, ..., `terminals`); a dot or a slash goes into a group
            (`agents.observation`).

    Returns:
        Batch `[M]`, with `next`; a rollout's lanes and steps are one after the other. `rows_of` makes of it what a
        policy learns from.

    Raises:
        InputError: names the file, and what in it cannot be read.

    Example:
        >>> import numpy as np
        >>> np.savez("data.npz", observation=np.zeros((5, 3)), action=np.arange(5) % 3, mask=np.ones((5, 3), bool))
        >>> read_data("data.npz")["action_mask"].shape
        torch.Size([5, 3])
    """
    file = Path(path)
    name = f"data {show_path(path)}"
    if what_is(file) == "folder":
        found = read_folder(file, "data")
        if not found.batch_size:
            raise InputError(f"{name} must hold rows, and its batch is []")
        return found.reshape(-1)
    if what_is(file) != "file":
        raise InputError(f"{name} does not exist")
    if file.suffix == ".csv":
        return read_decisions(file)
    if file.suffix not in (".npz", ".safetensors"):
        raise InputError(f"{name} must be a folder of TensorDict.memmap, or end in .npz, .safetensors or .csv")
    try:
        arrays = _npz(file) if file.suffix == ".npz" else safetensors.torch.load_file(file)
    except (SafetensorError, OSError, ValueError, KeyError, EOFError, TypeError, RuntimeError) as error:
        raise InputError(f"{name} cannot be read: {(str(error).splitlines() or ['?'])[0]}") from None
    except Exception as error:  # a damaged zip has errors of its own
        raise InputError(f"{name} cannot be read: {type(error).__name__}") from None
    lengths = {len(x) if x.ndim else 0 for x in arrays.values()}
    if len(lengths) != 1 or 0 in lengths:
        told = ", ".join(f"{key} {list(x.shape)}" for key, x in arrays.items())
        raise InputError(f"{name} must hold arrays of as many rows each, got {told or 'none'}")
    result = TensorDict(batch_size=[lengths.pop()])
    for key, x in arrays.items():
        place = NAMES.get(key, tuple(key.replace("/", ".").split(".")))
        result.set(place, x.float() if x.dtype == torch.float64 else x)
    return result


def _npz(file: Path) -> dict[str, Tensor]:
    with np.load(file, allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def rows_of(policy: Policy, data: TensorDictBase, keys: Keys, *, values: bool, name: str = "the data") -> TensorDict:
    """What a policy learns from, checked: rows of batch `[M]`, or `[G, M]` for G agents of a stack.

    Args:
        policy: reads the observations, and its head decides the actions.
        data: of `read_data`: batch `[M]`, where there are agents `[M, agents, ...]` within, and items after these.
        keys: of the environment. values: whether rewards and what came next are needed.
        name: of the data in messages.

    Returns:
        observation `[.., F]` as the policy reads it, action, and where they are needed action_mask, reward and the next
        ones.

    Raises:
        InputError: one sentence that names what is missing, of another width or number of agents, not finite, no choice
            of the policy, outside of its bounds or forbidden by the mask, with the row.

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
    rows = TensorDict(result, batch_size=read.lead)
    return rows.reshape(-1) if policy.agents is None else rows.transpose(0, 1).reshape(policy.agents, -1)


class _Reader:
    """Columns of a data set in the shape of its rows. Args: of `rows_of`."""

    def __init__(self, policy: Policy, data: TensorDictBase, keys: Keys, name: str) -> None:
        self.policy, self.data, self.keys, self.name = policy, data, keys, name
        observed = self._found("observation", policy.observation_keys)
        m, agents = data.batch_size[0], () if keys.agents is None else (keys.agents,)
        if agents and observed.shape[1:2] != agents:
            shape = list(observed.shape[1:])
            raise InputError(f"{name} holds observations {shape} of each row, and the problem has {agents[0]} agents")
        leads = [torch.Size([m, *agents, *keys.items]), torch.Size([m, *agents])]
        wide = policy.observation_dim
        self.lead = next((s for s in leads if _fits(observed, s, wide)), None) or self._refuse_width(observed, leads[1])

    def _refuse_width(self, observed: Tensor, lead: torch.Size) -> torch.Size:
        width = math.prod(observed.shape[len(lead) :])
        raise InputError(
            f"{self.name} holds {width} numbers of each observation, and the policy reads {self.policy.observation_dim}"
        )

    def _found(self, what: str, keys: list[NestedKey], after: tuple[str, ...] = ()) -> Tensor:
        """A column, by its plain name or under the environment's key. Args: after: `("next",)` of what came then."""
        own = [keys[0] if isinstance(keys[0], tuple) else (keys[0],)] if len(keys) == 1 else []
        for key in [(what,), *own]:
            value = self.data.get((*after, *key), None)
            if value is not None:
                return self._finite(value, ".".join((*after, *key)))
        there = ", ".join(map(repr, self.data.keys(True, True)))
        said = " of what came next" if after else ""
        raise InputError(f"{self.name} has no {what!r}{said}; it has {there}")

    def _finite(self, value: Tensor, key: str) -> Tensor:
        if value.is_floating_point() and not bool((good := value.isfinite()).all()):
            at = (~good).nonzero()[0].tolist()
            raise InputError(f"{self.name} holds {value[tuple(at)].item()} in row {at[0]} of {key!r}")
        return value

    def observation(self, after: tuple[str, ...]) -> Tensor:
        value = self._found("observation", self.policy.observation_keys, after)
        if not _fits(value, self.lead, self.policy.observation_dim):
            self._refuse_width(value, self.lead)
        return value.reshape(*self.lead, -1).to(self.policy.dtype)

    def action(self) -> Tensor:
        head = self.policy.head
        value = self._found("action", self.policy.action_keys)
        if value.shape[: len(self.lead)] != self.lead or value.numel() != math.prod((*self.lead, *head.event)):
            wanted = list(head.event)
            got = list(value.shape[len(self.lead) :])
            raise InputError(f"{self.name} holds actions {got} of each decision, and the policy decides {wanted}")
        value = value.reshape(*self.lead, *head.event)
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
        if isinstance(head, WithinBounds):
            outside = head.scaled(value).abs().amax(-1) > 1 + SLACK
            self._refuse(outside, value, f"outside of the bounds {list(head.low)} to {list(head.high)}")

    def _refuse(self, bad: Tensor, value: Tensor, why: str) -> None:
        """Raises InputError for the first bad row, if there is one. Args: bad: bool `[M, ..]`. value: `[M, ..]`."""
        if bool(bad.any()):
            at = tuple(bad.nonzero()[0].tolist())
            raise InputError(f"{self.name} holds the action {value[at].tolist()} in row {at[0]}, {why}")

    def mask(self, after: tuple[str, ...]) -> Tensor:
        policy = self.policy
        own = [] if policy.mask_key is None else [policy.mask_key]
        value = as_mask(self._found("action_mask", own or ["action_mask"], after), "action_mask")
        width = policy.head.mask_width
        if not _fits(value, self.lead, width):
            got = list(value.shape[len(self.lead) :])
            raise InputError(f"{self.name} holds masks {got} of each decision, and the policy's are {[width]}")
        return value.reshape(*self.lead, width)

    def reward(self) -> Tensor:
        own = self.data.get("reward", None)
        value = self._found("reward", [self.keys.reward], () if own is not None else ("next",))
        return self._each(value, "reward").to(self.policy.dtype)

    def flags(self) -> Tensor:
        return self._each(self._found("terminated", ["terminated"], ("next",)), "terminated").bool()

    def _each(self, value: Tensor, key: str) -> Tensor:
        """One number of each row, which agents and items may share, `[*lead]`."""
        value = value.squeeze(-1) if value.ndim > 1 and value.shape[-1] == 1 else value
        if value.shape != self.lead[: value.ndim]:
            wanted = list(self.lead)
            raise InputError(f"{self.name} holds {key!r} of shape {list(value.shape)}, and {wanted} is needed")
        return value.reshape(*value.shape, *[1] * (len(self.lead) - value.ndim)).expand(self.lead)


def _fits(value: Tensor, lead: torch.Size, width: int) -> bool:
    """Whether a column holds so many numbers of each row."""
    return value.shape[: len(lead)] == lead and math.prod(value.shape[len(lead) :]) == width


def _check_allowed(head: Head, action: Tensor, mask: Tensor, read: _Reader) -> None:
    allowed = head.read_mask(mask)
    read._refuse(~head.allows(allowed), action, "where the mask allows nothing")
    bad = head.impossible(action, allowed)
    if head.written_as is not None and head.feature_width == allowed.shape[-1]:  # one-hot, choice by choice
        bad = bad | ((head.features(action) > 0.5) & ~allowed).any(-1)
    read._refuse(bad, action, "which the mask forbids")


def digest(rows: TensorDictBase) -> str:
    """SHA-256 of the columns of rows: their names, types, shapes and bytes."""
    found = hashlib.sha256()
    for key in sorted(rows.keys(True, True), key=str):
        value = rows[key].contiguous()
        found.update(f"{key!r} {value.dtype} {list(value.shape)}".encode())
        found.update(value.view(torch.uint8).numpy().tobytes() if value.ndim else b"")
    return found.hexdigest()
