"""Forward noising processes: how x_0 becomes noise, and what a network may predict of it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffpolicy.diffusion.schedules import NoiseSchedule
from diffpolicy.errors import InputError

PREDICTIONS = ("noise", "x0", "velocity", "score")
"""What a network may predict."""


@dataclass(frozen=True)
class Process(ABC):
    """x_i = alpha_i x_0 + sigma_i eps for i = 0..I, eps ~ N(0, 1); alpha_0 = 1, sigma_0 = 0.

    A subclass gives the squares of both. Times are steps 1..I, as a number or as an integer tensor. A state of a chain
    is `[.., K, W]`, W numbers of each of K slots; each number goes its way alone, so that `[.., W]` below is any shape.
    `TokenProcess` is the sibling whose states are tokens.

    Attributes:
        discrete: whether states are tokens instead of numbers.

    Example:
        >>> class Fading(Process):
        ...     steps = 4
        ...     def squares(self, i):
        ...         return 1 - i / 5, i / 5
        >>> Fading().corrupt(torch.tensor([2.0]), 4, draws=torch.tensor([0.0]))  # 2 sqrt(1 / 5)
        tensor([0.8944])
    """

    discrete: ClassVar[bool] = False

    @property
    @abstractmethod
    def steps(self) -> int:
        """How many levels of noise there are, I."""

    @abstractmethod
    def squares(self, i: int) -> tuple[float, float]:
        """alpha_i^2 and sigma_i^2. Args: i: 0..I."""

    def fresh(self, i: int, j: int) -> float:
        """Variance that is added from j to i, sigma_i^2 - (alpha_i / alpha_j)^2 sigma_j^2. Args: 0 <= j < i <= I."""
        (a, noise), (b, before) = self.squares(i), self.squares(j)
        return noise - a / b * before

    def terminal(self, draws: Tensor) -> Tensor:
        """x_I without any x_0: what a chain starts from. Args: draws: of N(0, 1)."""
        return draws

    def coefficients(self, t: Tensor | int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha and sigma of times, with a dimension for the state's numbers. Args: t: `[..]`. like: `[.., W]`."""
        table = torch.tensor([self.squares(i) for i in range(self.steps + 1)], dtype=torch.float64).sqrt()
        found = table.to(like)[torch.as_tensor(t, device=like.device)]
        return found[..., :1], found[..., 1:]

    def corrupt(self, x0: Tensor, t: Tensor | int, draws: Tensor) -> Tensor:
        """x_t of given x_0 and noise, `[.., W]`. Args: x0, draws: `[.., W]`. t: `[..]`, 0..I."""
        alpha, sigma = self.coefficients(t, x0)
        return alpha * x0 + sigma * draws

    def target(self, x0: Tensor, t: Tensor | int, draws: Tensor, prediction: str = "noise") -> Tensor:
        """What a network that predicts so should give at x_t, `[.., W]`. Args: of `corrupt`."""
        return self.convert(draws, self.corrupt(x0, t, draws), t, given="noise", wanted=prediction)

    def convert(self, value: Tensor, x: Tensor, t: Tensor | int, *, given: str, wanted: str) -> Tensor:
        """A prediction at x_t as another one, `[.., W]`.

        With v the velocity: `noise` eps, `x0`, `velocity` alpha eps - sigma x_0 (Salimans and Ho 2022; eps - x_0 in a
        flow), `score` -eps / sigma.

        Args:
            value: the prediction. x: x_t. t: 1..I.
            given, wanted: of `PREDICTIONS`.

        Raises:
            InputError: no such prediction.
        """
        for word in (given, wanted):
            if word not in PREDICTIONS:
                raise InputError(f"prediction must be one of {', '.join(PREDICTIONS)}, got {word!r}")
        alpha, sigma = self.coefficients(t, x)
        to_noise: dict[str, Callable[[], Tensor]] = {
            "noise": lambda: value,
            "x0": lambda: (x - alpha * value) / sigma,
            "velocity": lambda: self._noise_of_velocity(value, x, alpha, sigma),
            "score": lambda: -sigma * value,
        }
        if given == wanted:
            return value
        eps = to_noise[given]()
        if wanted == "noise":
            return eps
        if wanted == "score":
            return -eps / sigma
        x0 = value if given == "x0" else (x - sigma * eps) / alpha
        return x0 if wanted == "x0" else self._velocity(x0, eps, alpha, sigma)

    def of_velocity(self, i: int) -> tuple[float, float, float, float]:
        """p, q, r, u of x_0 = p x + q v and eps = r x + u v at a step. Args: i: 1..I."""
        alpha, sigma = map(math.sqrt, self.squares(i))
        return alpha, -sigma, sigma, alpha

    def _velocity(self, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha * eps - sigma * x0

    def _noise_of_velocity(self, v: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return sigma * x + alpha * v


@dataclass(frozen=True)
class GaussianProcess(Process):
    """The variance-preserving process of DDPM: alpha_i^2 = abar_i, sigma_i^2 = 1 - abar_i.

    Ho et al. 2020, arXiv 2006.11239.

    Args:
        schedule: its name, `vp`, `linear` or `cosine`, or abar_1 > ... > abar_I themselves.
        levels: how many of a name, I.

    Raises:
        InputError: no schedule of that name, or shares that do not fall from 1 to above 0.

    Example:
        >>> round(GaussianProcess("vp", 5).squares(5)[0], 6)
        0.006409
    """

    schedule: str | tuple[float, ...] = "vp"
    levels: int = 5

    def __post_init__(self) -> None:
        named = isinstance(self.schedule, str)
        made = NoiseSchedule.named(self.schedule, self.levels) if named else NoiseSchedule(self.schedule)  # type: ignore[arg-type]
        object.__setattr__(self, "_values", made.values)

    @property
    def values(self) -> tuple[float, ...]:
        """abar_0 = 1, abar_1, ..., abar_I."""
        known: tuple[float, ...] = self._values  # type: ignore[attr-defined]
        return known

    @property
    def steps(self) -> int:
        return len(self.values) - 1

    def squares(self, i: int) -> tuple[float, float]:
        return self.values[i], 1 - self.values[i]

    def fresh(self, i: int, j: int) -> float:
        return 1 - self.values[i] / self.values[j]


@dataclass(frozen=True)
class FlowProcess(Process):
    """The straight path of flow matching: x_t = (1 - t) x_0 + t eps at t = i / I.

    Lipman et al. 2023, arXiv 2210.02747. The last level is a hair before noise alone, so that x_0 can be told of it:
    alpha_I = `least`.

    Args:
        levels: their number I.
        least: the share of x_0 that is left at the end.

    Example:
        >>> process = FlowProcess(levels=4)
        >>> x0, noise = torch.zeros(1), torch.ones(1)
        >>> process.corrupt(x0, 1, noise), process.target(x0, 1, noise, "velocity")
        (tensor([0.2500]), tensor([1.]))
    """

    levels: int = 10
    least: float = 1e-3

    @property
    def steps(self) -> int:
        return self.levels

    def squares(self, i: int) -> tuple[float, float]:
        alpha = max(1 - i / self.levels, self.least)
        return alpha**2, (1 - alpha) ** 2

    def of_velocity(self, i: int) -> tuple[float, float, float, float]:
        alpha, sigma = map(math.sqrt, self.squares(i))
        return 1.0, -sigma, 1.0, alpha

    def _velocity(self, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return eps - x0

    def _noise_of_velocity(self, v: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return x + alpha * v
