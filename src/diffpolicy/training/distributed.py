"""What the processes of a distributed run tell each other; alone, a process tells itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def processes() -> int:
    """How many run together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gathered(x: Tensor) -> list[Tensor]:
    """A tensor of every process, in their order; all of one shape."""
    if processes() == 1:
        return [x]
    sent = x.contiguous().to("cuda" if dist.get_backend() == "nccl" else "cpu")  # what NCCL takes, and what Gloo does
    parts = [torch.empty_like(sent) for _ in range(processes())]
    dist.all_gather(parts, sent)
    return [part.to(x.device) for part in parts]


def summed(x: Tensor) -> Tensor:
    """The sum over all processes, in their order, so that all get the same bits."""
    return torch.stack(gathered(x)).sum(0)


def gathered_objects(x: Any) -> list[Any]:
    """Anything of every process, in their order."""
    if processes() == 1:
        return [x]
    parts: list[Any] = [None] * processes()
    dist.all_gather_object(parts, x)
    return parts
