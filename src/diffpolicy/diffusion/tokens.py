"""`TokenProcess`: forward processes whose states are tokens, one in each slot of a chain."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from diffpolicy.diffusion.processes import Process
from diffpolicy.errors import InputError


@dataclass(frozen=True)
class TokenProcess(Process):
    """States are integers `[.., K]`; x_0 holds the choices 0..W - 1 themselves, and a network predicts its law.

    A network reads the tokens as one-hot numbers `[.., K, V]`, V of `vocabulary`, and gives logits of x_0,
    `[.., K, W]`. All that is drawn is uniform, `[.., K]`.

    Raises:
        InputError: what only numbers have is asked for, such as `squares`.

    Example:
        >>> class Absorbing(TokenProcess):  # a token of its own hides a choice
        ...     def vocabulary(self, choices):
        ...         return choices + 1
        >>> Absorbing.discrete
        True
    """

    discrete: ClassVar[bool] = True

    def vocabulary(self, choices: int) -> int:
        """Different tokens of a slot, V, the choices first. Args: choices: W."""
        return choices

    @abstractmethod
    def terminal(self, draws: Tensor | None, allowed: Tensor | None = None) -> Tensor:
        """x_I without any x_0, int64 `[.., K]`.

        Args:
            draws: U[0, 1), `[.., K]`; None: the mode. allowed: choices that may be taken, bool `[.., K, W]`.
        """

    @abstractmethod
    def corrupt(self, x0: Tensor, t: Tensor | int, draws: Tensor) -> Tensor:
        """x_t of given x_0, int64 `[.., K]`. Args: x0: `[.., K]`. t: 0..I, `[..]`. draws: U[0, 1), `[.., K]`."""

    def squares(self, i: int) -> tuple[float, float]:
        raise InputError(f"the states of a {type(self).__name__} are tokens, which have no share of signal and noise")
