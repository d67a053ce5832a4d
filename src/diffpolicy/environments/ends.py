"""Where episodes end."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase

from diffpolicy.environments.lanes import called
from diffpolicy.errors import InputError

ENDLESS = 10_000
"""Steps after which an episode that only its environment ends is taken for one that never does."""


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


def refuse_endless(env: EnvBase, going: Tensor, steps: int) -> None:
    """Refuses an environment that does not end its episodes, where nobody said how long they are.

    Args:
        env: named in the message. going: lanes that have not ended, bool `[lanes]`, one at least. steps: played.

    Raises:
        InputError: always.
    """
    lane = int(going.nonzero()[0])
    raise InputError(
        f"{called(env)} has no number of steps, and its lane {lane} has not ended after {steps:,}; let it write "
        f"'done', or say how many steps an episode has at most, such as steps={2 * steps}"
    )
