"""`Decided`: what a pass of a policy makes of rows, and one of several passes of each row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Decided:
    """What a pass makes of rows.

    Args:
        noise: that the chain drew, `[draws, .., M, W]`, or None. x0: its end. law: parameters, both `[.., M, *]`.
        action: `[.., M, *event]`.
    """

    noise: Tensor | None
    x0: Tensor
    law: Tensor
    action: Tensor

    def picked(self, index: Tensor, count: int, event: int) -> Decided:
        """One of several passes of each row, which lie in a row.

        Args:
            index: which, int64 `[.., M]`. count: K of each row, so that there are M K here. event: dimensions of an
                action.
        """

        def pick(x: Tensor, rest: int) -> Tensor:
            apart = x.unflatten(x.ndim - 1 - rest, (-1, count))
            lead = apart.ndim - index.ndim - 1 - rest
            at = index.reshape(*[1] * lead, *index.shape, 1, *[1] * rest)
            return torch.take_along_dim(apart, at, apart.ndim - 1 - rest).squeeze(apart.ndim - 1 - rest)

        noise = None if self.noise is None else pick(self.noise, 1)
        return Decided(noise, pick(self.x0, 1), pick(self.law, 1), pick(self.action, event))
