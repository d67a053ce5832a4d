"""Processes of tokens: choices that are hidden (`MaskedProcess`) or replaced by any allowed one (`UniformProcess`)."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy.diffusion.kernels import Categorical
from diffpolicy.diffusion.tokens import TokenProcess, allowed_by
from diffpolicy.errors import InputError

SHAPES = ("linear", "cosine")
MOST_JUMPS = 60.0
"""Expected jumps of a slot in a step, above which more make no difference: it jumps but for e^-60."""


@dataclass(frozen=True)
class KeptProcess(TokenProcess):
    """A token stands as it was up to level i with probability kept_i, which falls from 1 to 0: the end is the prior.

    Args:
        levels: I, how many. shape: `linear`, kept_i = 1 - i / I, or `cosine`, cos(pi i / 2 I).

    Raises:
        InputError: no such shape, or no level.

    Example:
        >>> MaskedProcess(4).kept(1)
        0.75
    """

    levels: int = 10
    shape: str = "linear"

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", check.integer(self.levels, "levels", least=1, most=_limits.CHAIN))
        check.choice(self.shape, "shape", SHAPES)

    @property
    def steps(self) -> int:
        return self.levels

    def kept(self, i: int) -> float:
        """The probability that a token stands as it was. Args: i: 0..I."""
        if i == self.levels:
            return 0.0
        return 1 - i / self.levels if self.shape == "linear" else math.cos(math.pi / 2 * i / self.levels)

    @abstractmethod
    def marginal(self, x0: Tensor, t: Tensor | int, allowed: Tensor) -> Tensor:
        """The law of x_t given x_0, probabilities `[.., K, V]`. Args: of `corrupt`."""

    def corrupt(self, x0: Tensor, t: Tensor | int, draws: Tensor, allowed: Tensor | None = None) -> Tensor:
        if allowed is None:
            raise InputError(f"a {type(self).__name__} corrupts into what is allowed; pass allowed, bool [.., K, W]")
        chance = self.marginal(x0, t, allowed.expand(*x0.shape, -1)).to(draws)
        return Categorical.of(chance).sample(draws)

    def _kept_at(self, t: Tensor | int, x0: Tensor) -> Tensor:
        """kept_t with the dimensions of a token's law. Args: of `corrupt`."""
        table = torch.tensor([self.kept(i) for i in range(self.levels + 1)], dtype=torch.float64, device=x0.device)
        found = table[torch.as_tensor(t, device=x0.device)]
        while found.ndim < x0.ndim:
            found = found.unsqueeze(-1)
        return found.unsqueeze(-1)


@dataclass(frozen=True)
class MaskedProcess(KeptProcess):
    """A token is hidden with probability 1 - kept_i and then stays so: the absorbing process of D3PM.

    Austin et al. (2021, arXiv 2107.03006). The hidden token is W, one after the choices, and a chain starts with all
    hidden.

    Args:
        levels, shape: of `KeptProcess`.

    Raises:
        InputError: what is allowed is asked for and not given, as it tells how many choices there are.

    Example:
        >>> process, allowed = MaskedProcess(4), torch.ones(2, 3, dtype=torch.bool)
        >>> process.terminal(None, allowed)
        tensor([3, 3])
        >>> process.corrupt(torch.tensor([0, 2]), 2, torch.tensor([0.2, 0.7]), allowed)
        tensor([0, 3])
    """

    def vocabulary(self, choices: int) -> int:
        return choices + 1

    def terminal(self, draws: Tensor | None, allowed: Tensor | None = None) -> Tensor:
        if allowed is None:
            raise InputError("a MaskedProcess starts from as many tokens as there are slots; pass allowed")
        return torch.full(allowed.shape[:-1], allowed.shape[-1], dtype=torch.int64, device=allowed.device)

    def marginal(self, x0: Tensor, t: Tensor | int, allowed: Tensor) -> Tensor:
        choices = allowed.shape[-1]
        kept = self._kept_at(t, x0)
        hidden = torch.full_like(x0, choices)
        return kept * one_hot(x0, choices + 1) + (1 - kept) * one_hot(hidden, choices + 1)

    def posterior(self, logits: Tensor, x: Tensor, i: int, j: int, again: float = 0.0) -> Tensor:
        """A hidden token is shown with probability (kept_j - kept_i) / (1 - kept_i), by the law of x_0; others stand.

        With `again` = s a token that is shown is hidden again with probability s, and hidden ones are shown with
        (kept_j - (1 - s) kept_i) / (1 - kept_i), so that the marginal of x_j is the same (Wang et al. 2025, arXiv
        2503.00307); s is at most 1 and (1 - kept_j) / kept_i.

        Args:
            logits, x, i, j, again: of `TokenProcess.posterior`.
        """
        choices = logits.shape[-1]
        now, then = self.kept(i), self.kept(j)
        s = min(again, 1.0, (1 - then) / now) if now > 0 else 0.0
        shown = (then - (1 - s) * now) / (1 - now)
        law = pad(logits.masked_fill(~allowed_by(logits), -torch.inf).softmax(-1), (0, 1))
        hidden = one_hot(torch.full_like(x, choices), choices + 1).to(law)
        of_hidden = shown * law + (1 - shown) * hidden
        of_shown = (1 - s) * one_hot(x, choices + 1).to(law) + s * hidden
        return torch.where((x == choices).unsqueeze(-1), of_hidden, of_shown)

    def jumps(self, logits: Tensor, x: Tensor, i: int, j: int) -> Tensor:
        choices = logits.shape[-1]
        rate = (self.kept(j) - self.kept(i)) / (1 - self.kept(i))
        law = pad(logits.masked_fill(~allowed_by(logits), -torch.inf).softmax(-1), (0, 1))
        return rate * law * (x == choices).unsqueeze(-1)


