"""`LinearSum`: a value of a graph as constant matrices times other values, so that products of matrices are known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
WIDEST = 2**13
"""Numbers that the matrices of a sum may hold: beyond it arithmetic costs more than a node."""


@dataclass(frozen=True)
class LinearSum:
    """`sum_x x W_x + sum_y y V_y + c`, of H columns; computed here in float64.

    Args:
        own: W `[w, H]` by the name of x `[..., S, w]`.
        shared: V `[v, H]` by the name of y `[..., v]`, which is the same for all S.
        constant: c, a number or `[H]`.

    Example:
        >>> x = LinearSum({"x": np.eye(2)})
        >>> twice = x.plus(x).plus(np.ones(2)).times(np.array([[1.0], [3.0]]))
        >>> twice.own["x"].tolist(), twice.constant.tolist()
        ([[2.0], [6.0]], [4.0])
    """

    own: dict[str, Array]
    shared: dict[str, Array] | None = None
    constant: Any = 0.0

    @property
    def small(self) -> bool:
        """Whether its matrices are small enough to be multiplied with others."""
        return sum(w.size for w in (*self.own.values(), *(self.shared or {}).values())) <= WIDEST

    @property
    def diagonal(self) -> bool:
        """Whether it is one value times numbers, a column each, and a constant."""
        one = next(iter(self.own.values())) if len(self.own) == 1 and not self.shared else np.ones((2, 1))
        return one.shape[0] == one.shape[1] and not (one - np.diag(np.diag(one))).any()

    def times(self, right: Any) -> LinearSum:
        """The sum times a matrix `[H, G]`, or a number."""
        by = (lambda x: x * right) if np.ndim(right) == 0 else (lambda x: x @ right)
        constant = self.constant
        if np.ndim(right) == 2 and np.ndim(constant) == 0:
            constant = np.full(len(right), constant)
        shared = None if self.shared is None else {y: by(v) for y, v in self.shared.items()}
        return LinearSum({x: by(w) for x, w in self.own.items()}, shared, by(constant))

    def plus(self, other: LinearSum | Any) -> LinearSum:
        """The sum and another, or a constant: a number or `[H]`."""
        if not isinstance(other, LinearSum):
            return replace(self, constant=self.constant + other)
        shared = _merged(self.shared or {}, other.shared or {}) or None
        return LinearSum(_merged(self.own, other.own), shared, self.constant + other.constant)


def _merged(a: dict[str, Array], b: dict[str, Array]) -> dict[str, Array]:
    both = {name: a[name] + b[name] if name in a and name in b else a.get(name, b.get(name)) for name in {**a, **b}}
    return {name: w for name, w in both.items() if w is not None and w.any()}
