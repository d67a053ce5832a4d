"""Laws of single arrivals in continuous time, each with a given mean rate: pure functions of a random generator."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy._total import total
from diffpolicy._types import Floats
from diffpolicy.errors import InputError

_PHASES = 10**5
"""On phases, and thousands of thinned arrivals, in which the requests of an episode must have come."""


class ArrivalLaw(Protocol):
    """How arrivals cluster; how many there are in the long run is said by the rate."""

    def times(self, rate_per_s: float, count: int, rng: np.random.Generator, start_s: float = 0.0) -> Floats:
        """The first `count` arrivals in seconds after `start_s`, increasing, `[count]`."""
        ...


def arrival_times(
    law: ArrivalLaw, rate_per_s: float, count: int, rng: np.random.Generator, start_s: float = 0.0
) -> Floats:
    """The first arrivals of a process that has run for ever before it is looked at.

    The process is stationary, so the mean number in any window is rate times length, also in the first seconds of a
    bursty one; `Daily` alone depends on where in its period it starts. More arrivals begin with the same ones: the
    first 10 of 100 are the 10 that a generator of the same seed gives.

    Args:
        law: how arrivals cluster. rate_per_s: mean rate, from 1e-12 to 1e12. count: how many, >= 0. rng: what draws.
        start_s: time on the clock of `Daily` at which the process is looked at, s.

    Returns:
        Seconds after the start, not decreasing, `[count]`.

    Raises:
        InputError: the rate or the count is out of range.

    Example:
        >>> times = arrival_times(Gamma(cv=2.0), 5.0, 10_000, np.random.default_rng(0))
        >>> round(float(len(times) / times[-1]), 1)
        5.0
    """
    rate_per_s = check.number(rate_per_s, "rate_per_s", above=0, least=_limits.LEAST, most=_limits.MOST)
    return law.times(rate_per_s, check.integer(count, "count", least=0, most=10 * _limits.SLOTS), rng, start_s)


@dataclass(frozen=True)
class Poisson:
    """Independent users: exponential gaps, P[gap > x] = exp(-rate x)."""

    def times(self, rate_per_s: float, count: int, rng: np.random.Generator, start_s: float = 0.0) -> Floats:
        return np.cumsum(rng.standard_exponential(count)) / rate_per_s


@dataclass(frozen=True)
class Gamma:
    """Gaps of a gamma law with shape 1/cv^2 and mean 1/rate: regular below cv 1, Poisson at 1, bursty above.

    Args:
        cv: coefficient of variation of the gaps, standard deviation / mean, > 0.
    """

    cv: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "cv", check.number(self.cv, "cv", above=0, least=1e-6, most=1e6))

    def times(self, rate_per_s: float, count: int, rng: np.random.Generator, start_s: float = 0.0) -> Floats:
        shape = self.cv**-2
        # a look at a random time falls into a gap with a chance that grows with its length, at a uniform place in it
        first = rng.uniform(size=1) * rng.standard_gamma(shape + 1, size=1)
        gaps = np.concatenate([first, rng.standard_gamma(shape, size=max(count - 1, 0))])[:count]
        return np.cumsum(gaps) / (shape * rate_per_s)


@dataclass(frozen=True)
class OnOff:
    """Poisson arrivals in on phases, none in off phases, both of exponential length (an interrupted Poisson process).

    While on, the rate is `rate_per_s * (on_s + off_s) / on_s`.

    Args:
        on_s: mean length of an on phase, > 0 s. off_s: mean length of an off phase, >= 0 s.
    """

    on_s: float
    off_s: float

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "on_s", check.number(self.on_s, "on_s", above=0, least=_limits.LEAST, most=_limits.MOST)
        )
        object.__setattr__(self, "off_s", check.number(self.off_s, "off_s", least=0, most=_limits.MOST))

    def times(self, rate_per_s: float, count: int, rng: np.random.Generator, start_s: float = 0.0) -> Floats:
        phases = rng.spawn(1)[0]
        share_on = self.on_s / (self.on_s + self.off_s)
        off_first = phases.uniform() >= share_on
        wait_s = phases.exponential(self.off_s)
        on_clock = np.cumsum(rng.standard_exponential(count)) * (share_on / rate_per_s)
        ends, offs = np.empty(0), np.empty(0)
        if count and on_clock[-1] > _PHASES * self.on_s:
            raise InputError(
                f"on_s must be longer: {count} arrivals take more than {_PHASES:,} phases of {self.on_s:g} s"
            )
        while count and (not len(ends) or ends[-1] < on_clock[-1]):
            more = phases.standard_exponential((64, 2)) * (self.on_s, self.off_s)
            ends = np.concatenate([ends, np.cumsum(more[:, 0]) + (ends[-1] if len(ends) else 0.0)])
            offs = np.concatenate([offs, more[:, 1]])
        off_before = np.concatenate([[0.0], np.cumsum(offs)])[np.searchsorted(ends, on_clock)]
        times: Floats = on_clock + off_before + (wait_s if off_first else 0.0)
        return times


@dataclass(frozen=True)
class Daily:
    """Poisson arrivals whose rate follows the time of day: rate x (1 + amplitude sin(2 pi t / period_s)).

    Args:
        period_s: length of the day, > 0 s.
        amplitude: swing of the sine, from 0 to 1; either this or `hourly_weights`.
        hourly_weights: relative rate in each 24th of the day, 24 numbers >= 0, in the place of the sine.
    """

    period_s: float = 86400.0
    amplitude: float | None = None
    hourly_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "period_s", check.number(self.period_s, "period_s", above=0, least=_limits.LEAST, most=_limits.MOST)
        )
        if (self.amplitude is None) == (self.hourly_weights is None):
            raise InputError("amplitude or hourly_weights must be given, and not both")
        if self.amplitude is not None:
            amplitude = check.number(self.amplitude, "amplitude", least=0)
            if amplitude > 1:
                raise InputError(f"amplitude must be at most 1, got {check.show(self.amplitude)}")
            object.__setattr__(self, "amplitude", amplitude)
        else:
            entries = enumerate(check.sequence(self.hourly_weights, "hourly_weights", length=24))
            weights = tuple(check.number(x, f"hourly_weights[{i}]", least=0, most=_limits.MOST) for i, x in entries)
            if not sum(weights) > 0:
                raise InputError("hourly_weights must not all be 0")
            object.__setattr__(self, "hourly_weights", weights)

    def profile(self, t_s: Floats) -> Floats:
        """Rate at times of the day over the mean rate, of the shape of `t_s`."""
        if self.amplitude is not None:
            wave: Floats = 1 + self.amplitude * np.sin(2 * np.pi * t_s / self.period_s)
            return wave
        weights: Floats = np.array(self.hourly_weights)
        hour = np.floor(24 * np.mod(t_s / self.period_s, 1.0)).astype(np.int64)
        step: Floats = (weights / weights.mean())[np.minimum(hour, 23)]
        return step

    def times(self, rate_per_s: float, count: int, rng: np.random.Generator, start_s: float = 0.0) -> Floats:
        """Thinning (Lewis and Shedler 1979): of arrivals at the peak rate, each is kept with chance rate / peak."""
        if self.amplitude is not None:
            peak = 1 + self.amplitude
        else:
            peak = 24 * max(self.hourly_weights or ()) / total(self.hourly_weights or ())
        keep = rng.spawn(1)[0]
        last, kept, found = 0.0, [np.empty(0)], 0
        for tried in itertools.count():
            if found >= count:
                break
            if tried > _PHASES:
                raise InputError(f"period_s must be shorter: no arrivals come for too long, got {self.period_s:g}")
            t = last + np.cumsum(rng.standard_exponential(1024)) / (peak * rate_per_s)
            last = t[-1]
            kept.append(t[keep.uniform(size=1024) * peak < self.profile(start_s + t)])
            found += len(kept[-1])
        return np.concatenate(kept)[:count]
