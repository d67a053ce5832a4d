"""`ChainLaw`: how probable recorded chains are, as a `torch.distributions.Distribution` for TorchRL's losses."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from diffpolicy.errors import InputError
from diffpolicy.policies.masks import readable
from diffpolicy.policies.partial_law import PartialLaw

ALONE = (
    "this is the law of one recorded chain; act to draw a new one. Its entropy has no closed form: give a loss of "
    "TorchRL entropy_bonus=False"
)


class ChainLaw(PartialLaw):
    """The law of items' chains, at those that were recorded, `[*]`: the one action that each ended in is known.

    Ratios of it under other parameters are those of whole chains, whose expectation is that of their actions.

    Args:
        chances: log-probability of each chain, `[*]`. action: in which it ended, `[*, *event]`.

    Raises:
        InputError: the log-probability of another action is asked for.

    Example:
        >>> law = ChainLaw(torch.tensor([-0.5]), torch.tensor([2]))
        >>> law.log_prob(torch.tensor([2]))
        tensor([-0.5000])
    """

    has_rsample = False

    def __init__(self, chances: Tensor, action: Tensor) -> None:
        super().__init__(chances.shape, action.shape[chances.ndim :], validate_args=False)
        self.chances, self.action = chances, action

    def unknown(self, what: str) -> str:
        return ALONE

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability (density) of the chains that ended so, `[*]`. Args: value: their actions, `[*, *event]`."""
        ended = self.action.to(value.device)
        if readable(value) and not (value.shape == ended.shape and _alike(value, ended)):
            raise InputError(
                "the action is not the one in which the recorded chain ended, and the probability of no other is known"
            )
        return self.chances

    def sample(self, sample_shape: Any = ()) -> NoReturn:
        """Not known."""
        self._refuse("sample")

    def rsample(self, sample_shape: Any = ()) -> NoReturn:
        """Not known."""
        self._refuse("rsample")

    def entropy(self) -> NoReturn:
        """Not known."""
        self._refuse("entropy")

    @property
    def mode(self) -> Tensor:
        """The action in which each chain ended, `[*, *event]`."""
        return self.action

    @property
    def deterministic_sample(self) -> Tensor:
        """The same, by TorchRL's name for it."""
        return self.action


def _alike(value: Tensor, ended: Tensor) -> bool:
    """Whether actions are the same but for rounding; -1 is no choice."""
    if not value.is_floating_point():
        return bool(((value == ended) | (value == -1)).all())
    return torch.allclose(value, ended.to(value), atol=1e-4)
