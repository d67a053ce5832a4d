"""`DecisionInput`: describes an input or output of a decision that is a pure function. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class DecisionInput:
    """An input or output of a decision.

    Args:
        name: e.g. `observation`, `latent`, `noise`, `uniform` or `mask`; of outputs `action`, `logits`, `next_latent`.
        shape: with names for sizes that are free, such as "rows" for the number M of rows, e.g. `["rows", 22]`.
        dtype: `float32`, `int64` or `bool`.
        meaning: one line.
        between: what values to try it on are drawn from, uniformly; None: from N(0, 1). The upper end of an `int64`
            may be the name of a size.

    Example:
        >>> rows = DecisionInput("uniform", ("rows", 3), "float32", "independent draws of U[0, 1)", (0.0, 1.0))
        >>> rows.random(rows=2, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3])
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    meaning: str
    between: tuple[float, float | str] | None = None

    def random(self, rows: int, generator: torch.Generator, **sizes: int) -> Tensor:
        """Values to try a decision on.

        Args:
            rows: M, how many. generator: draws them. sizes: the other free sizes by name.

        Returns:
            A tensor of the input's shape and type.
        """
        import torch

        known = {"rows": rows, **sizes}
        shape = [known[n] if isinstance(n, str) else n for n in self.shape]
        if self.dtype == "bool":
            mask = torch.rand(shape, generator=generator) < 0.7
            mask[..., 0] = True
            return mask
        if self.between is None:
            return torch.randn(shape, generator=generator)
        low, high = self.between
        high = known[high] if isinstance(high, str) else high
        if self.dtype == "int64":
            return torch.randint(int(low), int(high), shape, generator=generator)
        return low + (high - low) * torch.rand(shape, generator=generator)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype, "meaning": self.meaning}
