"""Evolution with a full covariance (Beyer and Sendhoff, 2017: CMA-ES by a matrix and no decomposition of it)."""

from __future__ import annotations

import numpy as np

from diffpolicy._types import Floats
from diffpolicy.edge.dispatch.drain import in_turn


def product(a: Floats, b: Floats) -> Floats:
    """`a @ b` summed from left to right, so that all machines agree on each bit. Args: a: `[m, k]`. b: `[k, n]`."""
    return in_turn(a[:, None, :] * b.T[None, :, :])


class Adaptation:
    """A normal law of parameters y + s M z that moves to where a function is small, z standard normal.

    Of P draws the better half counts, with weights w falling in the logarithm of the rank. The mean follows them, the
    matrix M is multiplied by I + c1/2 (p p' - I) + cw/2 (sum w z z' - I), p being the path of the mean, and the step s
    grows while that path is longer than by chance.

    Args:
        start: of the mean, `[n]`. deviation: of each parameter at first. draws: P, at least 4. rng: draws.

    Example:
        >>> search = Adaptation(np.ones(3), 0.3, 12, np.random.default_rng(0))
        >>> for _ in range(60):
        ...     points = search.ask()
        ...     search.tell((points**2 @ [1.0, 10.0, 100.0]).tolist())
        >>> bool(np.abs(search.mean).max() < 1e-3)
        True
    """

    def __init__(self, start: Floats, deviation: float, draws: int, rng: np.random.Generator) -> None:
        n = len(start)
        self.mean, self.step, self.rng = np.array(start, dtype=np.float64), deviation, rng
        self.matrix, self.path = np.eye(n), np.zeros(n)
        self.draws, self.drawn = draws, np.zeros((draws, n))
        half = draws // 2
        weight = np.log(half + 0.5) - np.log(np.arange(1, half + 1))
        self.weight = weight / weight.sum()
        self.effective = float(1 / (self.weight**2).sum())
        m = self.effective
        self.keep = (m + 2) / (m + n + 5)
        self.one = 2 / ((n + 1.3) ** 2 + m)
        self.many = min(1 - self.one, 2 * (m + 1 / m - 2) / ((n + 2) ** 2 + m))
        self.damping = 1 + self.keep + 2 * max(0.0, float(((m - 1) / (n + 1)) ** 0.5) - 1)
        self.usual = n**0.5 * (1 - 1 / (4 * n) + 1 / (21 * n * n))

    def ask(self) -> Floats:
        """Points to be judged, `[P, n]`."""
        self.drawn = self.rng.standard_normal(self.drawn.shape)
        return self.mean + self.step * product(self.drawn, self.matrix.T)

    def tell(self, values: list[float]) -> None:
        """Moves. Args: values: of the points that `ask` gave, the smaller the better."""
        better = np.argsort(np.array(values), kind="stable")[: len(self.weight)]
        z, w, one = self.drawn[better], self.weight[:, None], np.eye(len(self.mean))
        middle = in_turn((w * z).T)
        self.mean = self.mean + self.step * product(middle[None], self.matrix.T)[0]
        self.path = (1 - self.keep) * self.path + (self.effective * self.keep * (2 - self.keep)) ** 0.5 * middle
        change = self.one / 2 * (np.outer(self.path, self.path) - one) + self.many / 2 * (product((w * z).T, z) - one)
        self.matrix = product(self.matrix, one + change)
        length = float(in_turn(self.path**2)) ** 0.5
        self.step *= float(np.exp(self.keep / self.damping * (length / self.usual - 1)))


class Limits:
    """What keeps values at most 0: multipliers that grow while they are not (an augmented Lagrangian).

    Args:
        count: of the values. stiffness: m of the price L g + m g^2 / 2, L being a multiplier and g a value.
        rate: share of m g by which a multiplier moves.

    Example:
        >>> limits = Limits(2)
        >>> limits.learn(np.array([0.1, -0.1]))
        >>> limits.price(np.array([0.1, -0.1])) > 0
        True
    """

    def __init__(self, count: int, stiffness: float = 20.0, rate: float = 0.3) -> None:
        self.multipliers, self.stiffness, self.rate = np.zeros(count), stiffness, rate

    def price(self, values: Floats) -> float:
        """What values cost. Args: values: `[count]`."""
        m, each = self.stiffness, self.multipliers
        inside = -(each**2) / (2 * m)
        return float(np.where(each + m * values > 0, each * values + m / 2 * values**2, inside).sum())

    def learn(self, values: Floats) -> None:
        """Moves the multipliers. Args: values: where the search is now, `[count]`."""
        self.multipliers = (self.multipliers + self.rate * self.stiffness * values).clip(min=0.0)
