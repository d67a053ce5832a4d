"""What is reported of a policy: its costs, and how far they are from a baseline's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from diffpolicy._types import Floats
from diffpolicy.environments import Cost
from diffpolicy.evaluation.intervals import (
    Interval,
    difference_interval,
    has_ratio,
    pooled_interval,
    ratio_interval,
)
from diffpolicy.evaluation.playing import Played


@dataclass(frozen=True)
class Costs:
    """A summary of costs, in the problem's unit.

    Args:
        mean: of them.
        p50, p95, p99: percentiles, interpolated linearly between costs.
        most: the greatest.
        count: how many.

    Example:
        >>> import numpy as np
        >>> Costs.of(np.arange(101.0))
        Costs(mean=50.0, p50=50.0, p95=95.0, p99=99.0, most=100.0, count=101)
    """

    mean: float
    p50: float
    p95: float
    p99: float
    most: float
    count: int

    @classmethod
    def of(cls, cost: Floats) -> Costs:
        """Of costs `[K]`."""
        p50, p95, p99 = np.percentile(cost, [50, 95, 99])
        return cls(float(cost.mean()), float(p50), float(p95), float(p99), float(cost.max()), len(cost))


@dataclass(frozen=True)
class Result:
    """One policy's costs over identical episodes.

    Args:
        costs: pooled over what the problem counts.
        ci95: half-width of the mean's 95 % interval, in the cost's unit; None of one episode.
        ratio: of the mean to the baseline's, None where an episode of either does not cost more than zero.
        ratio_ci95: its lower and upper bound, paired over episodes.
        decisions_per_second: items that the policy decided, a second of its own, while evaluating.
        difference: of the mean from the baseline's, paired over episodes.

    Example:
        >>> import numpy as np
        >>> ours, baseline = (Played(np.array(cost), np.arange(2), 1.0, {}) for cost in ([1.0, 2.0], [2.0, 4.0]))
        >>> result = Result.of(ours, baseline)
        >>> result.costs.mean, result.ratio, result.difference.mean
        (1.5, 0.5, -1.5)
    """

    costs: Costs
    ci95: float | None
    ratio: float | None
    ratio_ci95: tuple[float, float] | None
    decisions_per_second: float
    difference: Interval

    @classmethod
    def of(cls, played: Played, baseline: Played) -> Result:
        """Summary of a policy's episodes beside the baseline's."""
        ratio, ratio_ci95 = ratio_interval(played, baseline) if has_ratio(played, baseline) else (None, None)
        return cls(
            Costs.of(played.cost),
            pooled_interval(played).half_width,
            ratio,
            ratio_ci95,
            played.decisions_per_second,
            difference_interval(played, baseline),
        )

    def to_dict(self, cost: Cost) -> dict[str, Any]:
        """As JSON holds it, under the cost's names; the difference stands in it where there is no ratio."""
        c, unit = self.costs, unit_suffix(cost)
        apart = {f"difference{unit}": self.difference.mean, f"difference_ci95{unit}": self.difference.half_width}
        return {
            f"mean_{cost.column}": c.mean,
            f"ci95{unit}": self.ci95,
            f"p50_{cost.column}": c.p50,
            f"p95_{cost.column}": c.p95,
            f"p99_{cost.column}": c.p99,
            f"max_{cost.column}": c.most,
            cost.counted: c.count,
            "ratio": self.ratio,
            "ratio_ci95": None if self.ratio_ci95 is None else list(self.ratio_ci95),
            **(apart if self.ratio is None else {}),
        }


def unit_suffix(cost: Cost) -> str:
    """The unit at the end of names in files, `_s`; empty where the cost's own name has none."""
    return f"_{cost.unit}" if cost.unit and cost.column.endswith(f"_{cost.unit}") else ""
