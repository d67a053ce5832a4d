"""Minibatches of rows, each agent's own, that visit all of them once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def minibatches(valid: Tensor, size: int, generator: torch.Generator) -> Iterator[Any]:
    """Indices of one epoch: every valid row once, in random order, in parts of at most `size` that are about equal.

    Agents that have fewer rows than another visit theirs again from the start of their order, so that each minibatch
    holds as many of each.

    Args:
        valid: which rows there are, bool `[M]`, or `[G, M]` of G agents; at least one for each agent.
        size: rows of a minibatch, for each agent. generator: on the CPU.

    Yields:
        What a tensordict of the rows is indexed by, giving `[m]` or `[G, m]`.
    """
    keys = torch.rand(valid.shape, generator=generator, dtype=torch.float64).to(valid.device)
    order = keys.masked_fill(~valid, 2).argsort(-1)
    count = valid.sum(-1, keepdim=True)
    most = int(count.max())
    place = torch.arange(most, device=valid.device) % count
    chosen = order.gather(-1, place)
    agents = () if valid.ndim == 1 else (torch.arange(len(valid), device=valid.device).unsqueeze(-1),)
    for part in chosen.tensor_split(-(-most // size), -1):
        yield (*agents, part)
