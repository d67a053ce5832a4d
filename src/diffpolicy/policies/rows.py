"""Between the shapes of an environment, `[*, agents, *, F]`, and the rows that networks work on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor

from diffpolicy.policies.masks import readable

WORTH_PACKING = 0.9
"""Packing costs a sort; with more rows valid than this share, working on all of them is cheaper."""
BLOCK = 256
"""Rows, of each agent, that networks work on at once when acting on the CPU (measured; several times faster)."""


class Rows:
    """Gathers the valid entries of a batch as rows: `[M, F]`, or `[G, M, F]` for G agents with own parameters.

    On the CPU only the valid entries become rows. On a GPU the host does not know how many there are and would have to
    wait for it; there all entries are rows, and what is put back for invalid ones is zero.

    Args:
        shape: leading shape of the values, the action's shape.
        agent_dim: which of its dimensions counts agents with parameters of their own; None: all entries are rows alike.
        valid: which entries to work on, bool of `shape`; None: all. With agents the rows are padded to the largest
            number of valid entries of any agent.
        device: of the values.

    Example:
        >>> valid = torch.tensor([[True, False], [True, True]])
        >>> rows = Rows(valid.shape, agent_dim=None, valid=valid)
        >>> taken = rows.take(torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]]))
        >>> taken.flatten(), rows.put(taken).squeeze(-1)
        (tensor([1., 3., 4.]), tensor([[1., 0.], [3., 4.]]))
    """

    def __init__(
        self,
        shape: torch.Size,
        agent_dim: int | None,
        valid: Tensor | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.shape, self.agent_dim = shape, agent_dim
        self.valid = valid
        self.index: Tensor | None = None
        """Place of each row among the entries in the order of `shape`, `[rows]`; None: they are all, in that order."""
        self.packed = False
        """Whether some entries are no rows."""
        packs = valid is not None and readable(valid)
        if agent_dim is None:
            if valid is not None and packs:
                self.index, self.packed = valid.flatten().nonzero().squeeze(-1), True
            return
        first = None if valid is None or not packs else self._first(valid)
        self.packed = first is not None
        if first is None and shape[:agent_dim].numel() == 1:
            return
        places = torch.arange(shape.numel(), device=device if valid is None else valid.device).view(shape)
        places = self._by_agent(places)
        self.index = (places if first is None else places.gather(1, first)).flatten()

    def _first(self, valid: Tensor) -> Tensor | None:
        """Numbers of each agent's entries that become rows, valid ones first; None where all do. Args: of the class."""
        flat = self._by_agent(valid)
        most = int(flat.sum(-1).max())
        if most >= WORTH_PACKING * flat.shape[-1]:
            return None
        # of flags NumPy's stable sort takes a fifth of the time of torch's
        return torch.from_numpy(np.argsort(~flat.numpy(), axis=1, kind="stable")[:, :most])

    def _by_agent(self, x: Tensor) -> Tensor:
        assert self.agent_dim is not None
        return x.movedim(self.agent_dim, 0).reshape(self.shape[self.agent_dim], -1)

    @property
    def count(self) -> int:
        """Rows in all, those that pad included."""
        return self.shape.numel() if self.index is None else len(self.index)

    def take(self, x: Tensor) -> Tensor:
        """`[*shape, F]` to rows."""
        rows = x.reshape(self.shape.numel(), x.shape[-1])
        if self.index is not None:
            rows = rows.index_select(0, self.index)
        if self.agent_dim is None:
            return rows
        agents = self.shape[self.agent_dim]
        return rows.view(agents, self.count // max(agents, 1), x.shape[-1])

    def put(self, rows: Tensor) -> Tensor:
        """Rows to `[*shape, F]`; zero where nothing was valid."""
        placed = self._placed(rows)
        if self.valid is None or (self.packed and self.agent_dim is None):
            return placed
        # no product: what is made of an item that does not exist may be no number
        return torch.where(self.valid.to(placed.device).unsqueeze(-1), placed, placed.new_zeros(()))

    def put_into(self, values: Tensor, rows: Tensor) -> Tensor:
        """Values, with those of rows where they are valid, `[*shape, F]`.

        Args:
            values: `[*shape, F]`; they stay as they are. rows: of their type and device.
        """
        if self.valid is None:
            return self._placed(rows)
        if not self.packed or self.index is None:
            return torch.where(self.valid.unsqueeze(-1), self._placed(rows), values)
        before = values.reshape(-1, values.shape[-1])
        after = before.clone().index_copy_(0, self.index, rows.reshape(-1, values.shape[-1]))
        if self.agent_dim is not None:  # rows that only pad are none of the valid entries
            padding = self.index[~self.valid.flatten()[self.index]]
            after.index_copy_(0, padding, before.index_select(0, padding))
        return after.view(*self.shape, -1)

    def _placed(self, rows: Tensor) -> Tensor:
        """Rows at their places, `[*shape, F]`; zero where there is no row."""
        width = rows.shape[-1]
        flat = rows.reshape(-1, width)
        if self.index is not None:
            fresh = flat.new_zeros if self.packed else flat.new_empty
            flat = fresh(self.shape.numel(), width).index_copy_(0, self.index.to(flat.device), flat)
        return flat.view(*self.shape, width)


def in_blocks(
    network: Callable[..., Tensor],
    condition: Tensor,
    latent: Tensor | None,
    noise: Tensor | None,
    mask: Tensor | None = None,
    once: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Tensor:
    """A network's output on rows, without gradients block by block: what a block needs stays in the processor's cache.

    Args:
        network: of `condition`, `latent`, `noise` and `mask`; it draws nothing, so that blocks are a matter of speed
            alone.
        condition: `[.., M, C]`. latent: `[.., M, A]`, or None. noise: `[draws, .., M, A]`, or None. mask: `[.., M, A]`,
            or None.
        once: a context in which the network computes once what all blocks share.
    """
    rows = condition.shape[-2]
    if torch.is_grad_enabled() or condition.device.type != "cpu" or rows <= BLOCK:
        return network(condition, latent, noise, mask)
    blocks = -(-rows // BLOCK)
    parts = [[None] * blocks if x is None else x.split(BLOCK, -2) for x in (latent, noise, mask)]
    with once():
        return torch.cat([network(*x) for x in zip(condition.split(BLOCK, -2), *parts, strict=True)], -2)
