"""The law of a call's time, fitted by least squares: `T = text + steps * step(size, batch) + decode(size, batch)`."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from diffpolicy._total import total
from diffpolicy.edge.hardware.schema.records import Fit, Point, SizeFit, percentile

GOOD_R2 = 0.9
"""Below it the law does not hold."""
LEAST_STEP_S = 1e-9
"""In place of a step that seems to take no time, which no server has."""


def fit_points(points: Sequence[Point]) -> Fit:
    """Fits the medians of whole calls.

    Each size and batch has its own step and its own constant. The constant is divided into text encoding, which is one
    number for all, and the rest, which counts as decoding, by the parts that were measured; where they were not, all of
    it is decoding. A size with one number of steps takes its constant from the measured parts too. R² and the residuals
    are over all medians; R² is None if there are no more medians than coefficients.

    Args:
        points: at least one.

    Example:
        >>> fit_points(profile.points).r2
    """
    groups: dict[tuple[int, int, int], list[Point]] = defaultdict(list)
    for point in points:
        groups[point.size].append(point)
    texts = sorted(p.text_s for p in points if p.text_s is not None)
    text_s = percentile(texts, 50) if texts else 0.0
    lines = {size: _line(group) for size, group in groups.items()}
    text_s = min([text_s, *(constant for constant, _ in lines.values())])
    sizes = tuple(SizeFit(*size, step_s, constant - text_s) for size, (constant, step_s) in sorted(lines.items()))

    medians = [p.latency_s.p50 for p in points]
    residuals = [p.latency_s.p50 - lines[p.size][0] - p.steps * lines[p.size][1] for p in points]
    free = len(points) - sum(min(2, len(group)) for group in groups.values())
    mean = total(medians) / len(medians)
    spread = total((x - mean) ** 2 for x in medians)
    r2 = 1 - total(x * x for x in residuals) / spread if free > 0 and spread > 0 else None
    logs = [math.log(x / p.latency_s.p50) for p in points if p.latency_s.p50 > 0 for x in p.latency_s.values if x > 0]
    # a point with one sample says nothing of scatter
    degrees = sum(len(p.latency_s.values) - 1 for p in points)
    return Fit(
        text_s=text_s,
        sizes=sizes,
        r2=r2,
        resid_p95_s=percentile(sorted(abs(x) for x in residuals), 95),
        scatter_sigma=math.sqrt(total(x * x for x in logs) / degrees) if degrees > 0 else None,
        ok=r2 is not None and r2 >= GOOD_R2,
    )


def _line(group: Sequence[Point]) -> tuple[float, float]:
    """Constant and seconds a step of one size, neither below zero."""
    steps = [p.steps for p in group]
    times = [p.latency_s.p50 for p in group]
    n, mean_steps, mean_time = len(group), sum(steps) / len(group), total(times) / len(group)
    spread = total((x - mean_steps) ** 2 for x in steps)
    if spread == 0:
        known = [(p.text_s or 0.0) + (p.decode_s or 0.0) for p in group]
        constant = min(total(known) / n, mean_time)
        return constant, max((mean_time - constant) / mean_steps, LEAST_STEP_S)
    slope = total((x - mean_steps) * (y - mean_time) for x, y in zip(steps, times, strict=True)) / spread
    constant = mean_time - slope * mean_steps
    if slope < LEAST_STEP_S:
        return mean_time, LEAST_STEP_S
    if constant < 0:  # then the best line that is not negative goes through the origin
        return 0.0, total(x * y for x, y in zip(steps, times, strict=True)) / sum(x * x for x in steps)
    return constant, slope
