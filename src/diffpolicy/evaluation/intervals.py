"""Means, ratios and differences of what episodes cost, with their 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from diffpolicy._types import Floats
from diffpolicy.errors import InputError
from diffpolicy.evaluation.playing import Played

Sums = Callable[[Floats], Floats]
ABOUT_EQUAL = 0.75
"""Share of the episodes that their effective number must be for linearised residuals to tell enough."""


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

    Where all episodes have equally many items it is Student's interval of their means. Where their sizes are very
    unequal, see `leave_one_out`.

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
    half = _half_width(_mean_residuals(sums, counts), lambda kept: kept(sums) / kept(counts), counts)
    return Interval(float(played.cost.mean()), half)


def ratio_interval(numerator: Played, denominator: Played) -> tuple[float, tuple[float, float] | None]:
    """Ratio of the pooled means with its 95 % interval, paired over episodes.

    The ratio is one of four sums over episodes, R = (A / a) / (B / b), with costs A_k, B_k and numbers of items a_k,
    b_k, capitals without an index being means over the K episodes; linearised (Cochran, Sampling Techniques, 3rd ed.,
    chapter 6),

        residual_k = A_k b / (a B) - R (B_k / B + a_k / a - b_k / b),    half width = t_(K-1) sd(residual) / sqrt(K)

    With the same items on both sides this is the ratio estimator's (A_k - R B_k) / B. An episode that has items on one
    side only counts as one without cost and items on the other. Where sizes or the baseline's costs are very unequal,
    see `leave_one_out`.

    Args:
        numerator: whose mean stands above the line.
        denominator: the baseline, on the same episodes.

    Returns:
        The ratio, and the lower and upper bound of its interval, None of one episode, or of one that alone costs.

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
    half = _half_width(residuals, lambda kept: kept(a) / kept(na) / (kept(b) / kept(nb)), na, nb, np.abs(b))
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
    residuals = _mean_residuals(a, na) - _mean_residuals(b, nb)
    return Interval(difference, _half_width(residuals, lambda kept: kept(a) / kept(na) - kept(b) / kept(nb), na, nb))


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


def effective_number(weights: Floats) -> float:
    """As how many equal ones some weights count: (sum w)^2 / sum w^2 (Kish, Survey Sampling, 1965).

    Args:
        weights: `[n]`, at least 0, one above.

    Returns:
        From 1, where one carries all, to n.

    Example:
        >>> import numpy as np
        >>> effective_number(np.ones(4)), round(effective_number(np.array([1.0, 1.0, 1.0, 100.0])), 2)
        (4.0, 1.06)
    """
    return float(weights.sum() ** 2 / (weights**2).sum())


def leave_one_out(estimate: Callable[[Sums], Floats], df: int) -> float | None:
    """Half a 95 % interval by leaving out one episode after the other (the jackknife: Tukey 1958; Miller 1974).

        half width = t_df sqrt((n - 1) / n sum_k (estimate without k - their mean)^2)

    Episodes that carry most of the weight pull an estimate towards themselves, so that residuals around it tell too
    little; an estimate without them does not. The degrees of freedom are those of the effective number of episodes.
    Of episodes with sizes of a lognormal law of which sigma is 1.5 it holds the truth in 93 to 97 of 100 cases where
    linearised residuals and n - 1 degrees do in 72 to 81 (`tests/test_faults_ends.py`).

    Args:
        estimate: from sums over the episodes: it is given a function that makes of values `[n]` their sums without
            each, `[n]`. df: degrees of freedom.

    Returns:
        None where there is no estimate without one of them.

    Example:
        >>> import numpy as np
        >>> costs, items = np.array([1.0, 2.0, 3.0]), np.ones(3)
        >>> found = leave_one_out(lambda kept: kept(costs) / kept(items), df=2)
        >>> round(found, 3), round(mean_interval(costs).half_width, 3)
        (2.484, 2.484)
    """
    with np.errstate(all="ignore"):
        without = estimate(lambda values: values.sum() - values)
    if not np.isfinite(without).all():
        return None
    n = len(without)
    return student_t(df) * math.sqrt((n - 1) / n * float(((without - without.mean()) ** 2).sum()))


def _half_width(residuals: Floats, estimate: Callable[[Sums], Floats], *weights: Floats) -> float | None:
    """Half the 95 % interval of an estimate, by its residuals where episodes weigh about the same; None of one.

    Args:
        residuals: `[n]`. estimate: of `leave_one_out`. weights: of the episodes, each `[n]`.
    """
    n, effective = len(residuals), min(effective_number(w) for w in weights)
    if n < 2 or effective >= ABOUT_EQUAL * n:
        return mean_interval(residuals).half_width
    return leave_one_out(estimate, max(round(effective) - 1, 1))


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
