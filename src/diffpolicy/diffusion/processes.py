"""Forward noising processes: how x_0 becomes noise, and what a network may predict of it."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy.diffusion.continuous import FlowSchedule, Schedule
from diffpolicy.diffusion.predictions import (
    PREDICTIONS,
    Number,
    noise_of_score,
    noise_of_velocity,
    noise_of_x0,
    score_of_noise,
    velocity_of,
    x0_of_noise,
    x0_of_velocity,
)
from diffpolicy.diffusion.schedules import NoiseSchedule
from diffpolicy.errors import InputError

MOST_LEFT = 0.01
"""Share of x_0, alpha^2 / (alpha^2 + sigma^2), above which a process says that it does not end in its prior."""


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
        """Variance that is added from j to i, sigma_i^2 - (alpha_i / alpha_j)^2 sigma_j^2.

        Args:
            i, j: levels, 0 <= j < i <= I.
        """
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
        flow), `score` -eps / sigma. Each way is a function of its own, such as `x0_of_noise`.

        Args:
            value: the prediction. x: x_t. t: 1..I.
            given, wanted: of `PREDICTIONS`.

        Raises:
            InputError: no such prediction.
        """
        for word in (given, wanted):
            check.choice(word, "prediction", PREDICTIONS)
        if given == wanted:
            return value
        alpha, sigma = map(math.sqrt, self.squares(t)) if isinstance(t, int) else self.coefficients(t, x)
        d_alpha, d_sigma = self.along(alpha, sigma)
        if wanted == "x0" and given == "velocity":
            return x0_of_velocity(value, x, alpha, sigma, d_alpha, d_sigma)
        to_noise: dict[str, Callable[[], Tensor]] = {
            "noise": lambda: value,
            "x0": lambda: noise_of_x0(value, x, alpha, sigma),
            "velocity": lambda: noise_of_velocity(value, x, alpha, sigma, d_alpha, d_sigma),
            "score": lambda: noise_of_score(value, sigma),
        }
        eps = to_noise[given]()
        if wanted == "noise":
            return eps
        if wanted == "score":
            return score_of_noise(eps, sigma)
        x0 = value if given == "x0" else x0_of_noise(eps, x, alpha, sigma)
        return x0 if wanted == "x0" else velocity_of(x0, eps, d_alpha, d_sigma)

    def along(self, alpha: Number, sigma: Number) -> tuple[Number, Number]:
        """The derivatives of alpha and sigma along the path, which say what a velocity is.

        Args:
            alpha, sigma: at a time.
        """
        return -sigma, alpha

    def of_velocity(self, i: int) -> tuple[float, float, float, float]:
        """p, q, r, u of x_0 = p x + q v and eps = r x + u v at a step. Args: i: 1..I."""
        alpha, sigma = map(math.sqrt, self.squares(i))
        d_alpha, d_sigma = (float(d) for d in self.along(alpha, sigma))
        whole = alpha * d_sigma - sigma * d_alpha
        return d_sigma / whole, -sigma / whole, -d_alpha / whole, alpha / whole


