"""What a network may predict of x = alpha x_0 + sigma eps, turned into each other: one function each.

All take numbers or tensors that broadcast. The velocity is v = d_alpha x_0 + d_sigma eps, the derivative of x along the
path; by the angle of a variance-preserving process (d_alpha = -sigma, d_sigma = alpha) it is that of Salimans and Ho
(2022, arXiv 2202.00512), and on a straight path (d_alpha = -1, d_sigma = 1) that of flow matching.
"""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor

Number: TypeAlias = "Tensor | float"
SAMPLED = ("noise", "x0", "velocity")
"""What a network predicts where a sampler goes by it."""
PREDICTIONS = (*SAMPLED, "score")
"""What a network may predict."""


def x0_of_noise(noise: Tensor, x: Tensor, alpha: Number, sigma: Number) -> Tensor:
    """(x - sigma eps) / alpha.

    Args:
        noise: eps as predicted. x: the state. alpha, sigma: of its time.

    Returns:
        x_0, of the state's shape.

    Example:
        >>> x0_of_noise(torch.tensor(3.0), torch.tensor(2.0), 0.5, 0.5)
        tensor(1.)
    """
    return (x - sigma * noise) / alpha


def noise_of_x0(x0: Tensor, x: Tensor, alpha: Number, sigma: Number) -> Tensor:
    """(x - alpha x_0) / sigma.

    Args:
        x0: as predicted. x: the state. alpha, sigma: of its time.

    Returns:
        eps, of the state's shape.

    Example:
        >>> noise_of_x0(torch.tensor(1.0), torch.tensor(2.0), 0.5, 0.5)
        tensor(3.)
    """
    return (x - alpha * x0) / sigma


def score_of_noise(noise: Tensor, sigma: Number) -> Tensor:
    """-eps / sigma, the gradient of log p(x) where eps is its expectation.

    Args:
        noise: eps as predicted. sigma: of its time.

    Returns:
        The score, of the state's shape.

    Example:
        >>> score_of_noise(torch.tensor(1.0), 0.5)
        tensor(-2.)
    """
    return -noise / sigma


def noise_of_score(score: Tensor, sigma: Number) -> Tensor:
    """-sigma score.

    Args:
        score: as predicted. sigma: of its time.

    Returns:
        eps, of the state's shape.

    Example:
        >>> noise_of_score(torch.tensor(-2.0), 0.5)
        tensor(1.)
    """
    return -sigma * score


def velocity_of(x0: Tensor, noise: Tensor, d_alpha: Number, d_sigma: Number) -> Tensor:
    """d_alpha x_0 + d_sigma eps.

    Args:
        x0, noise: as predicted. d_alpha, d_sigma: derivatives of alpha and sigma along the path.

    Returns:
        The velocity, of the state's shape.

    Example:
        >>> velocity_of(torch.tensor(1.0), torch.tensor(3.0), -1.0, 1.0)
        tensor(2.)
    """
    return d_alpha * x0 + d_sigma * noise


def x0_of_velocity(
    velocity: Tensor, x: Tensor, alpha: Number, sigma: Number, d_alpha: Number, d_sigma: Number
) -> Tensor:
    """(d_sigma x - sigma v) / (alpha d_sigma - sigma d_alpha).

    Args:
        velocity: as predicted. x: the state. alpha, sigma, d_alpha, d_sigma: of its time.

    Returns:
        x_0, of the state's shape.

    Example:
        >>> x0_of_velocity(torch.tensor(2.0), torch.tensor(2.0), 0.5, 0.5, -1.0, 1.0)
        tensor(1.)
    """
    return (d_sigma * x - sigma * velocity) / (alpha * d_sigma - sigma * d_alpha)


def noise_of_velocity(
    velocity: Tensor, x: Tensor, alpha: Number, sigma: Number, d_alpha: Number, d_sigma: Number
) -> Tensor:
    """(alpha v - d_alpha x) / (alpha d_sigma - sigma d_alpha).

    Args:
        velocity: as predicted. x: the state. alpha, sigma, d_alpha, d_sigma: of its time.

    Returns:
        eps, of the state's shape.

    Example:
        >>> noise_of_velocity(torch.tensor(2.0), torch.tensor(2.0), 0.5, 0.5, -1.0, 1.0)
        tensor(3.)
    """
    return (alpha * velocity - d_alpha * x) / (alpha * d_sigma - sigma * d_alpha)
