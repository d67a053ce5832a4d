"""What a sampler's step goes to: a normal law, a categorical one, or a single point; each samples and is evaluated."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from diffpolicy.errors import InputError


class Kernel(ABC):
    """The law of the next state of a chain, given the present one.

    A state is `[.., K, W]` numbers, W of each of K slots, or `[.., K]` tokens, one of each; where K is 1 numbers may do
    without its dimension. Slots are drawn independently of each other, so their log-probabilities are told apart.

    Example:
        >>> kernel = DDIM(eta=1.0).kernel(lambda x, t, cond: x, torch.zeros(8, 3), 0, None, GaussianProcess("vp", 5))
        >>> isinstance(kernel, Kernel), kernel.draws, kernel.sample(torch.zeros(8, 3)).shape
        (True, 'normal', torch.Size([8, 3]))
    """

    draws: str | None = None
    """What a sample takes: `normal` numbers of the state's shape, `uniform` ones `[.., K]`, or None."""

    @abstractmethod
    def sample(self, draws: Tensor | None) -> Tensor:
        """The next state. Args: draws: of the kind that `draws` says."""

    @abstractmethod
    def log_prob(self, state: Tensor) -> Tensor:
        """Log-probability (density) of a next state, of each slot, `[.., K]`: numbers of a slot are added up.

        Args:
            state: `[.., K, W]`, or tokens `[.., K]`.
        """


@dataclass(frozen=True)
class Gaussian(Kernel):
    """N(mean, std^2), independent in each number.

    Args:
        mean: `[.., K, W]`.
        std: above 0, of all numbers.

    Raises:
        InputError: a sample is asked for without draws.

    Example:
        >>> kernel = Gaussian(mean=torch.zeros(4, 2), std=0.5)
        >>> kernel.sample(torch.ones(4, 2))[0], kernel.log_prob(torch.zeros(4, 2)).shape
        (tensor([0.5000, 0.5000]), torch.Size([4]))
    """

    mean: Tensor
    std: float
    draws = "normal"

    def sample(self, draws: Tensor | None) -> Tensor:
        if draws is None:
            raise InputError("this sampler needs noise of shape [steps - 1, ...], got None")
        return torch.add(self.mean, draws, alpha=self.std)

    def log_prob(self, state: Tensor) -> Tensor:
        z = (state - self.mean) / self.std
        return (-0.5 * z.square() - math.log(self.std) - 0.5 * math.log(2 * math.pi)).sum(-1)


@dataclass(frozen=True)
class Point(Kernel):
    """The state itself: nothing is drawn.

    Args:
        state: `[.., K, W]`, or tokens `[.., K]`.

    Raises:
        InputError: a log-probability is asked for, which a point has not.

    Example:
        >>> Point(torch.zeros(2)).sample(None)
        tensor([0., 0.])
    """

    state: Tensor
    draws = None

    def sample(self, draws: Tensor | None) -> Tensor:
        return self.state

    def log_prob(self, state: Tensor) -> Tensor:
        raise InputError(
            "a step that draws nothing has no density; give the sampler a min_std, or use one that adds noise"
        )


@dataclass(frozen=True)
class Categorical(Kernel):
    """One token in each slot, drawn by inversion; without draws the likeliest is taken.

    Args:
        logits: `[.., K, W]`, of W tokens.

    Example:
        >>> kernel = Categorical(torch.tensor([0.2, 0.8]).log().expand(3, 2))
        >>> kernel.sample(None), kernel.sample(torch.tensor([0.1, 0.3, 0.9]))
        (tensor([1, 1, 1]), tensor([0, 1, 1]))
        >>> kernel.log_prob(torch.tensor([0, 1, 1])).exp()
        tensor([0.2000, 0.8000, 0.8000])
    """

    logits: Tensor
    draws = "uniform"

    @classmethod
    def of(cls, chance: Tensor) -> Categorical:
        """That of probabilities, with gradients that stay finite where one is 0. Args: chance: `[.., K, W]`."""
        return cls(torch.where(chance > 0, chance.clamp_min(torch.finfo(chance.dtype).tiny).log(), -math.inf))

    def sample(self, draws: Tensor | None) -> Tensor:
        if draws is None:
            return self.logits.argmax(-1)
        chance = self.logits.softmax(-1)
        total = chance.cumsum(-1)
        # the first token whose total is above the draw, and whose own chance is: sums may round either way on a GPU
        above = (total > draws.to(total).unsqueeze(-1) * (total[..., -1:] * (1 - 1e-6))) & (chance > 0)
        number = torch.arange(chance.shape[-1], device=chance.device)
        return torch.where(above, number, chance.shape[-1] - 1).min(-1).values

    def log_prob(self, state: Tensor) -> Tensor:
        return self.logits.log_softmax(-1).gather(-1, state.long().unsqueeze(-1)).squeeze(-1)


def over_slots(log_prob: Tensor, valid: Tensor | None = None) -> Tensor:
    """What slots have together: the sum over those that exist.

    Args:
        log_prob: of each, `[.., K]`.
        valid: which exist, bool `[.., K]`; None: all.

    Returns:
        `[..]`.

    Example:
        >>> over_slots(torch.tensor([1.0, 2.0]), torch.tensor([True, False]))
        tensor(1.)
    """
    return (log_prob if valid is None else log_prob.masked_fill(~valid, 0.0)).sum(-1)
