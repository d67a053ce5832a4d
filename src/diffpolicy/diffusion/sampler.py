"""`Sampler`: how a chain goes back from noise to x_0, step by step, and how probable a recorded chain is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffpolicy import _validate as check
from diffpolicy.diffusion.kernels import Gaussian, Kernel, Point
from diffpolicy.diffusion.predictions import SAMPLED
from diffpolicy.diffusion.processes import Process
from diffpolicy.errors import InputError

Model = Callable[[Tensor, int, Any], Tensor]
"""What a network predicts, of the state's shape: model(x, t, condition) at step t, 1..I."""


@dataclass(frozen=True)
class Chain:
    """What a sampler went through.

    Args:
        x0: its end, `[.., K, W]` numbers or `[.., K]` tokens.
        states: x_I, ..., x_0, stacked, `[steps + 1, .., K, W]` or `[steps + 1, .., K]`.
        shown_at: where tokens were hidden, the number of the step that showed each slot as it stands at the end,
            `[.., K]`: 1 for the first step, 0 for a slot that was shown from the start; None where nothing is hidden.
        remasks: how often each slot was hidden again, `[.., K]`, or None.

    Example:
        >>> ones = lambda x, t, cond: torch.ones_like(x)  # predicts x_0
        >>> chain = DDIM(prediction="x0").chain(ones, torch.randn(8, 3), None, GaussianProcess("vp", 5))
        >>> chain.states.shape, torch.allclose(chain.x0, torch.ones(8, 3))
        (torch.Size([6, 8, 3]), True)
    """

    x0: Tensor
    states: Tensor
    shown_at: Tensor | None = None
    remasks: Tensor | None = None


@dataclass(frozen=True)
class Advance:
    """What a step of a chain gives.

    Args:
        kernel: the law of the next state. memory: what the next step may read.

    Example:
        >>> Advance(Point(torch.zeros(2))).memory is None
        True
    """

    kernel: Kernel
    memory: Any = None


@dataclass(frozen=True, kw_only=True)
class Sampler(ABC):
    """A frozen recipe of reverse steps; a subclass gives `kernel`.

    Args:
        steps: fewer than the process has, or None: all.
        min_std: least standard deviation of a step's noise, so that every step has a density; 0: as it comes.

    Raises:
        InputError: `steps` is no whole number, or `min_std` below 0; when used: more steps than the process has.

    Example:
        >>> class OneStep(Sampler):  # straight to the x_0 that is predicted
        ...     def kernel(self, model, x, k, cond, process):
        ...         return Point(model(x, process.steps, cond))
        >>> zeros = lambda x, t, cond: torch.zeros_like(x)
        >>> OneStep(steps=1).sample(zeros, torch.ones(2), None, GaussianProcess("vp", 5))
        tensor([0., 0.])
    """

    tokens: ClassVar[bool] = False
    """Whether it goes back through the tokens of a `TokenProcess`, where the model gives logits of x_0 `[.., K, W]`."""
    steps: int | None = None
    min_std: float = 0.0

    def __post_init__(self) -> None:
        if self.steps is not None:
            object.__setattr__(self, "steps", check.integer(self.steps, "sampler steps"))
        if not 0 <= self.min_std < math.inf:
            raise InputError(f"min_std must be at least 0, got {self.min_std}")

    @abstractmethod
    def kernel(self, model: Model, x: Tensor, k: int, cond: Any, process: Process) -> Kernel:
        """The law of the next state.

        Args:
            model: predicts. x: the present state, `[.., K, W]`, or tokens `[.., K]`.
            k: number of the step, 0 for that from x_I.
            cond: what the model is conditioned on. process: whose times `grid` gives.
        """

    def advance(self, model: Model, x: Tensor, k: int, cond: Any, process: Process, memory: Any = None) -> Advance:
        """`kernel`, and what a solver of several steps hands on to the next one: its state travels in the loop.

        Args:
            model, x, k, cond, process: of `kernel`. memory: of the step before; None at the first.
        """
        return Advance(self.kernel(model, x, k, cond, process))

    def grid(self, process: Process) -> tuple[int, ...]:
        """I = t_0 > t_1 > ... > t_n = 0, evenly spaced over the process's steps; all of them by default.

        Raises:
            InputError: more steps than the process has, or none.
        """
        total = process.steps
        steps = total if self.steps is None else self.steps
        if not 1 <= steps <= total:
            raise InputError(f"sampler steps must be from 1 to the {total} of the schedule, got {steps}")
        return tuple(math.ceil(total * k / steps) for k in range(steps, -1, -1))

    def noisy_steps(self, process: Process) -> int:
        """How many steps draw noise, the first ones."""
        n = len(self.grid(process)) - 1
        return n if self.min_std > 0 else n - 1

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
        """x_0 of x_I, of its shape: a pure function of its arguments.

        Args:
            model, cond, process: of `kernel`. x: x_I, `[.., K, W]`, or tokens `[.., K]`.
            noise: what noisy steps draw, `[noisy_steps - first, *x.shape]`; None where there are none.
            record: takes the states from x_I on, where they are wanted.
            first: number of the step that it begins with, where x is the state at the level of that, `grid[first]`.
        """
        if record is not None:
            record.append(x)
        memory = None
        for k in range(first, len(self.grid(process)) - 1):
            step = self.advance(model, x, k, cond, process, memory)
            kernel, memory = step.kernel, step.memory
            x = kernel.sample(None if noise is None or kernel.draws is None else noise[k - first])
            if record is not None:
                record.append(x)
        return x

    def chain(self, model: Model, x: Tensor, cond: Any, process: Process, noise: Tensor | None = None) -> Chain:
        """`sample` with all its states. Args: of `sample`."""
        states: list[Tensor] = []
        x0 = self.sample(model, x, cond, process, noise, states)
        return Chain(x0, torch.stack(states))

    def log_prob(self, model: Model, states: Tensor, cond: Any, process: Process) -> Tensor:
        """Log-density of each step of a recorded chain, of each slot, `[steps, .., K]`, with gradients to the model.

        It is what DPPO's and RL-D2's ratios are made of: the same states under other parameters. `over_slots` adds up
        the slots that exist.

        Args:
            model, cond, process: of `kernel`. states: of a `Chain`, `[steps + 1, ..]`.

        Raises:
            InputError: a step draws nothing, or there are states of another number of steps.
        """
        n = len(self.grid(process)) - 1
        if len(states) != n + 1:
            raise InputError(f"a chain of {n} steps has {n + 1} states, got {len(states)}")
        steps, memory = [], None
        for k in range(n):
            step = self.advance(model, states[k], k, cond, process, memory)
            steps.append(step.kernel.log_prob(states[k + 1]))
            memory = step.memory
        return torch.stack(steps)

    def to_dict(self) -> dict[str, Any]:
        """JSON form: the class's name and its fields."""
        return {"type": type(self).__name__, **asdict(self)}


