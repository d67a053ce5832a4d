"""A replay buffer for all agents: one packed tensor, in which each has a ring of its own."""

from __future__ import annotations

import math
from typing import Any

import torch
from tensordict import TensorDict
from tensordict.utils import NestedKey
from torch import Tensor, nn

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.policies.draws import Draws
from diffpolicy.policies.masks import readable

EXACT = 2**24
"""Up to here each whole number is one of float32."""


class PackedReplay(nn.Module):
    """The last `capacity` transitions of each of G agents, drawn independently for each.

    All values of a transition lie side by side in one row of a float32 tensor `[G, C, D]`, so that a batch is one
    gather; a whole number must be at most 2^24, up to which float32 holds each. It is a module, so that its contents
    travel with a checkpoint.

    Args:
        capacity: most transitions of each agent, C.
        agents: G, or None for one buffer of rows `[C, D]`.
        seed: of the generator that draws batches.

    Raises:
        InputError: the capacity is below 1.

    Example:
        >>> from tensordict import TensorDict
        >>> replay = PackedReplay(capacity=3, agents=None)
        >>> replay.extend(TensorDict({"action": torch.arange(5), "reward": torch.zeros(5)}, [5]))
        >>> len(replay), replay.sample(100)["action"].unique().tolist()  # the oldest two are gone
        (3, [2, 3, 4])
    """

    data: Tensor
    cursor: Tensor
    size: Tensor

    def __init__(self, capacity: int, agents: int | None, seed: int = 0) -> None:
        super().__init__()
        capacity = check.integer(capacity, "the replay's capacity", least=1)
        self.capacity, self.agents = capacity, agents
        self.generator = Draws(seed)
        self.fields: list[tuple[NestedKey, tuple[int, ...], torch.dtype]] = []
        agents = agents or 1
        self.register_buffer("data", torch.empty(agents, capacity, 0))
        self.register_buffer("cursor", torch.zeros(agents, dtype=torch.int64))
        self.register_buffer("size", torch.zeros(agents, dtype=torch.int64))

    def extend(self, transitions: TensorDict, agent_dim: int | None = None) -> None:
        """Adds the valid transitions, oldest first.

        Args:
            transitions: any batch; `valid`, bool of the batch's shape, tells which to take (all without it).
            agent_dim: which batch dimension counts the agents; needed where there are several.

        Raises:
            InputError: no dimension of the batch counts the agents, the keys and shapes are not those of before, a
                number is too large (off the CPU only the first call looks), or a number is no longer whole.
        """
        batch = transitions.batch_size
        valid = self._checked_valid(transitions, agent_dim)
        leaves = sorted(transitions.items(True, True), key=lambda item: str(item[0]))
        values = {key: value for key, value in leaves if key != "valid"}
        shapes = {key: tuple(value.shape[len(batch) :]) for key, value in values.items()}
        self._check_fields(shapes)
        flat = [v.flatten(len(batch)) if v.ndim > len(batch) else v.unsqueeze(-1) for v in values.values()]
        for key, value in zip(values, flat, strict=True):
            if not self.fields or readable(value):
                _check_exact(key, value, valid)
        columns = [v.float() for v in flat]
        for (key, _, dtype), value in zip(self.fields, flat, strict=False):
            if value.is_floating_point() and not dtype.is_floating_point:
                raise InputError(f"the replay keeps {key!r} as {dtype}, and these transitions give {value.dtype}")
        if not self.fields:
            self.fields = [(key, shapes[key], value.dtype) for key, value in values.items()]
            width = sum(c.shape[-1] for c in columns)
            counts = {"agents": self.agents or 1, "transitions": self.capacity, "numbers": width}
            check.product(counts, _limits.REPLAYED, "the replay")
            if self.data.shape[-1] != width:
                self.data = self._zeros(width)
        packed = torch.cat(columns, -1).to(self.data)
        valid = valid.to(packed.device)
        if agent_dim is not None and self.agents is not None:
            packed, valid = packed.movedim(agent_dim, 0), valid.movedim(agent_dim, 0)
        agents = len(self.size)
        rows = valid.numel() // agents
        self._write(packed.reshape(agents, rows, packed.shape[-1]), valid.reshape(agents, rows))

    def _checked_valid(self, transitions: TensorDict, agent_dim: int | None) -> Tensor:
        """Which transitions to take, bool of their batch, once it is sure which dimension counts the agents."""
        batch = transitions.batch_size
        if not batch:
            raise InputError("the replay takes transitions of at least one batch dimension, got batch []")
        if self.agents is not None:
            if agent_dim is None or not 0 <= agent_dim < len(batch):
                raise InputError(
                    f"the replay keeps {self.agents} agents, so agent_dim must be a dimension of the transitions' "
                    f"batch {list(batch)}, got {agent_dim}"
                )
            if batch[agent_dim] != self.agents:
                raise InputError(
                    f"the replay keeps {self.agents} agents, and dimension {agent_dim} of the transitions' batch "
                    f"{list(batch)} counts {batch[agent_dim]}"
                )
        valid = transitions.get("valid", None)
        if valid is None:
            return torch.ones(batch, dtype=torch.bool)
        if valid.shape != batch:
            raise InputError(f"the transitions' 'valid' must have their batch {list(batch)}, got {list(valid.shape)}")
        taken: Tensor = valid.to(torch.bool)
        return taken

    def _check_fields(self, shapes: dict[NestedKey, tuple[int, ...]]) -> None:
        """Refuses other keys or shapes than those that the columns are."""
        before = {key: shape for key, shape, _ in self.fields}
        if not before:
            return
        for key in [*before, *shapes]:
            if before.get(key) != shapes.get(key):
                was, now = (f"shape {list(x[key])}" if key in x else "none" for x in (before, shapes))
                raise InputError(f"the replay holds {key!r} of {was}, and the new transitions give {now}")

    def _zeros(self, width: int) -> Tensor:
        """Room for all transitions, which the system may lend before there is any. Args: width: of each, numbers."""
        shape = (*self.data.shape[:-1], width)
        try:
            return self.data.new_zeros(shape)
        except RuntimeError:  # the allocator's, of the processor or of a card
            size = math.prod(shape) * self.data.element_size() / 2**30
            raise InputError(
                f"a replay of {self.capacity:,} transitions of {width:,} numbers each would take {size:,.1f} GiB, more "
                f"than there is on {self.data.device}; lower its capacity"
            ) from None

    def _write(self, packed: Tensor, valid: Tensor) -> None:
        """Puts the valid ones of rows `[G, M, D]` into the rings, in their order; of too many the last ones stay."""
        rank = valid.cumsum(-1)
        count = valid.sum(-1)
        chosen = valid & (rank > (count - self.capacity).unsqueeze(-1))
        agent = torch.arange(len(count), device=packed.device).unsqueeze(-1)
        target = agent * self.capacity + (self.cursor.unsqueeze(-1) + rank - 1) % self.capacity
        rows = chosen.flatten().nonzero().squeeze(-1)
        self.data.flatten(0, 1).index_copy_(0, target.flatten()[rows], packed.flatten(0, 1).index_select(0, rows))
        self.cursor.add_(count).remainder_(self.capacity)
        self.size.add_(count).clamp_max_(self.capacity)

    def __len__(self) -> int:
        """Transitions of the agent that has fewest."""
        return int(self.size.min())

    def sample(self, batch: int) -> TensorDict:
        """Rows drawn with replacement, of batch `[batch]` or `[G, batch]`; each agent draws its own."""
        if not len(self):
            raise InputError("the replay has nothing to draw: an agent has no transitions")
        u = torch.rand(len(self.size), batch, dtype=torch.float64, generator=self.generator).to(self.data.device)
        index = (u * self.size.unsqueeze(-1)).long()
        index += torch.arange(len(self.size), device=index.device).unsqueeze(-1) * self.capacity
        rows = self.data.flatten(0, 1).index_select(0, index.flatten()).view(*index.shape, -1)
        if self.agents is None:
            rows = rows[0]
        result: dict[str, Any] = {}
        widths = [math.prod(shape) for _, shape, _ in self.fields]
        for (key, shape, dtype), part in zip(self.fields, rows.split(widths, -1), strict=True):
            value = part.unflatten(-1, shape) if len(shape) > 1 else part.squeeze(-1) if not shape else part
            value = value if value.dtype == dtype else value.to(dtype)
            names = key if isinstance(key, tuple) else (key,)
            level = result
            for name in names[:-1]:
                level = level.setdefault(name, {})
            level[names[-1]] = value
        return TensorDict(result, batch_size=rows.shape[:-1])

    def get_extra_state(self) -> dict[str, Any]:
        """What the columns are, and the generator."""
        fields = [[list(k) if isinstance(k, tuple) else k, list(s), str(d).split(".")[-1]] for k, s, d in self.fields]
        return {"generator": self.generator.get_state(), "fields": fields}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes up what `get_extra_state` gave."""
        self.generator.set_state(state["generator"].cpu())
        self.fields = [
            (tuple(k) if isinstance(k, list) else k, tuple(s), getattr(torch, d)) for k, s, d in state["fields"]
        ]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(prefix + "data")
        if saved is not None and saved.shape[:-1] == self.data.shape[:-1]:
            self.data = self.data.new_zeros(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _check_exact(key: NestedKey, value: Tensor, valid: Tensor) -> None:
    """Refuses whole numbers that float32 would round, and others that it cannot hold.

    Args:
        key: names them. value: `[*, width]`. valid: which are kept, bool `[*]`.
    """
    if value.dtype == torch.float64:
        lost = value.isfinite() & ~value.float().isfinite() & valid.to(value.device).unsqueeze(-1)
        if lost.any():
            raise InputError(f"the replay keeps numbers in float32, and {key!r} holds {value[lost][0].item():g}")
    if value.is_floating_point() or value.dtype == torch.bool or not value.numel():
        return
    low, high = (int(x) for x in value.aminmax())
    if max(-low, high) > EXACT:
        worst = high if high >= -low else low
        raise InputError(
            f"the replay keeps whole numbers up to {EXACT:,}, and {key!r} holds {worst:,}; make it a float"
        )
