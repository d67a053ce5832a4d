"""`PerAgent`: a copy of any network for each agent."""

from __future__ import annotations

import copy
import warnings
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class Prepares(Protocol):
    """A denoiser that makes of a condition, once a chain, what its `forward` then takes in the condition's place."""

    def prepare(self, condition: Tensor) -> Any:
        """What does not change along the chain. Args: condition: `[.., M, C]`."""


@runtime_checkable
class ReadsItems(Protocol):
    """A denoiser of the items of a row, `[.., M, n, W]` under a condition `[.., M, n, F]`, if this is true."""

    reads_items: bool


@runtime_checkable
class OfAgents(Protocol):
    """A network with parameters of all of so many agents, side by side; None: of one.

    Not `agents`, a name that a network of anybody may have for something else.
    """

    agents_side_by_side: int | None


def agents_of(network: nn.Module) -> int | None:
    """How many agents a network has parameters for, side by side; None: it does not tell, or is of one."""
    if isinstance(network, OfAgents):
        return network.agents_side_by_side
    before = getattr(network, "stack", None)
    if not isinstance(before, int):
        return None
    name = type(network).__name__
    now = f"{name}.agents_side_by_side"
    warnings.warn(f"{name}.stack is {now} now; the old name will be removed", DeprecationWarning, stacklevel=2)
    return before


class PerAgent(nn.Module):
    """Makes a denoiser of one agent one of G: each agent has a copy of its own, which starts as the others do.

    Args:
        module: `forward(x, i, cond)` on rows `[M, A]`, and if it likes `prepare(condition)`.
        agents: G, how many there are.

    Example:
        >>> each = PerAgent(MLPDenoiser(actions=3, condition=6, steps=5), agents=4)
        >>> prepared = each.prepare(torch.zeros(4, 8, 6))
        >>> each(torch.zeros(4, 8, 3), 5, prepared).shape
        torch.Size([4, 8, 3])
    """

    def __init__(self, module: nn.Module, agents: int) -> None:
        super().__init__()
        self.each = nn.ModuleList(copy.deepcopy(module) for _ in range(agents))
        self.reads_items = isinstance(module, ReadsItems) and module.reads_items

    def prepare(self, condition: Tensor) -> Tensor | list[Any]:
        """What each agent's copy makes of its own condition, or the condition. Args: condition: `[G, M, C]`."""
        if not isinstance(self.each[0], Prepares):
            return condition
        return [module.prepare(c) for module, c in zip(self.each, condition.unbind(0), strict=True)]  # type: ignore[operator]

    def forward(self, x: Tensor, i: int | Tensor, prepared: Tensor | list[Any]) -> Tensor:
        """Of the shape of x, `[G, M, A]`. Args: i: 1..I, of all rows or `[G, M]`."""
        times = i.unbind(0) if isinstance(i, Tensor) else [i] * len(self.each)
        parts = zip(self.each, x.unbind(0), times, prepared, strict=True)
        return torch.stack([module(y, t, cond) for module, y, t, cond in parts])
