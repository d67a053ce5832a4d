"""What is reported of a policy: delays as users feel them, and how far they are from a baseline's."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpolicy.evaluation.intervals import (
    Interval,
    difference_interval,
    has_ratio,
    pooled_interval,
    ratio_interval,
)
from diffpolicy.evaluation.playing import Played


@dataclass(frozen=True)
class Delays:
    """Service delays in seconds, pooled over tasks. Args: tasks: how many."""

    mean_delay_s: float
    p50_delay_s: float
    p95_delay_s: float
    p99_delay_s: float
    max_delay_s: float
    tasks: int

    @classmethod
    def of(cls, delay_s: npt.NDArray[np.float64]) -> Delays:
        """Summary of delays `[K]`."""
        p50, p95, p99 = np.percentile(delay_s, [50, 95, 99])
        return cls(float(delay_s.mean()), float(p50), float(p95), float(p99), float(delay_s.max()), len(delay_s))


@dataclass(frozen=True)
class Result:
    """One policy's delays over episodes of identical arrivals.

    Args:
        delays: pooled over tasks. ci95_s: half-width of the pooled mean's 95 % interval, None for one episode.
        ratio: of the mean delay to the baseline's, None where an episode of either costs nothing; ratio_ci95: its
            interval, paired over episodes.
        decisions_per_second: while evaluating.
        difference: of the mean delay from the baseline's, paired over episodes, seconds.
    """

    delays: Delays
    ci95_s: float | None
    ratio: float | None
    ratio_ci95: tuple[float, float] | None
    decisions_per_second: float
    difference: Interval

    @classmethod
    def of(cls, played: Played, baseline: Played) -> Result:
        """Summary of a policy's episodes beside the baseline's."""
        ratio, ratio_ci95 = ratio_interval(played, baseline) if has_ratio(played, baseline) else (None, None)
        return cls(
            Delays.of(played.cost),
            pooled_interval(played).half_width,
            ratio,
            ratio_ci95,
            len(played.cost) / max(played.seconds, 1e-9),
            difference_interval(played, baseline),
        )

    def to_dict(self) -> dict[str, Any]:
        """As `evaluate --json` prints it; the difference stands in it where there is no ratio."""
        d = asdict(self.delays)
        interval = None if self.ratio_ci95 is None else list(self.ratio_ci95)
        apart = {"difference_s": self.difference.mean, "difference_ci95_s": self.difference.half_width}
        return {
            "mean_delay_s": d.pop("mean_delay_s"),
            "ci95_s": self.ci95_s,
            **d,
            "ratio": self.ratio,
            "ratio_ci95": interval,
            **(apart if self.ratio is None else {}),
        }
