"""`water_level`: how high water stands in vessels that are joined; what is best to share out by convex problems."""

from __future__ import annotations

import torch
from torch import Tensor


def water_level(floor: Tensor, width: Tensor, volume: float | Tensor) -> Tensor:
    """The level L at which sum_m width_m max(L - floor_m, 0) = volume, exactly, by sorting.

    Power over channels and work over servers are shared out best where all that get some stand at one level (water
    filling; Cover and Thomas, Elements of Information Theory, section 9.4).

    Args:
        floor: of each vessel, `[*, M]`; infinite: it takes nothing, and one at least is finite.
        width: of each vessel, greater than 0, `[*, M]`.
        volume: greater than 0, `[*]` or a number.

    Returns:
        The level, `[*]`.

    Example:
        >>> water_level(torch.tensor([0.0, 1.0, 5.0]), torch.ones(3), 3.0)  # 2 in the first, 1 in the second
        tensor(2.)
    """
    floor, order = floor.sort(-1)
    width = width.gather(-1, order).masked_fill(floor.isinf(), 0.0)
    area = (width * floor.masked_fill(floor.isinf(), 0.0)).cumsum(-1)
    # where only the k lowest vessels take water, the level is (V + sum w f) / sum w; it holds for the largest k whose
    # floor is still under it, since levels fall as long as vessels below them are added
    level = (torch.as_tensor(volume, dtype=floor.dtype).unsqueeze(-1) + area) / width.cumsum(-1)
    last = (level > floor).sum(-1, keepdim=True).clamp_min(1) - 1
    return level.gather(-1, last).squeeze(-1)
