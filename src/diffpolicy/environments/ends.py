"""Where episodes end."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor


def ended(state: TensorDictBase, lanes: int) -> Tensor:
    """Which lanes of an environment are at the end of an episode, bool `[lanes]`, on the CPU.

    Args:
        state: what a reset gave, or what stands under `next` after a step; flags that it does not have are false.
        lanes: E, what the environment's batch size counts.
    """
    over = torch.zeros(lanes, dtype=torch.bool)
    for name in ("done", "terminated", "truncated"):
        flag = state.get(name, None)
        if flag is not None:
            over |= flag.cpu().reshape(lanes, -1).any(-1)
    return over
