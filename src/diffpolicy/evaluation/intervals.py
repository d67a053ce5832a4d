"""Means, ratios and differences of what episodes cost, with their 95 % intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from diffpolicy._types import Floats
from diffpolicy.errors import InputError
from diffpolicy.evaluation.playing import Played


@dataclass(frozen=True)
class Interval:
    """A mean and the half-width of its 95 % interval.

    Args:
        mean: in the values' unit.
        half_width: in the same unit; None where one value does not tell.

    Example:
        >>> Interval(2.0, 0.5)
        Interval(mean=2.0, half_width=0.5)
    """

    mean: float
    half_width: float | None


def mean_interval(values: Floats) -> Interval:
    """Student's interval of independent values: mean ± t_(n-1) sd / sqrt(n).

    Args:
        values: `[n]`, independent of each other, such as one an episode or one a training seed.

    Returns:
        Mean and half-width in the values' unit; one value has no half-width.

    Example:
        >>> import numpy as np
        >>> found = mean_interval(np.array([1.0, 2.0, 3.0]))
        >>> found.mean, round(found.half_width, 3)
        (2.0, 2.484)
    """
    n = len(values)
    if n < 2:
        return Interval(float(values.mean()), None)
    return Interval(float(values.mean()), student_t(n - 1) * float(values.std(ddof=1)) / math.sqrt(n))


def pooled_interval(played: Played) -> Interval:
    """The pooled mean of all items with the interval of that mean.

    A pooled mean is a ratio of two sums over episodes, cost and number of items, so its interval is a ratio
    estimator's, linearised (Cochran, Sampling Techniques, 3rd ed., chapter 6): with sums S_k, counts n_k, their
    means over K episodes S and n, and m = S / n,

        residual_k = (S_k - m n_k) / n,    half width = t_(K-1) sd(residual) / sqrt(K)

    Where all episodes have equally many items it is Student's interval of their means. Few episodes of very unequal
    sizes, of which one holds most of the items, are fewer than they seem, and then it is too narrow.

    Args:
        played: cost of each item, with its episode.

    Returns:
        In the cost's unit; one episode has no half-width.

    Example:
        >>> import numpy as np
        >>> played = Played(np.array([1.0, 1.0, 4.0]), np.array([0, 0, 1]), seconds=1.0, notes={})
        >>> pooled_interval(played).mean, pooled_interval(played.added_up("episode")).mean
        (2.0, 3.0)
    """
    sums, counts = played.episode_sums(np.unique(played.episode))
    return Interval(float(played.cost.mean()), _half_width(_mean_residuals(sums, counts)))


def ratio_interval(numerator: Played, denominator: Played) -> tuple[float, tuple[float, float] | None]:
    """Ratio of the pooled means with its 95 % interval, paired over episodes.

    The ratio is one of four sums over episodes, R = (A / a) / (B / b), with costs A_k, B_k and numbers of items a_k,
    b_k, capitals without an index being means over the K episodes; linearised (Cochran, Sampling Techniques, 3rd ed.,
    chapter 6),

        residual_k = A_k b / (a B) - R (B_k / B + a_k / a - b_k / b),    half width = t_(K-1) sd(residual) / sqrt(K)

    With the same items on both sides this is the ratio estimator's (A_k - R B_k) / B. An episode that has items on one
    side only counts as one without cost and items on the other.

    Args:
        numerator: whose mean stands above the line.
        denominator: the baseline, on the same episodes.

    Returns:
        The ratio, and the lower and upper bound of its interval, None of one episode.

    Raises:
        InputError: the denominator's pooled mean is not above 0, so that there is no ratio; `difference_interval` gives
            what there is.

    Example:
        >>> import numpy as np
        >>> episode = np.arange(3)
        >>> baseline = Played(np.array([1.0, 2.0, 3.0]), episode, seconds=1.0, notes={})
        >>> ratio_interval(Played(baseline.cost / 2, episode, 1.0, {}), baseline)  # half the cost in each episode
        (0.5, (0.5, 0.5))
    """
    if not denominator.cost.mean() > 0:
        raise InputError("the baseline's mean cost is not above 0, so no ratio to it can be given")
    ratio = float(numerator.cost.mean() / denominator.cost.mean())
    (a, na), (b, nb) = _both(numerator, denominator)
    cost, count = a / b.mean() * (nb.mean() / na.mean()), na / na.mean() - nb / nb.mean()
    residuals = cost - ratio * (b / b.mean() + count)
    half = _half_width(residuals)
    return ratio, None if half is None else (ratio - half, ratio + half)


def difference_interval(played: Played, baseline: Played) -> Interval:
    """Difference of the pooled means with its 95 % interval, paired over episodes (see `pooled_interval`).

    It says something whatever the sign of the costs, also where no ratio does.

    Args:
        played: what is compared.
        baseline: what it is compared with, on the same episodes.

    Returns:
        `played` less `baseline`, in the cost's unit; one episode has no half-width.

    Example:
        >>> import numpy as np
        >>> episode = np.arange(3)
        >>> baseline = Played(np.array([-1.0, 0.0, 4.0]), episode, seconds=1.0, notes={})
        >>> difference_interval(Played(baseline.cost - 2, episode, 1.0, {}), baseline)  # 2 less in each episode
        Interval(mean=-2.0, half_width=0.0)
    """
    (a, na), (b, nb) = _both(played, baseline)
    difference = float(played.cost.mean() - baseline.cost.mean())
    return Interval(difference, _half_width(_mean_residuals(a, na) - _mean_residuals(b, nb)))


def has_ratio(played: Played, baseline: Played) -> bool:
    """Whether every episode of both costs more than zero, so that a ratio of their costs says something.

    Args:
        played: what is compared.
        baseline: what it is compared with.

    Returns:
        Whether `ratio_interval` may be asked; if not, take `difference_interval`.

    Example:
        >>> import numpy as np
        >>> cost, refund = (Played(np.array([3.0, x]), np.arange(2), 1.0, {}) for x in (1.0, -1.0))
        >>> has_ratio(cost, cost), has_ratio(cost, refund)
        (True, False)
    """
    return all((p.episode_means() > 0).all() for p in (played, baseline))


def _both(first: Played, second: Played) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Sums and counts of both over the episodes that either has."""
    numbers = np.union1d(first.episode, second.episode)
    return first.episode_sums(numbers), second.episode_sums(numbers)


def _mean_residuals(sums: Floats, counts: Floats) -> Floats:
    """What each episode adds to a pooled mean, linearised."""
    residuals: Floats = (sums - sums.sum() / counts.sum() * counts) / counts.mean()
    return residuals


def _half_width(residuals: Floats) -> float | None:
    """Half the 95 % interval of a mean of independent values; None of one."""
    return mean_interval(residuals).half_width


def student_t(df: int) -> float:
    """The 97.5 % quantile of Student's t: a table for few degrees of freedom, Cornish and Fisher's expansion beyond.

    Args:
        df: degrees of freedom, at least 1.

    Returns:
        The factor of a standard error that makes the half-width of a 95 % interval.

    Example:
        >>> student_t(1), round(student_t(30), 4)
        (12.7062, 2.0423)
    """
    table = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)
    if df <= len(table):
        return table[df - 1]
    z = NormalDist().inv_cdf(0.975)
    first = (z**3 + z) / (4 * df)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * df**3)
    return z + first + second + third
