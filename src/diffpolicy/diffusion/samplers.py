"""Samplers: pure functions from x_I to x_0 over one callable that predicts the noise, or x_0 itself."""

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
    """I = t_1 > t_2 > ... > t_steps >= 1, evenly spaced over the schedule; all of them by default."""
    return list(DDIM(steps=steps).grid(GaussianProcess(schedule.values[1:])))[:-1]


PREDICTIONS = ("noise", "x0")
"""What a network may predict."""


def reverse_steps(
    schedule: NoiseSchedule, steps: int | None = None, eta: float = 1.0, prediction: str = "noise"
) -> list[ReverseStep]:
    """The steps of the family of DDIM (Song et al. 2021, eq. 12): eta = 0 is DDIM, eta = 1 is ancestral DDPM.

    With x0 = (x_i - sqrt(1 - abar_i) eps) / sqrt(abar_i) and s = eta sqrt((1 - abar_j) / (1 - abar_i)) sqrt(1 -
    abar_i / abar_j), x_j = sqrt(abar_j) x0 + sqrt(1 - abar_j - s^2) eps + s z. It is linear in x_i, eps and z, so
    each step is three numbers. A network that predicts x0 instead gives eps = (x_i - sqrt(abar_i) x0) / sqrt(1 -
    abar_i), and the same step is linear in x_i, x0 and z.

    Args:
        schedule, steps: see `timesteps`. eta: from 0 to 1.
        prediction: `noise`, or `x0`: then a chain's end is the network's last output, which nothing amplifies.
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
    """Ancestral sampling with the posterior's variance (Ho et al. 2020). Noise `[steps - 1, *x.shape]`."""
    return run(denoise, x, reverse_steps(schedule, steps, eta=1.0), noise)


def ddim(
    denoise: Denoise, x: Tensor, schedule: NoiseSchedule, steps: int | None = None, noise: Tensor | None = None
) -> Tensor:
    """The deterministic sampler (Song et al. 2021); `noise` is not used."""
    return run(denoise, x, reverse_steps(schedule, steps, eta=0.0))


ETA = {"ddpm": 1.0, "ddim": 0.0}
"""Samplers by name, and how much noise each spreads."""
