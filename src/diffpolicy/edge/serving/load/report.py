"""`LoadReport`: what came of a load, as one flat row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffpolicy._types import Floats
from diffpolicy.edge.serving.load.plan import Ask


@dataclass(frozen=True)
class Outcome:
    """Of one request.

    Args:
        ask: it. delay_s: from when it should have been sent to its answer's last byte. late_s: by how much it was sent
            too late. error: "" where all images came; otherwise a status of HTTP or a word.

    Example:
        >>> Outcome(Ask(0.0), delay_s=2.0, late_s=0.0, error="503").error
        '503'
    """

    ask: Ask
    delay_s: float
    late_s: float
    error: str = ""


@dataclass(frozen=True)
class LoadReport:
    """All of them.

    Args:
        outcomes: in the order of the plan. duration_s: from the first arrival to the last end.
        within_s: a request counts as good where it was answered so soon; None: where it was answered.

    Example:
        >>> report = LoadReport([Outcome(Ask(0.0), 2.0, 0.0), Outcome(Ask(1.0), 4.0, 0.0)], duration_s=5.0)
        >>> report.row()["mean_s"], report.row()["goodput"]
        (3.0, 0.4)
    """

    outcomes: Sequence[Outcome]
    duration_s: float
    within_s: float | None = None

    @property
    def delay_s(self) -> Floats:
        """Of those that were answered, seconds."""
        return np.array([x.delay_s for x in self.outcomes if not x.error])

    @property
    def errors(self) -> dict[str, int]:
        """How many failed, by why, the most frequent first."""
        return dict(Counter(x.error for x in self.outcomes if x.error).most_common())

    @property
    def late_s(self) -> float:
        """By how much the latest was sent too late: what the sender itself added."""
        return max((x.late_s for x in self.outcomes), default=0.0)

    def row(self) -> dict[str, float | int | None]:
        """Counts, seconds, and goodput: good answers a second; None where nothing was answered."""
        delay = self.delay_s
        good = int((delay <= (np.inf if self.within_s is None else self.within_s)).sum())

        def of(quantile: float) -> float | None:
            return float(np.quantile(delay, quantile)) if len(delay) else None

        return {
            "requests": len(self.outcomes),
            "ok": len(delay),
            "failed": len(self.outcomes) - len(delay),
            "duration_s": self.duration_s,
            "mean_s": float(delay.mean()) if len(delay) else None,
            "p50_s": of(0.5),
            "p95_s": of(0.95),
            "p99_s": of(0.99),
            "max_s": of(1.0),
            "goodput": good / self.duration_s if self.duration_s > 0 else 0.0,
        }
