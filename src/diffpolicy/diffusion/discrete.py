"""Samplers of tokens: ancestral, with an order of reveals and remasking, and tau-leaping."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from diffpolicy import _validate as check
from diffpolicy.diffusion.categorical import MaskedProcess
from diffpolicy.diffusion.kernels import Categorical, Kernel
from diffpolicy.diffusion.processes import Process
from diffpolicy.diffusion.sampler import Chain, Model, Sampler
from diffpolicy.diffusion.tokens import TokenProcess, allowed_by
from diffpolicy.errors import InputError

ORDERS = ("chance", "confidence")


@dataclass(frozen=True, kw_only=True)
class TokenSampler(Sampler):
    """A sampler through the tokens of a `TokenProcess`, whose model gives logits of x_0; each step draws.

    Args:
        steps, min_std: of `Sampler`; tokens have no min_std.

    Raises:
        InputError: a min_std above 0.

    Example:
        >>> Ancestral(steps=5).noisy_steps(MaskedProcess(10))
        5
    """

    tokens: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_std:
            raise InputError(f"the steps of a {type(self).__name__} are categorical and have no min_std")

    def noisy_steps(self, process: Process) -> int:
        return len(self.grid(process)) - 1

    def chain(self, model: Model, x: Tensor, cond: Any, process: Process, noise: Tensor | None = None) -> Chain:
        """`sample` with all its states, and where tokens are hidden with the order of reveals. Args: of `sample`."""
        widths: list[int] = []

        def noted(x: Tensor, t: int, cond: Any) -> Tensor:
            logits = model(x, t, cond)
            widths.append(logits.shape[-1])
            return logits

        whole = super().chain(noted, x, cond, process, noise)
        if not isinstance(process, MaskedProcess):
            return whole
        hidden = whole.states == widths[0]
        shown, again = hidden[:-1] & ~hidden[1:], ~hidden[:-1] & hidden[1:]
        number = torch.arange(1, len(shown) + 1, device=x.device).view(-1, *[1] * x.ndim)
        return replace(whole, shown_at=(number * shown).amax(0), remasks=again.sum(0))

    def _of_tokens(self, process: Process) -> TokenProcess:
        if not isinstance(process, TokenProcess):
            raise InputError(
                f"a {type(self).__name__} samples tokens, and the states of a {type(process).__name__} are numbers"
            )
        return process


@dataclass(frozen=True, kw_only=True)
class Ancestral(TokenSampler):
    """Draws x_j from the process's posterior given x_i and the law of x_0 that is predicted: D3PM's way back.

    Austin et al. (2021, arXiv 2107.03006). Each slot is drawn alone in a step, so that slots that depend on each other
    want more steps. Acting without draws shows the surest slots first.

    Args:
        order: of a `MaskedProcess`. `chance`: each hidden slot is shown or not by a draw of its own; `confidence`: as
            many as are due, those whose likeliest choice is the likeliest (Chang et al. 2022, arXiv 2202.04200, but by
            the law, not by the draw, so that one slot a step draws from the exact law of all).
        remask: how often a slot that is shown is hidden again over a whole chain, on average at most (Wang et al. 2025,
            arXiv 2503.00307); 0: never. With order `chance`, of a `MaskedProcess`.
        steps: of `Sampler`. min_std: none.

    Raises:
        InputError: no such order, or a remask that is negative or does not go with the order.

    Example:
        >>> process, model = MaskedProcess(4), lambda x, i, cond: torch.tensor([[0.0, 9.0, 0.0]]).expand(2, 3)
        >>> allowed = torch.ones(2, 3, dtype=torch.bool)
        >>> Ancestral(order="confidence").sample(model, process.terminal(None, allowed), None, process)
        tensor([1, 1])
    """

    order: str = "chance"
    remask: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check.choice(self.order, "order", ORDERS)
        if not 0 <= self.remask < math.inf or (self.remask and self.order != "chance"):
            raise InputError(f"remask must be at least 0, and works only with the order chance, got {self.remask}")

    def grid(self, process: Process) -> tuple[int, ...]:
        if type(self._of_tokens(process)).posterior is TokenProcess.posterior:
            raise InputError(f"a {type(process).__name__} defines no posterior; pass a Sampler made for it")
        if (self.remask or self.order != "chance") and not isinstance(process, MaskedProcess):
            raise InputError(
                f"order and remask apply only to a MaskedProcess, and a {type(process).__name__} hides nothing"
            )
        return super().grid(process)

    def sample(
        self,
        model: Model,
        x: Tensor,
        cond: Any,
        process: Process,
        noise: Tensor | None = None,
        record: list[Tensor] | None = None,
        first: int = 0,
    ) -> Tensor:
        if noise is None and isinstance(process, MaskedProcess) and self.order == "chance":
            return replace(self, order="confidence", remask=0.0).sample(model, x, cond, process, None, record, first)
        return super().sample(model, x, cond, process, noise, record, first)

    def kernel(self, model: Model, x: Tensor, k: int, cond: Any, process: Process) -> Kernel:
        times = self.grid(process)
        i, j = times[k : k + 2]
        logits = model(x, i, cond)
        if self.order == "confidence" and isinstance(process, MaskedProcess):
            return _surest(logits, x, process.kept(j))
        again = self.remask * (i - j) / process.steps
        return Categorical.of(self._of_tokens(process).posterior(logits, x, i, j, again))


def _surest(logits: Tensor, x: Tensor, kept: float) -> Categorical:
    """Shows the surest of the hidden slots, until a share `kept` of all is shown, rounded up."""
    choices = logits.shape[-1]
    law = logits.masked_fill(~allowed_by(logits), -torch.inf).softmax(-1)
    hidden = x == choices
    due = hidden.sum(-1, keepdim=True) - math.floor((1 - kept) * x.shape[-1] + 1e-9)
    sure = law.max(-1).values.masked_fill(~hidden, -1.0)
    shown = hidden & (_rank(sure) < due)
    stands = one_hot(x, choices + 1).to(law)
    return Categorical.of(torch.where(shown.unsqueeze(-1), pad(law, (0, 1)), stands))


def _rank(value: Tensor) -> Tensor:
    """How many go before each, the greater first and among equals the first, `[.., K]`; it takes no sort (ONNX)."""
    number = torch.arange(value.shape[-1], device=value.device)
    mine, other = value.unsqueeze(-1), value.unsqueeze(-2)
    before: Tensor = ((other > mine) | ((other == mine) & (number < number.unsqueeze(-1)))).sum(-1)
    return before


@dataclass(frozen=True, kw_only=True)
class TauLeaping(TokenSampler):
    """Jumps of the reverse Markov chain in continuous time, its rates frozen for a step (Campbell et al. 2022).

    From arXiv 2205.14987. Of several jumps that a slot would make in a step the first one counts, since choices have no
    order to add them up in: with n_y of them expected to y, it jumps with probability 1 - exp(-sum of n), to y with
    n_y / sum of n. The last step, to level 0, is the posterior's.

    Args:
        steps: of `Sampler`. min_std: none.

    Raises:
        InputError: the process tells no rates.

    Example:
        >>> process, model = UniformProcess(50), lambda x, i, cond: torch.tensor([[0.0, 9.0, 0.0]]).expand(2, 3)
        >>> x = torch.tensor([0, 2])
        >>> TauLeaping().sample(model, x, None, process, torch.full((50, 2), 0.5))
        tensor([1, 1])
    """

    def grid(self, process: Process) -> tuple[int, ...]:
        if type(self._of_tokens(process)).jumps is TokenProcess.jumps:
            raise InputError(f"a {type(process).__name__} defines no rates; pass a Sampler made for it")
        return super().grid(process)

    def kernel(self, model: Model, x: Tensor, k: int, cond: Any, process: Process) -> Kernel:
        i, j = self.grid(process)[k : k + 2]
        tokens, logits = self._of_tokens(process), model(x, i, cond)
        if j == 0:
            return Categorical.of(tokens.posterior(logits, x, i, j))
        jumps = tokens.jumps(logits, x, i, j)
        total = jumps.sum(-1, keepdim=True)
        stands = one_hot(x, jumps.shape[-1]).to(jumps)
        goes = -torch.expm1(-total) / total.clamp_min(torch.finfo(jumps.dtype).tiny)
        return Categorical.of(goes * jumps + (-total).exp() * stands)
