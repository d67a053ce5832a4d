"""Guidance: predictions that are moved towards a condition, or along the gradient of a value."""

from __future__ import annotations

from torch import Tensor

from diffpolicy.diffusion.processes import Process


def classifier_free(given: Tensor, null: Tensor, weight: float) -> Tensor:
    """(1 + w) y(x, c) - w y(x), what a network predicts under a condition, led away from what it predicts without.

    Ho and Salimans (2022, arXiv 2207.12598). Noise, x_0, velocity and score are affine in each other at a state, with
    coefficients that add up to those of one prediction, so that it is the same guidance of all of them; of logits it is
    that of laws p(c | x)^w p(x | c).

    Args:
        given: the prediction under the condition. null: the one without, of the same shape.
        weight: w; 0: no guidance, -1: no condition.

    Returns:
        The guided prediction, of their shape.

    Example:
        >>> classifier_free(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0]), weight=0.5)
        tensor([1., 4.])
    """
    return given + weight * (given - null)


def along_gradient(
    value: Tensor, gradient: Tensor, x: Tensor, i: int, process: Process, *, prediction: str, scale: float
) -> Tensor:
    """What is predicted when scale times a gradient is added to the score, so that eps falls by sigma_i scale gradient.

    Dhariwal and Nichol (2021, arXiv 2105.05233). Where the gradient is that of log E[exp(V(x_0)) | x_i] at x = x_i, a
    chain of many steps ends in the law of x_0 times exp(scale V), by its normalisation.

    Args:
        value: the prediction. gradient: at the state, of its shape. x: the state x_i. i: its level, 1..I.
        process: whose level it is. prediction: what kind it is, `noise`, `x0`, `velocity` or `score`.
        scale: factor of the gradient.

    Returns:
        The guided prediction, of the same kind.

    Example:
        >>> zeros, process = torch.zeros(2), FlowProcess(4)
        >>> along_gradient(zeros, torch.ones(2), zeros, 2, process, prediction="noise", scale=2.0)
        tensor([-1., -1.])
    """
    noise = process.convert(value, x, i, given=prediction, wanted="noise")
    moved = noise - scale * process.squares(i)[1] ** 0.5 * gradient
    return process.convert(moved, x, i, given="noise", wanted=prediction)
