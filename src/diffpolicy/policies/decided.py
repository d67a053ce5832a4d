"""`Decided`: what a pass of a policy makes of rows, and one of several passes of each row."""

from __future__ import annotations

from dataclasses import dataclass

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
            at = x.ndim - 1 - rest
            apart = x.unflatten(at, (-1, count))
            chosen = index.reshape(*[1] * (at + 1 - index.ndim), *index.shape, 1, *[1] * rest)
            # `take_along_dim` would fix the number of rows in a graph
            wide = chosen.expand(*apart.shape[: at + 1], 1, *apart.shape[at + 2 :])
            picked: Tensor = apart.gather(at + 1, wide).squeeze(at + 1)
            return picked

        noise = None if self.noise is None else pick(self.noise, 1)
        return Decided(noise, pick(self.x0, 1), pick(self.law, 1), pick(self.action, event))
