"""`TokenProcess`: forward processes whose states are tokens, one in each slot of a chain."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
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

    def kept(self, i: int) -> float:
        """The probability that a token stands as it was, 1 at level 0, which imitation asks for. Args: i: 0..I."""
        raise InputError(f"a {type(self).__name__} does not define kept(i), how likely a token is unchanged")

    @abstractmethod
    def terminal(self, draws: Tensor | None, allowed: Tensor | None = None) -> Tensor:
        """x_I without any x_0, int64 `[.., K]`.

        Args:
            draws: U[0, 1), `[.., K]`; None: the mode. allowed: choices that may be taken, bool `[.., K, W]`.
        """

    @abstractmethod
    def corrupt(self, x0: Tensor, t: Tensor | int, draws: Tensor, allowed: Tensor | None = None) -> Tensor:
        """x_t of given x_0, int64 `[.., K]`.

        Args:
            x0: `[.., K]`. t: 0..I, of the shape of x0 or one that broadcasts to `[..]`. draws: U[0, 1), `[.., K]`.
            allowed: choices that x_0 may be, bool `[.., K, W]`; it also tells W.
        """

    def posterior(self, logits: Tensor, x: Tensor, i: int, j: int, again: float = 0.0) -> Tensor:
        """The law of x_j given x_i and a law of x_0, probabilities `[.., K, V]`.

        Args:
            logits: of x_0, `[.., K, W]`. x: x_i, `[.., K]`. i, j: levels, I >= i > j >= 0.
            again: chance that what is known is forgotten on the way, where the process can.

        Raises:
            InputError: the process has none, so that a sampler of its own goes back through it.
        """
        raise InputError(f"a {type(self).__name__} defines no posterior; pass a Sampler made for it")

    def jumps(self, logits: Tensor, x: Tensor, i: int, j: int) -> Tensor:
        """How many jumps to each token are expected from i to j if rates stay as they are at i, `[.., K, V]`.

        Args:
            logits, x, i, j: of `posterior`.

        Raises:
            InputError: the process has no rates.
        """
        raise InputError(f"a {type(self).__name__} defines no rates; pass a Sampler made for it")

    def target(self, x0: Tensor, t: Tensor | int, draws: Tensor, prediction: str = "x0") -> Tensor:
        """x_0 itself, whose law is learned by cross-entropy, `[.., K]`. Args: of `corrupt`."""
        if prediction not in ("x0", "noise"):  # a policy of tokens leaves its prediction as it comes
            raise InputError(f"a network of tokens predicts the law of x0, got prediction {prediction!r}")
        return x0

    def convert(self, value: Tensor, x: Tensor, t: Tensor | int, *, given: str, wanted: str) -> Tensor:
        """The prediction itself: tokens have no other than that of x_0. Args: of `Process.convert`."""
        if (given, wanted) != ("x0", "x0"):
            raise InputError(f"a network of tokens predicts the law of x0 alone, got {given!r} and {wanted!r}")
        return value

    def squares(self, i: int) -> tuple[float, float]:
        raise InputError(f"the states of a {type(self).__name__} are tokens, which have no levels of signal and noise")


def allowed_by(logits: Tensor) -> Tensor:
    """Which choices logits allow: those not at -1e9 (half of the least number in narrower types), or lower.

    Where nothing is allowed all are: whoever asked is told elsewhere.

    Args:
        logits: `[.., W]`.

    Returns:
        bool `[.., W]`.

    Example:
        >>> allowed_by(torch.tensor([0.0, -1e9, -torch.inf]))
        tensor([ True, False, False])
    """
    least = max(-5e8, torch.finfo(logits.dtype).min / 4)
    allowed = logits > least
    return allowed | ~allowed.any(-1, keepdim=True)
