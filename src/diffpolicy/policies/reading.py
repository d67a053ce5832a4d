"""`Reading`: what a policy reads of a tensordict: observations as features of items, which items exist, and masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torch.nn.functional import one_hot

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.networks.dense import width_of
from diffpolicy.policies.heads import CompositeHead, Head, JointHead
from diffpolicy.policies.joint import joint_mask, joint_row, joint_width
from diffpolicy.policies.masks import aligned_mask, readable
from diffpolicy.policies.nested_keys import as_json, plain
from diffpolicy.policies.rows import Rows

FLAG = 0.5
"""Above it a flag says that an item exists."""


@dataclass(frozen=True)
class Reading:
    """Keys that a policy reads, and how their values become rows.

    Args:
        keys: of observations. widths: features of each. shapes: of one item's value of each, which is flattened; None:
            `[width]`. values: n of each that holds an integer below n, read as n features of which one is 1; or None.
        mask: tells allowed choices, bool `[*, A]`, or None. valid: which items exist, bool of their shape, or None.
        agents: B of own parameters, or None. item_dims: how many dimensions count items, after that of the agents;
            None: the tensordict's batch tells where the agents are.
        items: shape of the items of a row that are decided together, or (). Then a row is what `joint_row` makes.
        masks: where several keys are decided, that of each or None; there is no `mask` then.
    """

    keys: tuple[NestedKey, ...]
    widths: tuple[int, ...]
    shapes: tuple[tuple[int, ...] | None, ...]
    values: tuple[int | None, ...]
    mask: NestedKey | None = None
    valid: NestedKey | None = None
    agents: int | None = None
    item_dims: int | None = None
    items: tuple[int, ...] = ()
    masks: tuple[NestedKey | None, ...] = ()

    @classmethod
    def of(
        cls,
        features: int,
        keys: Sequence[NestedKey],
        widths: Sequence[int] | None,
        shapes: Sequence[Sequence[int] | None] | None,
        values: Sequence[int | None] | None,
        mask: NestedKey | None,
        valid: NestedKey | None,
        agents: int | None,
        item_dims: int | None,
        items: Sequence[int] | None,
        masks: Sequence[NestedKey | None] | None = None,
    ) -> Reading:
        """What a policy's arguments tell. Args: features: of all observations together. The rest: of the class.

        Raises:
            InputError: a key or a width is none, or the widths do not sum to the features.
        """
        joint = tuple(width_of(n, "joint_items") for n in check.sequence(items or [], "joint_items"))
        given = check.sequence(widths or [features], "observation_widths")
        each = tuple(width_of(w, f"observation_widths[{i}]") for i, w in enumerate(given))
        total = joint_width(sum(each), joint, valid is not None) if joint else sum(each)
        if total != features:
            of = f" of {list(joint)} items" if joint else ""
            raise InputError(f"observation_widths {list(each)}{of} must sum to observation_dim {features}")
        return cls(
            tuple(plain(k) for k in keys),
            each,
            tuple(None if s is None else tuple(s) for s in shapes or [None] * len(each)),
            tuple(values or [None] * len(each)),
            plain(mask),
            plain(valid),
            agents,
            item_dims if item_dims is None else check.integer(item_dims, "item_dims", least=0),
            joint,
            tuple(map(plain, masks or ())),
        )

    @property
    def masked(self) -> bool:
        """Whether rows have a mask: the environment's, or that of joint items that may not exist."""
        return (
            any(m is not None for m in self.masks)
            or self.mask is not None
            or bool(self.items and self.valid is not None)
        )

    @property
    def flagged(self) -> bool:
        """Whether a flag after the features of each joint item says if it exists."""
        return bool(self.items and self.valid is not None)

    @property
    def in_keys(self) -> list[NestedKey]:
        """All that is read."""
        return [*self.keys, *(k for k in (self.mask, *self.masks, self.valid) if k is not None)]

    def to_dict(self) -> dict[str, Any]:
        """The constructor's arguments of a policy that tell it, as JSON holds them."""
        form: dict[str, Any] = {}
        if any(s is not None and len(s) > 1 for s in self.shapes) or any(self.values):
            form["observation_shapes"] = [None if s is None else list(s) for s in self.shapes]
        if any(self.values):
            form["observation_values"] = list(self.values)
        return {
            "observation_keys": [as_json(k) for k in self.keys],
            "observation_widths": list(self.widths),
            **form,
            "mask_key": as_json(self.mask),
            "valid_key": as_json(self.valid),
            "item_dims": self.item_dims,
            **({"joint_items": list(self.items)} if self.items else {}),
            **({"mask_keys": [as_json(k) for k in self.masks]} if self.masks else {}),
        }

    def rows(self, td: TensorDictBase) -> Rows:
        """The valid items of a tensordict as rows."""
        first = self.observed(td, 0)
        if self.items:
            lead = first.shape[: first.ndim - 1 - len(self.items)]
            return Rows(lead, self._agent_dim(td, lead), None, first.device)
        valid = None if self.valid is None else _given(td, self.valid, "the flags")
        shape = first.shape[:-1] if valid is None else valid.shape
        return Rows(shape, self._agent_dim(td, shape), valid, first.device)

    def _agent_dim(self, td: TensorDictBase, shape: torch.Size) -> int | None:
        """Which dimension of the items counts the agents. Args: shape: of the items."""
        if self.agents is None:
            return None
        dim = td.batch_dims if self.item_dims is None else len(shape) - 1 - self.item_dims
        guessed = self.item_dims is None and not td.batch_dims and shape.count(self.agents) > 1
        if guessed or not 0 <= dim < len(shape) or shape[dim] != self.agents:
            raise InputError(
                f"the policy has networks for {self.agents} agents, and items of shape {list(shape)} in a tensordict "
                f"of batch {list(td.batch_size)} do not tell which dimension counts them"
            )
        return dim

    def observe(self, td: TensorDictBase) -> Tensor:
        """The observation keys, side by side, `[*, F]`."""
        parts = [self.observed(td, i) for i in range(len(self.keys))]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def apart(self, observation: Tensor) -> tuple[dict[NestedKey, Tensor], Tensor | None]:
        """Values of each key, and the flags of joint items, of rows. Args: observation: `[.., M, F]`."""
        flags = None
        if self.items:
            observation = observation.unflatten(-1, (*self.items, -1))
        if self.flagged:
            observation, flags = observation[..., :-1], observation[..., -1] > FLAG
        return dict(zip(self.keys, observation.split(self.widths, -1), strict=True)), flags

    def with_flags(self, observation: Tensor, told: Tensor) -> Tensor:
        """Rows with the flags of others. Args: observation: whose flags mean nothing. told: of the same shape."""
        n = math.prod(self.items)
        flag = told.unflatten(-1, (n, -1))[..., -1:]
        return torch.cat([observation.unflatten(-1, (n, -1))[..., :-1], flag], -1).flatten(-2)

    def gathered(self, td: TensorDictBase) -> Tensor:
        """What rows are taken of, `[*, F]`: where items are joint all that is observed of them, side by side."""
        value = self.observe(td)
        return joint_row(value, None if self.valid is None else td[self.valid], self.items) if self.items else value

    def observed(self, td: TensorDictBase, i: int) -> Tensor:
        """The i-th observation key, `[*, width]`; where an item has one number without a dimension of its own, of 1."""
        key, width, shape = self.keys[i], self.widths[i], self.shapes[i]
        value = _given(td, key, "the observation")
        count = self.values[i]
        if count is not None:
            if readable(value) and bool((bad := (value < 0) | (value >= count)).any()):
                raise InputError(
                    f"the observation {key!r} must hold whole numbers from 0 to {count - 1}, got {value[bad][0].item()}"
                )
            value = one_hot(value.long() if shape == () else value.long().squeeze(-1), count)
        elif shape is not None and len(shape) > 1 and value.shape[-len(shape) :] == shape:
            value = value.flatten(-len(shape))
        elif width == 1:
            valid = None if self.valid is None else td.get(self.valid, None)
            of = td.get(key[:-1]) if isinstance(key, tuple) else td
            value = value.unsqueeze(-1) if value.ndim == (of.batch_dims if valid is None else valid.ndim) else value
        if not value.ndim or value.shape[-1] != width:
            raise InputError(f"the observation {key!r} must have {width} features, got shape {list(value.shape)}")
        return value

    def features(self, td: TensorDictBase, rows: Rows, like: Tensor) -> Tensor:
        """What is observed of rows, `[.., M, F]`. Args: like: of the networks' type and device.

        Raises:
            InputError: a number is not finite, seen on the CPU.
        """
        observation = rows.take(self.gathered(td)).to(like.dtype)
        # a sum is ten times as fast as a look at each; where it overflows, each is looked at
        if readable(observation) and not math.isfinite(observation.sum().item()):
            self._refuse_infinite(td, rows, like.dtype)
        return observation.to(like.device)

    def _refuse_infinite(self, td: TensorDictBase, rows: Rows, dtype: torch.dtype) -> None:
        """Names the first number of an item that exists which is not finite; others mean nothing."""
        for i, key in enumerate(self.keys):
            value = self.observed(td, i)
            bad = ~torch.isfinite(value.to(dtype))
            valid = td[self.valid] if self.flagged and self.valid is not None else rows.valid
            if valid is not None:
                bad = bad & valid.unsqueeze(-1)
            if bad.any():
                at = bad.nonzero()[0].tolist()
                name = str(dtype).removeprefix("torch.")
                raise InputError(
                    f"the observation {key!r} holds {value[tuple(at)].item()} at {at}, not finite in {name}"
                )

    def allowed(self, td: TensorDictBase, rows: Rows, head: Head) -> Tensor | None:
        """Allowed choices of rows, bool `[.., M, W]`, or None. Args: head: reads the mask.

        Raises:
            InputError: the mask is missing, of another shape, or allows an item nothing; where it is traced or on a
                GPU such an item's choice is -1.
        """
        if not self.masked:
            return None
        mask = None if self.mask is None else td.get(self.mask, None)
        if mask is None and self.mask is not None:
            raise InputError(f"the policy reads the mask {self.mask!r}, which it is not given")
        if mask is not None and self.mask is not None:
            each = head.mask_width // math.prod(self.items)
            mask = aligned_mask(mask, self.mask, torch.Size([*rows.shape, *self.items]), each)
        if isinstance(head, CompositeHead):
            mask = self._together(td, rows, head)
        if isinstance(head, JointHead):
            valid = None if self.valid is None else td[self.valid]
            mask = joint_mask(mask, valid, head.each.first(), self.items)
        assert mask is not None
        mask = head.read_mask(mask)
        if readable(mask):
            some = head.allows(mask)
            if not some.all():
                none = ~some & self.awaited(td, rows)
                if none.any():
                    names = " or ".join(repr(k) for k in (self.mask, *self.masks) if k is not None)
                    raise InputError(f"the mask {names or None} allows no choice at {none.nonzero()[0].tolist()}")
        return rows.take(mask.expand(*rows.shape, head.width))

    def _together(self, td: TensorDictBase, rows: Rows, head: CompositeHead) -> Tensor:
        """The masks of all keys that have one, side by side, bool `[*, mask_width]`."""
        found = []
        for key, part in zip(self.masks, head.parts, strict=True):
            if key is None:
                continue
            mask = td.get(key, None)
            if mask is None:
                raise InputError(f"the policy reads the mask {key!r}, which it is not given")
            found.append(aligned_mask(mask, key, rows.shape, part.mask_width).expand(*rows.shape, part.mask_width))
        return torch.cat(found, -1)

    def awaited(self, td: TensorDictBase, rows: Rows) -> Tensor:
        """Items that need a choice, bool `[*]`: those that exist, in environments that are not done."""
        valid = torch.ones(rows.shape, dtype=torch.bool, device="cpu") if rows.valid is None else rows.valid
        done = td.get("done", None)
        if done is None:
            return valid
        over: Tensor = done.reshape(*td.batch_size, -1).any(-1)
        return valid & ~over.view(*td.batch_size, *[1] * (valid.ndim - td.batch_dims))


def _given(td: TensorDictBase, key: NestedKey, what: str) -> Tensor:
    """What stands under a key. Raises InputError if nothing does. Args: td: what is seen. what: is read."""
    value: Tensor | None = td.get(key, None)
    if value is None:
        raise InputError(f"the policy reads {what} {key!r}, which it is not given")
    return value