@dataclass(frozen=True)
class UniformProcess(KeptProcess):
    """A token is replaced with probability 1 - kept_i by any allowed one alike: the uniform process of D3PM.

    Austin et al. (2021, arXiv 2107.03006), whose Q_t it has among the choices that are allowed: states never leave
    them.

    Args:
        levels, shape: of `KeptProcess`.

    Raises:
        InputError: what is allowed is asked for and not given.

    Example:
        >>> process, allowed = UniformProcess(4), torch.tensor([[True, False, True]])
        >>> process.terminal(torch.tensor([0.7]), allowed)
        tensor([2])
        >>> process.marginal(torch.tensor([0]), 2, allowed)
        tensor([[0.7500, 0.0000, 0.2500]], dtype=torch.float64)
    """

    def terminal(self, draws: Tensor | None, allowed: Tensor | None = None) -> Tensor:
        if allowed is None:
            raise InputError("a UniformProcess starts from any allowed choice; pass allowed")
        alike = torch.zeros(allowed.shape, device=allowed.device).masked_fill(~allowed, -torch.inf)
        return Categorical(alike.masked_fill(~allowed.any(-1, keepdim=True), 0.0)).sample(draws)

    def marginal(self, x0: Tensor, t: Tensor | int, allowed: Tensor) -> Tensor:
        kept = self._kept_at(t, x0)
        any_of = allowed.double() / allowed.sum(-1, keepdim=True)
        return kept * one_hot(x0, allowed.shape[-1]) + (1 - kept) * any_of

    def posterior(self, logits: Tensor, x: Tensor, i: int, j: int, again: float = 0.0) -> Tensor:
        """q(x_i | x_j) sum over x_0 of q(x_j | x_0) p(x_0) / q(x_i | x_0), eq. 3 and 4 of Austin et al. (2021).

        Args:
            logits, x, i, j: of `TokenProcess.posterior`. again: 0: every token may change at each step anyway.
        """
        alike, odds, same = self._odds(logits, x, i)
        then, ratio = self.kept(j), self.kept(i) / self.kept(j)
        of_j = then * odds + (1 - then) * odds.sum(-1, keepdim=True) * alike
        weight = (ratio * same + (1 - ratio) * alike) * of_j
        return weight / weight.sum(-1, keepdim=True)

    def jumps(self, logits: Tensor, x: Tensor, i: int, j: int) -> Tensor:
        """Those of Campbell et al. (2022), proposition 3, whose forward clock runs by log(kept_j / kept_i)."""
        alike, odds, same = self._odds(logits, x, i)
        now = self.kept(i)
        clock = min(math.log(self.kept(j) / now), MOST_JUMPS) if now > 0 else MOST_JUMPS
        return clock * (now * odds + (1 - now) * odds.sum(-1, keepdim=True) * alike) * (1 - same)

    def _odds(self, logits: Tensor, x: Tensor, i: int) -> tuple[Tensor, Tensor, Tensor]:
        """1 / n of the n allowed choices, p(x_0) / (n q(x_i | x_0)), and which choice x_i is, each `[.., K, W]`."""
        allowed, now = allowed_by(logits), self.kept(i)
        count = allowed.sum(-1, keepdim=True)
        law = logits.masked_fill(~allowed, -math.inf).softmax(-1)
        same = one_hot(x, logits.shape[-1]).to(law)
        return allowed.to(law) / count, law / (now * same * count + (1 - now)), same