@dataclass(frozen=True)
class GaussianProcess(Process):
    """Noising along a schedule; variance-preserving ones have alpha_i^2 = abar_i, sigma_i^2 = 1 - abar_i.

    From DDPM (Ho et al. 2020, arXiv 2006.11239). A chain starts from the prior whatever x_0 was, so a schedule that
    leaves more than a hundredth of x_0 at its end is warned of.

    Args:
        schedule: its name, `vp`, `linear` or `cosine`; abar_1 > ... > abar_I themselves, or the `NoiseSchedule` of
            them; or a `Schedule`, such as `EDMSchedule()`. levels: how many of a name or of a `Schedule`.

    Raises:
        InputError: no such schedule, or it is that of a `FlowProcess`.

    Example:
        >>> round(GaussianProcess("vp", 5).squares(5)[0], 6)
        0.006409
    """

    schedule: str | tuple[float, ...] | NoiseSchedule | Schedule = "vp"
    levels: int = 5

    def __post_init__(self) -> None:
        if isinstance(self.schedule, Mapping):  # as a file has it
            object.__setattr__(self, "schedule", Schedule.from_dict(self.schedule))
        schedule = self.schedule
        if isinstance(schedule, FlowSchedule):
            raise InputError("a straight path has velocities of its own; use a FlowProcess instead of a FlowSchedule")
        if isinstance(schedule, Schedule):
            object.__setattr__(self, "levels", check.integer(self.levels, "levels", least=1, most=_limits.CHAIN))
            squares = _squares_of(schedule, self.levels)
        else:
            if isinstance(schedule, str):
                made = NoiseSchedule.named(schedule, self.levels)
            else:
                made = schedule if isinstance(schedule, NoiseSchedule) else NoiseSchedule(schedule)
                object.__setattr__(self, "schedule", made.values[1:])  # as a file has it
            squares = tuple((bar, 1 - bar) for bar in made.values)
        object.__setattr__(self, "_squares", squares)
        left = squares[-1][0] / sum(squares[-1])
        if left > MOST_LEFT:
            warnings.warn(
                f"the schedule does not end in noise: alpha_bar is {left:.4g} after its last step, so that much of x_0 "
                "is left where a chain starts from noise alone; use more noise or another schedule",
                stacklevel=3,
            )

    @property
    def _known(self) -> tuple[tuple[float, float], ...]:
        known: tuple[tuple[float, float], ...] = self._squares  # type: ignore[attr-defined]
        return known

    @property
    def values(self) -> tuple[float, ...]:
        """abar_0 = 1, abar_1, ..., abar_I, the squares of alpha."""
        return tuple(a for a, _ in self._known)

    @property
    def steps(self) -> int:
        return len(self._known) - 1

    def squares(self, i: int) -> tuple[float, float]:
        return self._known[i]

    def fresh(self, i: int, j: int) -> float:
        if isinstance(self.schedule, Schedule):
            return super().fresh(i, j)
        return 1 - self._known[i][0] / self._known[j][0]

    def terminal(self, draws: Tensor) -> Tensor:
        std = self.schedule.prior_std if isinstance(self.schedule, Schedule) else 1.0
        return draws if std == 1.0 else std * draws


def _squares_of(schedule: Schedule, levels: int) -> tuple[tuple[float, float], ...]:
    at = schedule.level(torch.arange(1, levels + 1, dtype=torch.float64), levels)
    pairs = zip(at.alpha.square().tolist(), at.sigma.square().tolist(), strict=True)
    return ((1.0, 0.0), *((a, noise) for a, noise in pairs))


@dataclass(frozen=True)
class FlowProcess(Process):
    """The straight path of flow matching, x_t = (1 - t) x_0 + t eps at t = i / I; its velocity is eps - x_0.

    From Lipman et al. (2023, arXiv 2210.02747) and rectified flow (Liu et al. 2023, arXiv 2209.03003).

    The last level is a hair before noise alone, so that x_0 can be told of it: alpha_I = `least`, or half of alpha at
    the level before where that is less, so that no two levels are the same.

    Args:
        levels: their number I.
        least: the share of x_0 that is left at the end, above 0 and below 1.

    Raises:
        InputError: no level, or such a share is not between 0 and 1.

    Example:
        >>> process = FlowProcess(levels=4)
        >>> x0, noise = torch.zeros(1), torch.ones(1)
        >>> process.corrupt(x0, 1, noise), process.target(x0, 1, noise, "velocity")
        (tensor([0.2500]), tensor([1.]))
    """

    levels: int = 10
    least: float = 1e-3

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", check.integer(self.levels, "levels", least=1, most=_limits.CHAIN))
        if not 0 < check.number(self.least, "least") < 1:
            raise InputError(f"least must be above 0 and below 1, got {self.least}")

    @property
    def steps(self) -> int:
        return self.levels

    def squares(self, i: int) -> tuple[float, float]:
        alpha = min(self.least, 0.5 / self.levels) if i == self.levels else 1 - i / self.levels
        return alpha**2, (1 - alpha) ** 2

    def along(self, alpha: Number, sigma: Number) -> tuple[Number, Number]:
        return -1.0, 1.0
