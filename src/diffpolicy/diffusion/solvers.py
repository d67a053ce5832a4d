"""Solvers of the probability-flow equation: DPM-Solver++(2M), Heun's method, flow Euler and Heun, and one step."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from diffpolicy.diffusion.kernels import Gaussian, Kernel, Point
from diffpolicy.diffusion.processes import Process
from diffpolicy.diffusion.sampler import Advance, Model, Sampler, predicts
from diffpolicy.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Solver(Sampler):
    """A sampler without chance, for networks that predict the noise, x_0 or the velocity; a subclass gives `point`.

    Args:
        prediction: `noise`, `x0` or `velocity`. steps, min_std: of `Sampler`; a step's density is around its point.

    Raises:
        InputError: no such prediction.

    Example:
        >>> solvers = (DPMSolver, EDMHeun, FlowEuler, FlowHeun, OneStep)
        >>> [solver.__name__ for solver in solvers if issubclass(solver, Solver)]
        ['DPMSolver', 'EDMHeun', 'FlowEuler', 'FlowHeun', 'OneStep']
    """

    prediction: str = "noise"

    def __post_init__(self) -> None:
        super().__post_init__()
        predicts(self.prediction)

    def noisy_steps(self, process: Process) -> int:
        return super().noisy_steps(process) if self.min_std > 0 else 0

    def x0(self, model: Model, x: Tensor, i: int, cond: Any, process: Process) -> Tensor:
        """x_0 as predicted at level i. Args: of `kernel`; i: 1..I."""
        return process.convert(model(x, i, cond), x, i, given=self.prediction, wanted="x0")

    @abstractmethod
    def point(self, model: Model, x: Tensor, i: int, j: int, cond: Any, process: Process) -> Tensor:
        """Where a step leads. Args: model, x, cond, process: of `kernel`. i, j: levels, I >= i > j >= 0."""

    def kernel(self, model: Model, x: Tensor, k: int, cond: Any, process: Process) -> Kernel:
        i, j = self.grid(process)[k : k + 2]
        return self._at(self.point(model, x, i, j, cond, process))

    def _at(self, point: Tensor) -> Kernel:
        return Gaussian(point, self.min_std) if self.min_std > 0 else Point(point)


@dataclass(frozen=True, kw_only=True)
class DPMSolver(Solver):
    """DPM-Solver++(2M), of second order at one prediction a step (Lu et al. 2022, arXiv 2211.01095, algorithm 2).

    With lambda = log(alpha / sigma), h its growth over the step and h' over the one before,

        x_j = (sigma_j / sigma_i) x_i + alpha_j (1 - e^-h) D,  D = x0_i + (h / 2 h') (x0_i - x0 of the step before).

    The first step has no step before it, and the last one, to sigma = 0, ends in x0_i: both are of first order.

    Args:
        prediction, steps, min_std: of `Solver`.

    Example:
        >>> process, model = GaussianProcess("vp", 20), lambda x, i, cond: torch.ones_like(x)
        >>> DPMSolver(prediction="x0", steps=4).sample(model, torch.zeros(2), None, process)
        tensor([1., 1.])
    """

    def point(self, model: Model, x: Tensor, i: int, j: int, cond: Any, process: Process) -> Tensor:
        return _towards(self.x0(model, x, i, cond, process), x, i, j, process)

    def advance(self, model: Model, x: Tensor, k: int, cond: Any, process: Process, memory: Any = None) -> Advance:
        times = self.grid(process)
        i, j = times[k : k + 2]
        x0 = ahead = self.x0(model, x, i, cond, process)
        if memory is not None and j > 0:
            now = _log_ratio(process, i)
            ratio = (_log_ratio(process, j) - now) / (now - _log_ratio(process, times[k - 1]))
            ahead = x0 + ratio / 2 * (x0 - memory)
        return Advance(self._at(_towards(ahead, x, i, j, process)), x0)


def _log_ratio(process: Process, i: int) -> float:
    a, noise = process.squares(i)
    return 0.5 * math.log(a / noise)


def _towards(x0: Tensor, x: Tensor, i: int, j: int, process: Process) -> Tensor:
    """(sigma_j / sigma_i) x_i + (alpha_j - alpha_i sigma_j / sigma_i) x_0: exact where x_0 stays as predicted."""
    (a, noise), (b, less) = process.squares(i), process.squares(j)
    keep = math.sqrt(less / noise)
    return keep * x + (math.sqrt(b) - math.sqrt(a) * keep) * x0


@dataclass(frozen=True, kw_only=True)
class EDMHeun(Solver):
    """Heun's method on d(x / alpha) / ds = eps, s = sigma / alpha (Karras et al. 2022, arXiv 2206.00364, algorithm 1).

    Of second order, at two predictions a step; the last step, to s = 0, is Euler's. Its own levels are those of
    `GaussianProcess(EDMSchedule(), levels)`; it goes through any process of numbers.

    Args:
        prediction, steps, min_std: of `Solver`.

    Example:
        >>> process, model = GaussianProcess(EDMSchedule(), 8), lambda x, i, cond: torch.ones_like(x)
        >>> EDMHeun(prediction="x0").sample(model, process.terminal(torch.zeros(2)), None, process).round(decimals=5)
        tensor([1., 1.])
    """

    def point(self, model: Model, x: Tensor, i: int, j: int, cond: Any, process: Process) -> Tensor:
        (a, noise), (b, less) = process.squares(i), process.squares(j)
        length = math.sqrt(less / b) - math.sqrt(noise / a)
        y, slope = x / math.sqrt(a), self._noise(model, x, i, cond, process)
        if j > 0:
            ahead = (y + length * slope) * math.sqrt(b)
            slope = (slope + self._noise(model, ahead, j, cond, process)) / 2
        return (y + length * slope) * math.sqrt(b)

    def _noise(self, model: Model, x: Tensor, i: int, cond: Any, process: Process) -> Tensor:
        return process.convert(model(x, i, cond), x, i, given=self.prediction, wanted="noise")


@dataclass(frozen=True, kw_only=True)
class FlowEuler(Solver):
    """Euler's method on dx / dt = eps - x_0 of a straight path (Lipman et al. 2023, arXiv 2210.02747).

    Any process of numbers is one but for its scale: x / (alpha + sigma) at t = sigma / (alpha + sigma). It is of first
    order, and the same as `DDIM(eta=0)` in exact arithmetic.

    Args:
        prediction, steps, min_std: of `Solver`.

    Example:
        >>> process, model = FlowProcess(10), lambda x, i, cond: torch.ones_like(x)
        >>> FlowEuler(prediction="velocity").sample(model, torch.zeros(2), None, process).round(decimals=2)
        tensor([-1., -1.])
    """

    def point(self, model: Model, x: Tensor, i: int, j: int, cond: Any, process: Process) -> Tensor:
        then, whole = _straight(process, j)
        return whole * self._euler(self._velocity(model, x, i, cond, process), x, i, then, process)

    def _euler(self, velocity: Tensor, x: Tensor, i: int, then: float, process: Process) -> Tensor:
        now, whole = _straight(process, i)
        return x / whole + (then - now) * velocity

    def _velocity(self, model: Model, x: Tensor, i: int, cond: Any, process: Process) -> Tensor:
        given = model(x, i, cond)
        eps = process.convert(given, x, i, given=self.prediction, wanted="noise")
        return eps - process.convert(given, x, i, given=self.prediction, wanted="x0")


@dataclass(frozen=True, kw_only=True)
class FlowHeun(FlowEuler):
    """Heun's method on the same equation as `FlowEuler`: second order, two predictions a step, the last one Euler's.

    See Lipman et al. (2023, arXiv 2210.02747) for the path.

    Args:
        prediction, steps, min_std: of `Solver`.

    Example:
        >>> process, model = FlowProcess(10), lambda x, i, cond: torch.ones_like(x)
        >>> FlowHeun(prediction="velocity", steps=2).sample(model, torch.zeros(2), None, process).round(decimals=2)
        tensor([-1., -1.])
    """

    def point(self, model: Model, x: Tensor, i: int, j: int, cond: Any, process: Process) -> Tensor:
        velocity = self._velocity(model, x, i, cond, process)
        then, whole = _straight(process, j)
        if j > 0:
            ahead = whole * self._euler(velocity, x, i, then, process)
            velocity = (velocity + self._velocity(model, ahead, j, cond, process)) / 2
        return whole * self._euler(velocity, x, i, then, process)


def _straight(process: Process, i: int) -> tuple[float, float]:
    """T = sigma / (alpha + sigma), and alpha + sigma."""
    alpha, sigma = map(math.sqrt, process.squares(i))
    return sigma / (alpha + sigma), alpha + sigma


@dataclass(frozen=True, kw_only=True)
class OneStep(Solver):
    """Takes x_0 as it is predicted at x_I, in one step: for distilled students and consistency models.

    Args:
        prediction, min_std: of `Solver`. steps: 1 or None.

    Raises:
        InputError: another number of steps.

    Example:
        >>> OneStep().grid(GaussianProcess("vp", 5))
        (5, 0)
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps not in (None, 1):
            raise InputError(f"OneStep takes one step, got steps = {self.steps}")

    def grid(self, process: Process) -> tuple[int, ...]:
        return (process.steps, 0)

    def point(self, model: Model, x: Tensor, i: int, j: int, cond: Any, process: Process) -> Tensor:
        return self.x0(model, x, i, cond, process)