def predicts(prediction: str) -> None:
    """Raises InputError if no chain of numbers goes by such a prediction. Args: prediction: of a sampler."""
    check.choice(prediction, "prediction", SAMPLED)


@dataclass(frozen=True)
class ReverseStep:
    """One reverse step i -> j, x_j = keep x_i + push y(x_i, i) + spread z with z ~ N(0, 1).

    y is what the network predicts: the noise eps, x_0 or the velocity.

    Args:
        i: the step from which it goes, 1..I.
        keep: factor of the state.
        push: factor of the prediction.
        spread: factor of the noise; 0: nothing is drawn.

    Example:
        >>> last = reverse_steps(NoiseSchedule.named("vp", 5), prediction="x0")[-1]
        >>> last.i, round(last.keep, 6), round(last.push, 6), last.spread  # x_0 is what is predicted
        (1, 0.0, 1.0, 0.0)
    """

    i: int
    keep: float
    push: float
    spread: float


@dataclass(frozen=True, kw_only=True)
class DDIM(Sampler):
    """The family of DDIM for networks that predict the noise, x_0 or the velocity.

    Song et al. 2021, arXiv 2010.02502, eq. 12.

    With x0 and eps as predicted and s = eta (sigma_j / sigma_i) sqrt(sigma_i^2 - (alpha_i / alpha_j)^2 sigma_j^2),

        x_j = alpha_j x0 + sqrt(sigma_j^2 - s^2) eps + s z,

    which is linear in x_i, the prediction and z, so a step is three numbers. eta = 0 is deterministic; eta = 1 is
    ancestral sampling, DDPM (Ho et al. 2020, arXiv 2006.11239).

    Args:
        eta: from 0 to 1.
        prediction: `noise`, `x0` (then nothing amplifies the network's last output) or `velocity`.
        steps, min_std: of `Sampler`.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> process, sampler = GaussianProcess("vp", 5), DDIM(eta=1.0, steps=3)
        >>> sampler.grid(process), sampler.noisy_steps(process)
        ((5, 4, 2, 0), 2)
        >>> zeros, noise = (lambda x, t, cond: torch.zeros_like(x)), torch.zeros(2, 8, 3)
        >>> sampler.sample(zeros, torch.zeros(8, 3), None, process, noise).shape
        torch.Size([8, 3])
    """

    eta: float = 0.0
    prediction: str = "noise"

    def __post_init__(self) -> None:
        super().__post_init__()
        predicts(self.prediction)
        if not 0 <= self.eta <= 1:
            raise InputError(f"eta must be from 0 to 1, got {self.eta}")
        object.__setattr__(self, "_known", None)

    def noisy_steps(self, process: Process) -> int:
        return super().noisy_steps(process) if self.eta > 0 or self.min_std > 0 else 0

    def reverse_steps(self, process: Process) -> Sequence[ReverseStep]:
        """The steps as numbers, kept for the process of the last call: a compiled graph takes them as constants."""
        known: tuple[Process, tuple[ReverseStep, ...]] | None = self._known  # type: ignore[attr-defined]
        if known is None or known[0] is not process:
            known = (process, _reverse_steps(self, process))
            object.__setattr__(self, "_known", known)
        return known[1]

    def kernel(self, model: Model, x: Tensor, k: int, cond: Any, process: Process) -> Kernel:
        step = self.reverse_steps(process)[k]
        # the prediction first, so that states lie in memory as the network puts them
        mean = (step.push * model(x, step.i, cond)).add_(x, alpha=step.keep)
        spread = max(step.spread, self.min_std)
        return Gaussian(mean, spread) if spread else Point(mean)


@lru_cache(maxsize=256)
def _reverse_steps(sampler: DDIM, process: Process) -> tuple[ReverseStep, ...]:
    result = []
    times = sampler.grid(process)
    for i, j in zip(times, times[1:], strict=False):
        (a, noise), (b, less) = process.squares(i), process.squares(j)
        spread = sampler.eta * math.sqrt(less / noise) * math.sqrt(process.fresh(i, j))
        of_noise = math.sqrt(max(less - spread**2, 0.0))
        keep = math.sqrt(b / a)
        push = of_noise - keep * math.sqrt(noise)
        if sampler.prediction == "x0":
            keep, push = keep + push / math.sqrt(noise), -push * math.sqrt(a / noise)
        elif sampler.prediction == "velocity":
            p, q, r, u = process.of_velocity(i)
            keep, push = math.sqrt(b) * p + of_noise * r, math.sqrt(b) * q + of_noise * u
        result.append(ReverseStep(i, keep, push, spread))
    return tuple(result)
