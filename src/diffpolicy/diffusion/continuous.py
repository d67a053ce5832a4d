"""Schedules in continuous time: alpha(t) and sigma(t) of x_t = alpha x_0 + sigma eps, and their derivatives."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from diffpolicy import _validate as check
from diffpolicy._suggest import meant
from diffpolicy.errors import InputError

Level = TypeVar("Level", Tensor, float)


@dataclass(frozen=True)
class Coefficients:
    """What a schedule is at some times, each of the times' shape.

    Args:
        alpha, sigma: shares of x_0 and of the noise. d_alpha, d_sigma: their derivatives by the time.

    Example:
        >>> at = FlowSchedule(end=1.0).at(torch.tensor(0.25))
        >>> float(at.alpha), float(at.sigma), float(at.d_alpha), float(at.d_sigma)
        (0.75, 0.25, -1.0, 1.0)
    """

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor


@dataclass(frozen=True)
class Schedule(ABC):
    """Falling alpha(t) and rising sigma(t) for t from 0, x_0, to 1, noise; a `GaussianProcess` takes levels of it.

    Example:
        >>> class Slow(Schedule):
        ...     def at(self, t):
        ...         return Coefficients(1 - 0.1 * t, t, torch.full_like(t, -0.1), torch.ones_like(t))
        >>> round(Slow().rest, 2)
        0.45
    """

    @abstractmethod
    def at(self, t: Tensor) -> Coefficients:
        """What it is at times. Args: t: 0..1, any shape."""

    def time(self, i: Level, levels: int) -> Level:
        """The time of a level of a process, i / I. Args: i: 1..I. levels: I."""
        return i / levels

    def level(self, i: Tensor, levels: int) -> Coefficients:
        """What it is at levels, with derivatives by the level. Args: i: 1..I, any shape. levels: I."""
        found = self.at(self.time(i, levels))
        pace = self.time(2.0, levels) - self.time(1.0, levels)  # times are evenly spaced
        return Coefficients(found.alpha, found.sigma, found.d_alpha * pace, found.d_sigma * pace)

    @property
    def prior_std(self) -> float:
        """Standard deviation of what a chain starts from."""
        return 1.0

    @property
    def rest(self) -> float:
        """The share of x_0 that is left at the end, alpha^2 / (alpha^2 + sigma^2); alpha_bar where they add up to 1."""
        end = self.at(torch.ones((), dtype=torch.float64))
        return float(end.alpha.square() / (end.alpha.square() + end.sigma.square()))

    @staticmethod
    def from_dict(form: Mapping[str, Any]) -> Schedule:
        """The schedule of a file, `kind` and fields; its class is one that is imported.

        Raises:
            InputError: no such class, or fields that it does not take.
        """
        told = dict(form)
        kind = str(told.pop("kind", None))
        kinds = {cls.__qualname__: cls for cls in _below(Schedule)}
        if kind.rpartition(":")[2] not in kinds:
            raise InputError(f"schedule must be one of {', '.join(kinds)}, got {check.show(form)}{meant(kind, kinds)}")
        try:
            return kinds[kind.rpartition(":")[2]](**told)
        except TypeError as error:
            raise InputError(f"schedule {kind}: {error}") from None


def _below(cls: type[Any]) -> Iterator[type[Schedule]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _below(sub)


@dataclass(frozen=True)
class VPSchedule(Schedule):
    """Betas that rise linearly: log alpha = -(b_min t + (b_max - b_min) t^2 / 2) / 2, alpha^2 + sigma^2 = 1.

    The variance-preserving process of Song et al. (2021, arXiv 2011.13456). With b_max = 20 it is the limit of DDPM's
    linear betas; with 10 its levels are those of `vp`, LAD-TS's.

    Args:
        b_min, b_max: beta(0) and beta(1), by unit of time.

    Raises:
        InputError: they do not rise from 0 or above.

    Example:
        >>> round(VPSchedule(b_max=10.0).rest, 6)
        0.006409
    """

    b_min: float = 0.1
    b_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 <= self.b_min <= self.b_max < math.inf or self.b_max == 0:
            raise InputError(f"b_min and b_max must be 0 <= b_min <= b_max, got {self.b_min} and {self.b_max}")

    def at(self, t: Tensor) -> Coefficients:
        log_alpha = -(self.b_min * t + (self.b_max - self.b_min) * t.square() / 2) / 2
        beta = self.b_min + (self.b_max - self.b_min) * t
        alpha, sigma = log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt()
        return Coefficients(alpha, sigma, -beta * alpha / 2, beta * alpha.square() / (2 * sigma))


@dataclass(frozen=True)
class CosineSchedule(Schedule):
    """alpha = cos(phi) / cos(phi_0), phi = (end t + s) / (1 + s) pi / 2, alpha^2 + sigma^2 = 1.

    From Nichol and Dhariwal (2021, arXiv 2102.09672); alpha would be 0 at its end, so time stops before it, as in Lu
    et al. (2022, arXiv 2206.00927).

    Args:
        s: keeps the noise of the first levels from being too small. end: where time stops, below 1.

    Raises:
        InputError: s is negative, or the end is not between 0 and 1.

    Example:
        >>> round(CosineSchedule().rest, 5)
        7e-05
    """

    s: float = 0.008
    end: float = 0.9946

    def __post_init__(self) -> None:
        if not (0 <= self.s < math.inf and 0 < self.end < 1):
            raise InputError(f"s must be at least 0 and end between 0 and 1, got {self.s} and {self.end}")

    def at(self, t: Tensor) -> Coefficients:
        pace = self.end / (1 + self.s) * math.pi / 2
        first = self.s / (1 + self.s) * math.pi / 2
        phi = first + pace * t
        alpha, d_alpha = phi.cos() / math.cos(first), -pace * phi.sin() / math.cos(first)
        # 1 - cos^2(phi) / cos^2(first), without what cancels where t is small
        sigma = ((phi - first).sin() * (phi + first).sin()).sqrt() / math.cos(first)
        return Coefficients(alpha, sigma, d_alpha, -alpha * d_alpha / sigma)


@dataclass(frozen=True)
class FlowSchedule(Schedule):
    """The straight path, alpha = 1 - end t and sigma = end t (Lipman et al. 2023, arXiv 2210.02747).

    A `FlowProcess` has its levels, and says what a velocity is there.

    Args:
        end: where time stops, at most 1; below it x_0 can be told of the noise that is predicted.

    Raises:
        InputError: the end is not above 0 and at most 1.

    Example:
        >>> float(FlowSchedule().at(torch.tensor(0.5, dtype=torch.float64)).sigma)
        0.4995
    """

    end: float = 0.999

    def __post_init__(self) -> None:
        if not 0 < self.end <= 1:
            raise InputError(f"end must be above 0 and at most 1, got {self.end}")

    def at(self, t: Tensor) -> Coefficients:
        pace = torch.full_like(t, self.end)
        return Coefficients(1 - self.end * t, self.end * t, -pace, pace)


@dataclass(frozen=True)
class EDMSchedule(Schedule):
    """Noise that explodes along a polynomial, alpha = 1 and sigma = (a + t (b - a))^rho (Karras et al. 2022).

    With a = sigma_min^(1 / rho) and b = sigma_max^(1 / rho); eq. 5 of arXiv 2206.00364. Level 1 has sigma_min and level
    I sigma_max; x_0 itself is level 0. States grow as sigma does, and networks read them as they are.

    Args:
        sigma_min, sigma_max: the least noise, and that which a chain starts from. rho: how much finer the steps are
            where there is little noise; 1: evenly spaced sigmas.

    Raises:
        InputError: not 0 < sigma_min < sigma_max, or rho is not above 0.

    Example:
        >>> [round(float(s), 3) for s in EDMSchedule().level(torch.arange(1, 6).double(), 5).sigma]
        [0.002, 0.17, 2.515, 17.528, 80.0]
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        if not (0 < self.sigma_min < self.sigma_max < math.inf and 0 < self.rho < math.inf):
            given = f"{self.sigma_min}, {self.sigma_max} and {self.rho}"
            raise InputError(f"sigmas must be 0 < sigma_min < sigma_max, and rho above 0, got {given}")

    def time(self, i: Level, levels: int) -> Level:
        """Of level i, (i - 1) / (I - 1). Args: i: 1..I. levels: I."""
        return (i - 1) / (levels - 1) if levels > 1 else i

    def at(self, t: Tensor) -> Coefficients:
        first, last = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        root = first + t * (last - first)
        one = torch.ones_like(t)
        d_sigma = self.rho * root ** (self.rho - 1) * (last - first)
        return Coefficients(one, root**self.rho, torch.zeros_like(t), d_sigma)

    @property
    def prior_std(self) -> float:
        return self.sigma_max
