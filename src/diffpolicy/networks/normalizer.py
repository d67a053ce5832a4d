"""Running normalisation of what a network reads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LIMIT = 10.0
"""Standard deviations at which a normalised feature is cut off, so that a queue never seen before cannot blow up."""


class RunningNorm(nn.Module):
    """Normalises y = (x - mean) / std by feature, clipped to [-10, 10], with the statistics of all rows seen so far.

    The statistics are merged exactly (Chan et al. 1983, doi:10.1080/00031305.1983.10483115), in float64, so they do not
    depend on how rows are cut into batches. Before the first `update` it changes nothing.

    Args:
        features: their number, F.

    Example:
        >>> norm = RunningNorm(features=1)
        >>> norm.update(RunningNorm.moments(torch.tensor([[1.0], [3.0]])))  # mean 2, standard deviation 1
        >>> norm(torch.tensor([[2.0], [3.0], [100.0]])).flatten()
        tensor([ 0.,  1., 10.])
    """

    count: Tensor
    mean: Tensor
    square: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("square", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("shift", torch.zeros(features), persistent=False)
        self.register_buffer("scale", torch.ones(features), persistent=False)

    @staticmethod
    def moments(rows: Tensor) -> Tensor:
        """Count, means and sums of squared deviations of rows `[M, F]`, side by side, `[1 + 2 F]` in float64."""
        rows = rows.double()
        mean = rows.mean(0).nan_to_num()
        return torch.cat([mean.new_tensor([len(rows)]), mean, (rows - mean).square().sum(0)])

    @torch.no_grad()
    def update(self, moments: Tensor) -> None:
        """Takes rows into account. Args: moments: what `moments` made of them."""
        features = len(self.mean)
        count, mean, square = moments.split([1, features, features])
        delta, total = mean - self.mean, self.count + count
        share = count / total.clamp_min(1)
        self.square += square + delta.square() * self.count * share
        self.mean += delta * share
        self.count.copy_(total.squeeze())
        self._refresh()

    def _refresh(self) -> None:
        std = (self.square / self.count.clamp_min(1)).sqrt()
        known = std > 1e-6
        self.scale.copy_(torch.where(known, 1 / std.clamp_min(1e-6), 1.0))
        self.shift.copy_(torch.where(self.count > 0, self.mean, 0.0))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised rows. Args: x: `[*, F]`."""
        return ((x - self.shift) * self.scale).clamp(-LIMIT, LIMIT)

    def _load_from_state_dict(self, *args: object) -> None:
        super()._load_from_state_dict(*args)
        self._refresh()
