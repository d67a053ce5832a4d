"""`DDIM` and DDPM as functions of a noise schedule and one callable, for those who have no process and no policy."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffpolicy.diffusion.processes import GaussianProcess
from diffpolicy.diffusion.sampler import DDIM, ReverseStep
from diffpolicy.diffusion.schedules import NoiseSchedule
from diffpolicy.errors import InputError

Denoise = Callable[[Tensor, int], Tensor]


def timesteps(schedule: NoiseSchedule, steps: int | None = None) -> list[int]:
    """I = t_1 > t_2 > ... > t_steps >= 1, evenly spaced over the schedule.

    Args:
        schedule: has I steps.
        steps: how many are taken, from 1 to I; None: all.

    Returns:
        The times at which a chain calls its network, `steps` of them.

    Raises:
        InputError: the schedule has fewer steps, or none is asked for.

    Example:
        >>> timesteps(NoiseSchedule.named("vp", 10), steps=4)
        [10, 8, 5, 3]
    """
    return list(DDIM(steps=steps).grid(GaussianProcess(schedule.values[1:])))[:-1]


def reverse_steps(
    schedule: NoiseSchedule, steps: int | None = None, eta: float = 1.0, prediction: str = "noise"
) -> list[ReverseStep]:
    """The steps of the family of DDIM: eta = 0 is DDIM, eta = 1 is ancestral DDPM.

    Song et al. 2021, arXiv 2010.02502, eq. 12; Ho et al. 2020, arXiv 2006.11239.

    With x0 = (x_i - sqrt(1 - abar_i) eps) / sqrt(abar_i) and s = eta sqrt((1 - abar_j) / (1 - abar_i)) sqrt(1 -
    abar_i / abar_j), x_j = sqrt(abar_j) x0 + sqrt(1 - abar_j - s^2) eps + s z. It is linear in x_i, eps and z, so
    each step is three numbers. A network that predicts x0 instead gives eps = (x_i - sqrt(abar_i) x0) / sqrt(1 -
    abar_i), and the same step is linear in x_i, x0 and z.

    Args:
        schedule, steps: of `timesteps`.
        eta: share of the posterior's noise that a step draws, from 0 to 1.
        prediction: `noise`, or `x0`: then a chain's end is the network's last output, which nothing amplifies.

    Returns:
        A step for each of the times of `timesteps`, for `run`; the last draws nothing.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> [(step.i, step.spread > 0) for step in reverse_steps(NoiseSchedule.named("vp", 5), steps=3)]
        [(5, True), (4, True), (2, False)]
    """
    process = GaussianProcess(schedule.values[1:])
    return list(DDIM(eta=eta, prediction=prediction, steps=steps).reverse_steps(process))


def run(denoise: Denoise, x: Tensor, path: list[ReverseStep], noise: Tensor | None = None) -> Tensor:
    """Follows reverse steps from x_I to x_0.

    Args:
        denoise: y(x, i), of the shape of x.
        x: x_I, any shape.
        path: from `reverse_steps`.
        noise: z of each step but the last, `[len(path) - 1, *x.shape]`; may be None if nothing is spread.

    Returns:
        x_0, of the shape of x.

    Raises:
        InputError: a step spreads noise, and there is none.

    Example:
        >>> path = reverse_steps(NoiseSchedule.named("vp", 5), eta=0.0, prediction="x0")
        >>> run(lambda x, i: torch.full_like(x, 7.0), torch.randn(2), path).round(decimals=3)
        tensor([7., 7.])
    """
    for k, step in enumerate(path):
        x = torch.add(step.keep * x, denoise(x, step.i), alpha=step.push)
        if step.spread:
            if noise is None:
                raise InputError("this sampler needs noise of shape [steps - 1, ...], got None")
            x = torch.add(x, noise[k], alpha=step.spread)
    return x


def ddpm(
    denoise: Denoise, x: Tensor, schedule: NoiseSchedule, steps: int | None = None, noise: Tensor | None = None
) -> Tensor:
    """Ancestral sampling with the posterior's variance (Ho et al. 2020, arXiv 2006.11239).

    Args:
        denoise: eps(x, i), of the shape of x.
        x: x_I, any shape.
        schedule: of the process, I steps.
        steps: how many are taken; None: all.
        noise: z of each step but the last, of N(0, 1), `[steps - 1, *x.shape]`.

    Returns:
        x_0, of the shape of x.

    Raises:
        InputError: there is no noise, or more steps are asked for than there are.

    Example:
        >>> schedule = NoiseSchedule.named("vp", 5)
        >>> exact = lambda x, i: x / (1 - schedule.values[i]) ** 0.5  # the noise in x_i where x_0 is always 0
        >>> bool(ddpm(exact, torch.randn(2), schedule, noise=torch.randn(4, 2)).abs().max() < 1e-5)
        True
    """
    return run(denoise, x, reverse_steps(schedule, steps, eta=1.0), noise)


def ddim(
    denoise: Denoise, x: Tensor, schedule: NoiseSchedule, steps: int | None = None, noise: Tensor | None = None
) -> Tensor:
    """The deterministic sampler (Song et al. 2021, arXiv 2010.02502).

    Args:
        denoise: eps(x, i), of the shape of x.
        x: x_I, any shape.
        schedule: of the process, I steps.
        steps: how many are taken; None: all.
        noise: not used; there, so that samplers are called alike.

    Returns:
        x_0, of the shape of x.

    Raises:
        InputError: more steps are asked for than there are.

    Example:
        >>> schedule = NoiseSchedule.named("vp", 5)
        >>> exact = lambda x, i: x / (1 - schedule.values[i]) ** 0.5  # the noise in x_i where x_0 is always 0
        >>> bool(ddim(exact, torch.randn(2), schedule, steps=2).abs().max() < 1e-5)
        True
    """
    return run(denoise, x, reverse_steps(schedule, steps, eta=0.0))
