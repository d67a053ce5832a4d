"""Noise schedules: the coefficients of a forward process x_i = sqrt(abar_i) x_0 + sqrt(1 - abar_i) eps, i = 0..I."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy.errors import InputError


class NoiseSchedule(nn.Module):
    """Cumulative signal shares abar_0 = 1 > abar_1 > ... > abar_I > 0 of a variance-preserving process.

    Args:
        alpha_bar: abar_1..abar_I.

    Raises:
        InputError: the shares do not fall from 1, or reach 0.

    Example:
        >>> schedule = NoiseSchedule.named("vp", steps=5)
        >>> round(float(schedule.alpha_bar[-1]), 6)
        0.006409
    """

    alpha_bar: Tensor

    def __init__(self, alpha_bar: Sequence[float]) -> None:
        super().__init__()
        try:
            values = [1.0, *map(float, alpha_bar)]
        except (TypeError, ValueError):
            raise InputError(f"alpha_bar must be a list of numbers, got {check.show(alpha_bar)}") from None
        if len(values) < 2 or any(not 0 < b < a for a, b in zip(values, values[1:], strict=False)):
            raise InputError(f"a noise schedule must fall from 1 and stay above 0, got {values}")
        self.values = tuple(values)
        self.register_buffer("alpha_bar", torch.tensor(values, dtype=torch.float64), persistent=False)

    @property
    def steps(self) -> int:
        """Number of steps, I."""
        return len(self.values) - 1

    @classmethod
    def named(cls, name: str, steps: int) -> NoiseSchedule:
        """`vp`, `linear` or `cosine`, with I = `steps`."""
        check.choice(name, "schedule", SCHEDULES)
        steps = check.integer(steps, "steps", least=1, most=_limits.CHAIN)
        bars, product = [], 1.0
        for beta in SCHEDULES[name](steps):
            product *= 1.0 - beta
            bars.append(product)
        return cls(bars)


def vp(steps: int, b_min: float = 0.1, b_max: float = 10.0) -> list[float]:
    """1 - beta_i = exp(-b_min / I - (b_max - b_min)(2i - 1) / (2 I^2)) for i = 1..I.

    The schedule of LAD-TS (arXiv 2412.18212) and D2SAC, from Xiao et al. 2022 (arXiv 2112.07804). It is made for few
    steps: whatever I is, abar_I = exp(-(b_min + b_max) / 2), 0.0064 as it comes.

    Args:
        steps: I, at least 1.
        b_min, b_max: rates of the continuous process at its start and end.

    Returns:
        beta_1..beta_I.

    Example:
        >>> [round(beta, 3) for beta in vp(5)]
        [0.196, 0.459, 0.636, 0.755, 0.835]
    """
    return [1 - math.exp(-b_min / steps - (b_max - b_min) * (2 * i - 1) / (2 * steps**2)) for i in range(1, steps + 1)]


def linear(steps: int) -> list[float]:
    """The linear betas of DDPM, 1e-4..0.02 in 1000 steps, rescaled to end in noise after I.

    Ho et al. 2020, arXiv 2006.11239. None is above 0.999, which with few steps makes the last ones steep.

    Args:
        steps: I, at least 1.

    Returns:
        beta_1..beta_I.

    Example:
        >>> linear(1000)[0], round(linear(1000)[-1], 6)
        (0.0001, 0.02)
    """
    if steps == 1:
        return [0.999]
    scale = 1000 / steps
    first, last = scale * 1e-4, scale * 0.02
    return [min(first + (last - first) * i / max(steps - 1, 1), 0.999) for i in range(steps)]


def cosine(steps: int, s: float = 0.008) -> list[float]:
    """abar_i = f(i) / f(0), f(i) = cos^2((i / I + s) / (1 + s) pi / 2), with betas of at most 0.999.

    Nichol and Dhariwal 2021, arXiv 2102.09672.

    Args:
        steps: I, at least 1.
        s: keeps the first betas from vanishing.

    Returns:
        beta_1..beta_I.

    Example:
        >>> [round(beta, 3) for beta in cosine(5)]
        [0.101, 0.28, 0.474, 0.724, 0.999]
    """

    def f(i: int) -> float:
        return math.cos((i / steps + s) / (1 + s) * math.pi / 2) ** 2

    return [min(1 - f(i) / f(i - 1), 0.999) for i in range(1, steps + 1)]


SCHEDULES: dict[str, Callable[[int], list[float]]] = {"vp": vp, "linear": linear, "cosine": cosine}
