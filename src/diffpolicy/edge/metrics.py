"""What is reported of a policy: delays as users feel them, and how far they are from a baseline's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpolicy.edge.problem import DELAY
from diffpolicy.environments import Cost
from diffpolicy.evaluation import evaluating, results


@dataclass(frozen=True)
class Delays:
    """Service delays in seconds, pooled over tasks.

    Args:
        mean_delay_s: seconds. p50_delay_s, p95_delay_s, p99_delay_s: percentiles, linear between neighbours, seconds.
        max_delay_s: the longest, seconds. tasks: how many.

    Example:
        >>> delays = Delays.of(torch.tensor([0.5, 1.0, 4.5]).numpy())
        >>> delays.mean_delay_s, delays.p50_delay_s, delays.tasks
        (2.0, 1.0, 3)
    """

    mean_delay_s: float
    p50_delay_s: float
    p95_delay_s: float
    p99_delay_s: float
    max_delay_s: float
    tasks: int

    @classmethod
    def of(cls, delay_s: npt.NDArray[np.float64]) -> Delays:
        """Summary of delays.

        Args:
            delay_s: of each task, seconds, `[K]`.
        """
        p50, p95, p99 = np.percentile(delay_s, [50, 95, 99])
        return cls(float(delay_s.mean()), float(p50), float(p95), float(p99), float(delay_s.max()), len(delay_s))


class Result(results.Result):
    """One policy's delays over episodes of identical arrivals.

    Args:
        others: of `diffpolicy.evaluation.Result`.

    Example:
        >>> scenario = Scenario.load("lad-ts").override(tasks=5, stations=3, slots=4)
        >>> result = evaluate(["opt-ts"], scenario, episodes=2).results["opt-ts"]
        >>> result.ratio, result.delays.tasks == result.costs.count
        (1.0, True)
    """

    @property
    def delays(self) -> Delays:
        """Pooled over tasks."""
        return Delays(*astuple(self.costs))

    @property
    def ci95_s(self) -> float | None:
        """Half-width of the mean's 95 % interval, seconds; None of one episode."""
        return self.ci95

    def to_dict(self, cost: Cost = DELAY) -> dict[str, Any]:
        """As `evaluate --json` prints it; the difference stands in it where there is no ratio."""
        return super().to_dict(cost)


@dataclass(frozen=True)
class Evaluation(evaluating.Evaluation):
    """Policies on identical arrivals, as `evaluate` gives them.

    Args:
        results: delays of each policy, by its name.
        others: of `diffpolicy.evaluation.Evaluation`.

    Example:
        >>> scenario = Scenario.load("lad-ts").override(tasks=5, stations=3, slots=4)
        >>> evaluation = evaluate(["random"], scenario, episodes=2)
        >>> list(evaluation.results), evaluation.baseline, evaluation.results["random"].ratio > 1
        (['random'], 'opt-ts', True)
    """

    results: Mapping[str, Result]

    @classmethod
    def of(cls, evaluation: evaluating.Evaluation) -> Evaluation:
        """The same, with delays as delays."""
        told = {**vars(evaluation), "results": {k: Result(**vars(r)) for k, r in evaluation.results.items()}}
        return cls(**told)

    @property
    def scenario(self) -> str:
        """Its name."""
        return self.problem

    @property
    def load(self) -> float:
        """Work offered / (capacity x time)."""
        return self.told["load"]
