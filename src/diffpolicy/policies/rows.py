"""Between the shapes of an environment, `[*, agents, *, F]`, and the rows that networks work on."""

from __future__ import annotations

import torch
from torch import Tensor


WORTH_PACKING = 0.9
"""Packing moves every row twice; with more of them valid than this share, working on all is cheaper."""


class Rows:
    """Gathers the valid entries of a batch as rows: `[M, F]`, or `[G, M, F]` for G agents with own parameters.

    Args:
        shape: leading shape of the values, the action's shape.
        agent_dim: which of its dimensions counts the agents of a stack; None: all entries are rows alike.
        valid: which entries to work on, bool of `shape`; None: all. For a stack the rows are padded to the largest
            number of valid entries of any agent.
    """

    def __init__(self, shape: torch.Size, agent_dim: int | None, valid: Tensor | None = None) -> None:
        self.shape, self.agent_dim = shape, agent_dim
        self.index: Tensor | None = None
        self.valid: Tensor | None = None
        if valid is None:
            return
        flat = self._flat(valid.unsqueeze(-1)).squeeze(-1)
        if agent_dim is None:
            self.index = flat.nonzero().squeeze(-1)
            return
        most = int(flat.sum(-1).max())
        if most < WORTH_PACKING * flat.shape[-1]:
            self.index = (~flat).byte().argsort(dim=-1, stable=True)[:, :most]
        elif most:
            self.valid = valid

    def _flat(self, x: Tensor) -> Tensor:
        if self.agent_dim is None:
            return x.reshape(-1, x.shape[-1])
        return x.movedim(self.agent_dim, 0).reshape(self.shape[self.agent_dim], -1, x.shape[-1])

    def take(self, x: Tensor) -> Tensor:
        """`[*shape, F]` to rows."""
        flat = self._flat(x)
        if self.index is None:
            return flat
        if self.agent_dim is None:
            return flat[self.index]
        return flat.gather(1, self.index.unsqueeze(-1).expand(-1, -1, flat.shape[-1]))

    def put(self, rows: Tensor) -> Tensor:
        """Rows to `[*shape, F]`; zero where nothing was valid."""
        width = rows.shape[-1]
        if self.agent_dim is None:
            if self.index is None:
                return rows.reshape(*self.shape, width)
            return rows.new_zeros(self.shape.numel(), width).index_copy(0, self.index, rows).view(*self.shape, width)
        agents = self.shape[self.agent_dim]
        if self.index is not None:
            full = rows.new_zeros(agents, self.shape.numel() // max(agents, 1), width)
            rows = full.scatter(1, self.index.unsqueeze(-1).expand(-1, -1, width), rows)
        others = [n for d, n in enumerate(self.shape) if d != self.agent_dim]
        result = rows.view(agents, *others, width).movedim(0, self.agent_dim)
        return result if self.valid is None else result * self.valid.unsqueeze(-1)
