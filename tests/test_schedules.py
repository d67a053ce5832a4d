"""Noise schedules: identities, closed forms, and what is refused."""

import math

import pytest
import torch

from diffpolicy import InputError, NoiseSchedule
from diffpolicy.diffusion import SCHEDULES, GaussianProcess

NAMES = sorted(SCHEDULES)
STEPS = [1, 2, 3, 5, 10, 50, 1000]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", STEPS)
def test_signal_shares_fall_from_one_and_stay_positive(name, steps):
    bars = NoiseSchedule.named(name, steps).alpha_bar
    assert bars.dtype == torch.float64
    assert bars.shape == (steps + 1,)
    assert bars[0] == 1
    assert (bars.diff() < 0).all()
    assert (bars > 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", STEPS)
def test_signal_shares_are_products_of_the_alphas(name, steps):
    betas = torch.tensor(SCHEDULES[name](steps), dtype=torch.float64)
    assert betas.shape == (steps,)
    assert ((betas > 0) & (betas < 1)).all()
    torch.testing.assert_close(NoiseSchedule.named(name, steps).alpha_bar[1:], (1 - betas).cumprod(0))


@pytest.mark.parametrize("steps", STEPS)
def test_vp_has_the_same_end_for_any_number_of_steps(steps):
    # the exponents add up to b_min + (b_max - b_min) / 2
    assert NoiseSchedule.named("vp", steps).values[-1] == pytest.approx(math.exp(-5.05), rel=1e-12)


def test_vp_with_five_steps_is_that_of_lad_ts():
    end = float(NoiseSchedule.named("vp", 5).alpha_bar[-1])
    assert end == pytest.approx(0.006409, abs=5e-7)
    assert end**-0.5 == pytest.approx(12.491, abs=5e-4)


@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("steps", STEPS)
def test_linear_and_cosine_end_in_noise(name, steps):
    assert NoiseSchedule.named(name, steps).values[-1] < 0.01


def test_linear_with_a_thousand_steps_is_that_of_ddpm():
    betas = SCHEDULES["linear"](1000)
    assert betas[0] == pytest.approx(1e-4)
    assert betas[-1] == pytest.approx(0.02)
    assert betas[500] - betas[499] == pytest.approx((0.02 - 1e-4) / 999)


def test_cosine_has_its_closed_form_before_the_clip():
    def f(u):
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    bars = NoiseSchedule.named("cosine", 40).values
    for i in range(40):
        assert bars[i] == pytest.approx(f(i / 40) / f(0), rel=1e-10)


def test_the_schedule_has_no_trainable_or_saved_state():
    schedule = NoiseSchedule.named("vp", 5)
    assert list(schedule.parameters()) == []
    assert schedule.state_dict() == {}
    assert schedule.steps == 5


def test_a_process_takes_a_schedule_however_its_shares_are_given():
    shares = (0.5, 0.125)
    for given in (NoiseSchedule(shares), list(shares), torch.tensor(shares)):
        assert GaussianProcess(given, 2) == GaussianProcess(shares, 2)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"vp, linear, cosine.*'quadratic'"):
        NoiseSchedule.named("quadratic", 5)


@pytest.mark.parametrize("steps", [0, -3])
def test_fewer_than_one_step_is_refused(steps):
    with pytest.raises(InputError, match=f"got {steps}"):
        NoiseSchedule.named("vp", steps)


@pytest.mark.parametrize("bars", [[], [1.0], [0.5, 0.5], [0.2, 0.4], [0.5, 0.0], [0.5, -0.1], [1.2], [float("nan")]])
def test_shares_that_do_not_fall_within_the_unit_interval_are_refused(bars):
    with pytest.raises(InputError, match="noise schedule"):
        NoiseSchedule(bars)
