"""Laws of arrival: their mean rate, how they cluster, and what they refuse."""

import numpy as np
import pytest

from diffpolicy import InputError
from diffpolicy.edge.workload.laws import Daily, Gamma, OnOff, Poisson, arrival_times

LAWS = [
    Poisson(),
    Gamma(0.5),
    Gamma(3.0),
    OnOff(2.0, 6.0),
    Daily(100.0, amplitude=0.8),
    Daily(100.0, hourly_weights=(1.0,) * 12 + (3.0,) * 12),
]


def rng(seed=0):
    return np.random.default_rng(seed)


def cv(times):
    gaps = np.diff(times)
    return gaps.std() / gaps.mean()


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_the_long_run_rate_is_the_one_that_is_asked_for(law):
    times = arrival_times(law, 7.0, 200_000, rng())
    assert len(times) / times[-1] == pytest.approx(7.0, rel=0.05)
    assert (np.diff(times) >= 0).all()
    assert times[0] >= 0


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_more_arrivals_begin_with_the_same_ones(law):
    many = arrival_times(law, 2.0, 3000, rng(3))
    for count in (0, 1, 17, 1024, 2999):
        np.testing.assert_array_equal(arrival_times(law, 2.0, count, rng(3)), many[:count])


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_another_rate_is_the_same_process_in_another_unit_of_time(law):
    if isinstance(law, (OnOff, Daily)):
        pytest.skip("has a time of its own")
    np.testing.assert_allclose(arrival_times(law, 5.0, 50, rng()), arrival_times(law, 1.0, 50, rng()) / 5)


@pytest.mark.parametrize("law", [Poisson(), Gamma(0.5), Gamma(3.0), OnOff(2.0, 6.0)], ids=repr)
def test_the_process_has_run_before_it_is_looked_at(law):
    """The mean number of arrivals in the first second is the rate, also where arrivals come in bursts."""
    counts = [int((arrival_times(law, 2.0, 60, rng(seed)) < 1.0).sum()) for seed in range(4000)]
    error = np.std(counts) / np.sqrt(len(counts))
    assert abs(np.mean(counts) - 2.0) < 4 * error


def test_gaps_of_a_poisson_process_are_exponential():
    gaps = np.diff(arrival_times(Poisson(), 4.0, 100_000, rng()))
    for x in (0.1, 0.25, 0.6):
        assert (gaps > x).mean() == pytest.approx(np.exp(-4 * x), abs=0.005)


@pytest.mark.parametrize("value", [0.3, 1.0, 2.5])
def test_gaps_of_a_gamma_law_vary_as_they_are_told_to(value):
    assert cv(arrival_times(Gamma(value), 4.0, 300_000, rng())) == pytest.approx(value, rel=0.03)


def test_phases_cluster_arrivals_as_the_closed_form_says():
    """An interrupted Poisson process: cv^2 = 1 + 2 l off^2 on / (on + off)^2, l the rate while on (Kuczura 1973)."""
    on, off, rate = 2.0, 6.0, 3.0
    busy = rate * (on + off) / on
    expected = np.sqrt(1 + 2 * busy * off**2 * on / (on + off) ** 2)
    assert cv(arrival_times(OnOff(on, off), rate, 400_000, rng())) == pytest.approx(expected, rel=0.03)


def test_without_off_phases_it_is_a_poisson_process():
    assert cv(arrival_times(OnOff(1.0, 0.0), 3.0, 50_000, rng())) == pytest.approx(1.0, rel=0.02)


def test_the_rate_follows_the_day():
    law = Daily(100.0, amplitude=0.5)
    phase = np.mod(arrival_times(law, 20.0, 400_000, rng()), 100.0)
    counts, edges = np.histogram(phase, bins=20, range=(0, 100))
    np.testing.assert_allclose(counts / counts.mean(), law.profile((edges[1:] + edges[:-1]) / 2), rtol=0.04)
    assert counts.max() / counts.min() == pytest.approx(1.49 / 0.51, rel=0.08)


def test_hours_have_their_weights():
    weights = tuple(float(h % 5) for h in range(24))
    hour = np.mod(arrival_times(Daily(24.0, hourly_weights=weights), 50.0, 300_000, rng()), 24.0).astype(int)
    np.testing.assert_allclose(
        np.bincount(hour, minlength=24) / len(hour), np.array(weights) / sum(weights), atol=0.002
    )


def test_a_day_may_be_looked_at_from_the_middle():
    law = Daily(100.0, hourly_weights=(0.0,) * 12 + (1.0,) * 12)
    assert arrival_times(law, 5.0, 1, rng())[0] >= 50
    assert arrival_times(law, 5.0, 1, rng(), start_s=50.0)[0] < 10


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Gamma(0), "cv must be greater than 0, got 0"),
        (lambda: Gamma("2"), "cv must be a number, got '2'"),
        (lambda: OnOff(0, 1), "on_s must be greater than 0, got 0"),
        (lambda: OnOff(1, -1), "off_s must be at least 0, got -1"),
        (lambda: Daily(0, 0.5), "period_s must be greater than 0, got 0"),
        (lambda: Daily(10, 1.5), "amplitude must be at most 1, got 1.5"),
        (lambda: Daily(10), "amplitude or hourly_weights must be given, and not both"),
        (lambda: Daily(10, hourly_weights=(1.0,) * 23), "hourly_weights must have 24 entries, got 23"),
        (lambda: Daily(10, hourly_weights=(0.0,) * 24), "hourly_weights must not all be 0"),
        (lambda: arrival_times(Poisson(), 0, 1, rng()), "rate_per_s must be greater than 0, got 0"),
        (lambda: arrival_times(Poisson(), 1, -1, rng()), "count must be at least 0, got -1"),
    ],
)
def test_what_is_out_of_range_is_refused(make, says):
    with pytest.raises(InputError) as error:
        make()
    assert str(error.value) == says
