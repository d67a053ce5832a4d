"""`ServiceFit`: how long each kind of request takes on each server, from what a log shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffpolicy._types import Bools, Floats, Ints
from diffpolicy.edge.dispatch.request_log import RequestLog

ENOUGH = 20
"""Samples of a pair of server and kind below which its time is extrapolated."""
POWERS = np.linspace(0.5, 1.5, 21)
"""Exponents of size that are tried."""


@dataclass(frozen=True, eq=False)
class ServiceFit:
    r"""Expected seconds of each kind on each server.

    A pair with `ENOUGH` samples has their mean. Any other has `a + b size^gamma` of its server and model where that is
    known of two kinds, and otherwise the mean over servers times the ratio of their speeds.

    Args:
        seconds: `[kinds, S]`. samples: of each pair, int64 `[kinds, S]`. extrapolated: bool `[kinds, S]`.
        error: relative error of what is extrapolated, measured on the pairs that are known.

    Example:
        >>> from pathlib import Path
        >>> rows = [f"{10 * k},{'ab'[k % 2]},{10 * k + 2 + 2 * (k % 2)},1" for k in range(60)]
        >>> _ = Path("log.csv").write_text("\n".join(["arrival_s,server,end_s,cost", *rows]))
        >>> ServiceFit.of(RequestLog.read("log.csv")).seconds.tolist()
        [[2.0, 4.0]]
    """

    seconds: Floats
    samples: Ints
    extrapolated: Bools
    error: float

    @classmethod
    def of(cls, log: RequestLog) -> ServiceFit:
        """What a log tells. Args: log: at least one request."""
        kinds, s = int(log.kind.max()) + 1, len(log.servers)
        cell = log.kind * s + log.server
        samples = np.bincount(cell, minlength=kinds * s).reshape(kinds, s)
        with np.errstate(invalid="ignore"):
            means = np.bincount(cell, log.service_s, kinds * s).reshape(kinds, s) / samples
        first = np.unique(log.kind, return_index=True)[1]
        size, model = log.size[first], log.model[first]
        known = samples >= ENOUGH
        guess = guess_s(means, samples, size, model, speeds(means, samples))
        both = known & np.isfinite(guess)
        error = float(np.sqrt(np.mean((guess[both] / means[both].clip(min=1e-9) - 1) ** 2))) if both.any() else 0.5
        return cls(np.where(known, means, guess).clip(min=1e-9), samples, ~known, error)


def guess_s(means: Floats, samples: Ints, size: Floats, model: Ints, speed: Floats) -> Floats:
    """Seconds of every pair from the others, `[kinds, S]`: the laws of size where there are, else ratios of speeds."""
    with np.errstate(invalid="ignore"):
        base = np.nansum(np.where(samples > 0, means * speed * samples, 0.0), 1) / samples.sum(1).clip(min=1)
    guess: Floats = base[:, None] / speed
    for m in np.unique(model):
        of = np.flatnonzero(model == m)
        for j in range(means.shape[1]):
            seen = of[samples[of, j] > 0]
            if len(np.unique(size[seen])) >= 2 and samples[seen, j].sum() >= ENOUGH:
                law = size_law(size[seen], means[seen, j], samples[seen, j])
                guess[of, j] = law[0] + law[1] * size[of] ** law[2]
    return guess


def size_law(size: Floats, seconds: Floats, weight: Ints) -> tuple[float, float, float]:
    """`a + b size^gamma` with a, b >= 0, by least squares of the relative error.

    Of each exponent there are three laws: with both terms, without a, without b. It is asked for by every server and
    model between two decisions of a dispatcher, so all are fitted at once, about the weighted means.
    """
    powers = POWERS if len(size) > 2 else np.ones(1)
    w = weight / seconds.clip(min=1e-9) ** 2
    x = size ** powers[:, None]
    x_mean, y_mean = (x * w).sum(-1) / w.sum(), (seconds * w).sum() / w.sum()
    off_x = x - x_mean[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (off_x * (seconds - y_mean) * w).sum(-1) / (off_x**2 * w).sum(-1)
        through = (x * seconds * w).sum(-1) / (x**2 * w).sum(-1)
    none = np.zeros_like(slope)
    a, b = np.stack([y_mean - slope * x_mean, none, none + y_mean]), np.stack([slope, through, none])
    off = (((a[..., None] + b[..., None] * x - seconds) ** 2) * w).sum(-1)
    off[~((a >= 0) & (b >= 0))] = np.inf
    best, law = np.inf, (0.0, 0.0, 1.0)
    for g, power in enumerate(powers):
        for k in range(3):
            if off[k, g] < best - 1e-12:
                best, law = float(off[k, g]), (float(a[k, g]), float(b[k, g]), float(power))
    return law


def speeds(means: Floats, samples: Ints) -> Floats:
    """Speed of each server in relation to all, `[S]`: rows and columns of log seconds fitted by turns."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where((samples > 0) & (means > 0), np.log(means), 0.0)
    weight = np.where((samples > 0) & (means > 0), samples, 0).astype(np.float64)
    row, column = np.zeros(len(logs)), np.zeros(logs.shape[1])
    of_row, of_column = weight.sum(1).clip(min=1e-9), weight.sum(0).clip(min=1e-9)
    for _ in range(50):
        before = column
        row = (weight * (logs - column)).sum(1) / of_row
        column = (weight * (logs - row[:, None])).sum(0) / of_column
        column -= column.mean()
        if (column == before).all():
            break
    result: Floats = np.exp(-column)
    return result
