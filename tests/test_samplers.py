"""Samplers against textbook coefficients and analytic posteriors."""

import math

import pytest
import torch

from diffpolicy import InputError, NoiseSchedule
from diffpolicy.diffusion import ddim, ddpm, reverse_steps, run, timesteps

NAMES = ["vp", "linear", "cosine"]


def exact_noise(schedule, mean, sd):
    """The best prediction of the noise, E[eps | x_i], for a target N(mean, sd^2)."""

    def denoise(x, i):
        bar = schedule.values[i]
        variance = bar * sd**2 + 1 - bar
        return math.sqrt(1 - bar) * (x - math.sqrt(bar) * mean) / variance

    return denoise


def start(schedule, mean, sd, n):
    """Draws of x_I for a target N(mean, sd^2)."""
    bar = schedule.values[-1]
    z = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return math.sqrt(bar) * mean + math.sqrt(bar * sd**2 + 1 - bar) * z


def noise(schedule, n, steps=None):
    g = torch.Generator().manual_seed(1)
    return torch.randn((steps or schedule.steps) - 1, n, dtype=torch.float64, generator=g)


# Coefficients


@pytest.mark.parametrize("name", ["vp", "cosine"])
@pytest.mark.parametrize("steps", [1, 2, 5, 30])
def test_ddpm_steps_are_the_posterior_of_the_forward_process(name, steps):
    schedule = NoiseSchedule.named(name, steps)
    path = reverse_steps(schedule, eta=1.0)
    assert [step.i for step in path] == list(range(steps, 0, -1))
    x, eps = 0.7, -0.4
    for step in path:
        i = step.i
        bar, before = schedule.values[i], schedule.values[i - 1]
        alpha = bar / before
        beta = 1 - alpha
        x0 = (x - math.sqrt(1 - bar) * eps) / math.sqrt(bar)
        mean = beta * math.sqrt(before) / (1 - bar) * x0 + (1 - before) * math.sqrt(alpha) / (1 - bar) * x
        variance = beta * (1 - before) / (1 - bar)
        assert step.keep * x + step.push * eps == pytest.approx(mean, rel=1e-9, abs=1e-12)
        assert step.spread**2 == pytest.approx(variance, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("name", ["vp", "cosine"])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_steps_keep_the_marginals_of_the_forward_process(name, eta):
    # from x_i = sqrt(abar_i) x0 + sqrt(1 - abar_i) eps a step leads to the marginal of x_j, for any eta
    schedule = NoiseSchedule.named(name, 12)
    path = reverse_steps(schedule, 4, eta)
    for step, j in zip(path, [*[s.i for s in path[1:]], 0], strict=True):
        a, b = schedule.values[step.i], schedule.values[j]
        assert step.keep * math.sqrt(a) == pytest.approx(math.sqrt(b))
        of_noise = step.keep * math.sqrt(1 - a) + step.push
        assert of_noise**2 + step.spread**2 == pytest.approx(1 - b, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("steps", "weight"), [(1, 12.5), (2, 13.9), (3, 15.3), (5, 17.5), (10, 20.3)])
def test_a_constant_prediction_weighs_as_much_as_in_lad_ts(steps, weight):
    schedule = NoiseSchedule.named("vp", steps)
    zero = torch.zeros(1, dtype=torch.float64)
    x0 = ddpm(lambda x, i: torch.ones_like(x), zero, schedule, noise=zero.expand(steps - 1, 1))
    assert -x0.item() == pytest.approx(weight, abs=0.05)


def test_the_posterior_noise_on_x0_with_five_vp_steps():
    schedule = NoiseSchedule.named("vp", 5)
    zero = torch.zeros(4, dtype=torch.float64)
    # one unit of noise at each of the four steps in turn
    x0 = ddpm(lambda x, i: torch.zeros_like(x), zero, schedule, noise=torch.eye(4, dtype=torch.float64))
    assert x0.norm().item() == pytest.approx(5.113, abs=5e-4)


def test_the_start_is_amplified_by_the_gain():
    schedule = NoiseSchedule.named("vp", 5)
    x0 = ddim(lambda x, i: torch.zeros_like(x), torch.ones(1, dtype=torch.float64), schedule)
    assert x0.item() == pytest.approx(12.491, abs=5e-4)


# Members of the family


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [None, 1, 3])
def test_the_family_with_eta_one_is_ddpm_and_with_eta_zero_ddim(name, steps):
    schedule = NoiseSchedule.named(name, 7)
    x, z = start(schedule, 0.0, 1.0, 16), noise(schedule, 16)
    denoise = exact_noise(schedule, 0.4, 0.6)
    assert torch.equal(run(denoise, x, reverse_steps(schedule, steps, 1.0), z), ddpm(denoise, x, schedule, steps, z))
    assert torch.equal(run(denoise, x, reverse_steps(schedule, steps, 0.0)), ddim(denoise, x, schedule, steps))


@pytest.mark.parametrize("sampler", [ddpm, ddim])
def test_one_step_is_the_prediction_of_x0(sampler):
    schedule = NoiseSchedule.named("vp", 5)
    x, bar = torch.linspace(-2, 2, 9, dtype=torch.float64), schedule.values[-1]
    denoise = exact_noise(schedule, 0.3, 0.5)
    expected = (x - math.sqrt(1 - bar) * denoise(x, 5)) / math.sqrt(bar)
    torch.testing.assert_close(sampler(denoise, x, schedule, 1), expected)


def test_the_last_step_spreads_nothing_so_that_noise_is_read_for_the_others_alone():
    schedule = NoiseSchedule.named("vp", 5)
    for steps in (1, 2, 5):
        *others, last = reverse_steps(schedule, steps, eta=1.0)
        assert last.spread == 0
        assert all(step.spread > 0 for step in others)
    assert all(step.spread == 0 for step in reverse_steps(schedule, eta=0.0))


# Against analytic targets


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("total", "steps"), [(1, None), (5, None), (5, 2), (60, 7)])
@pytest.mark.parametrize("sampler", [ddpm, ddim])
def test_a_point_target_is_reached_exactly(sampler, name, total, steps):
    schedule = NoiseSchedule.named(name, total)
    x, z = 3 * start(schedule, 0.0, 1.0, 32), noise(schedule, 32)
    x0 = sampler(exact_noise(schedule, -0.8, 0.0), x, schedule, steps, z)
    torch.testing.assert_close(x0, torch.full_like(x0, -0.8), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sampler", [ddpm, ddim])
def test_many_steps_give_the_mean_and_spread_of_a_gaussian_target(sampler, name):
    mean, sd, n = 0.5, 0.3, 20_000
    schedule = NoiseSchedule.named(name, 400)
    x = start(schedule, mean, sd, n)
    x0 = sampler(exact_noise(schedule, mean, sd), x, schedule, noise=noise(schedule, n))
    assert x0.mean().item() == pytest.approx(mean, abs=5 * sd / math.sqrt(n))
    assert x0.std().item() == pytest.approx(sd, rel=0.04)


@pytest.mark.parametrize("sampler", [ddpm, ddim])
def test_the_error_of_the_spread_falls_with_the_number_of_steps(sampler):
    # order one: twice as many steps, half the error. The chain is linear here, so its spread is exact without draws
    mean, sd, errors = 0.0, 0.5, []
    for steps in (40, 80, 160):
        schedule = NoiseSchedule.named("vp", steps)
        x = torch.zeros(steps, dtype=torch.float64)
        x[0] = math.sqrt(schedule.values[-1] * sd**2 + 1 - schedule.values[-1])
        z = torch.eye(steps, dtype=torch.float64)[1:]
        x0 = sampler(exact_noise(schedule, mean, sd), x, schedule, noise=z)
        errors.append(abs(x0.norm().item() - sd) if sampler is ddpm else abs(x0[0].item() - sd))
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.15)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.15)


def test_ddim_is_deterministic_and_needs_no_noise():
    schedule = NoiseSchedule.named("vp", 5)
    x, denoise = start(schedule, 0.0, 1.0, 8), exact_noise(schedule, 0.1, 0.9)
    assert torch.equal(ddim(denoise, x, schedule), ddim(denoise, x, schedule, noise=noise(schedule, 8)))


def test_the_start_is_not_changed_in_place():
    schedule = NoiseSchedule.named("vp", 5)
    x = start(schedule, 0.0, 1.0, 8)
    kept = x.clone()
    ddpm(exact_noise(schedule, 0.1, 0.9), x, schedule, noise=noise(schedule, 8))
    assert torch.equal(x, kept)


# Fewer steps than the schedule has


@pytest.mark.parametrize("total", [1, 5, 7, 100])
def test_timesteps_start_at_the_top_and_fall(total):
    schedule = NoiseSchedule.named("vp", total)
    for steps in {1, (total + 1) // 2, total}:
        chosen = timesteps(schedule, steps)
        assert len(chosen) == steps
        assert chosen[0] == total
        assert chosen[-1] >= 1
        assert all(a > b for a, b in zip(chosen, chosen[1:], strict=False))
    assert timesteps(schedule) == list(range(total, 0, -1))


@pytest.mark.parametrize("steps", [0, -1, 6])
@pytest.mark.parametrize("sampler", [ddpm, ddim])
def test_more_steps_than_the_schedule_or_none_are_refused(sampler, steps):
    schedule = NoiseSchedule.named("vp", 5)
    with pytest.raises(InputError, match=f"from 1 to the 5 .* got {steps}"):
        sampler(lambda x, i: x, torch.zeros(2), schedule, steps, torch.zeros(4, 2))


def test_missing_noise_is_refused():
    schedule = NoiseSchedule.named("vp", 5)
    with pytest.raises(InputError, match="noise"):
        ddpm(lambda x, i: torch.zeros_like(x), torch.zeros(2), schedule)


# Networks that predict x_0


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [None, 1, 3])
def test_predicting_x0_or_the_noise_is_the_same_chain(eta, steps):
    schedule = NoiseSchedule.named("vp", 5)
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    x = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(4, 6, 3, generator=generator, dtype=torch.float64)

    def eps(y, i):
        a = schedule.values[i]
        return (y - math.sqrt(a) * target) / math.sqrt(1 - a)

    by_noise = run(eps, x, reverse_steps(schedule, steps, eta), noise)
    by_x0 = run(lambda y, i: target, x, reverse_steps(schedule, steps, eta, "x0"), noise)
    assert torch.allclose(by_noise, by_x0, atol=1e-9)
    assert torch.allclose(by_x0, target, atol=1e-9)


def test_the_last_prediction_of_x0_is_the_end_of_the_chain():
    for name in ("vp", "linear", "cosine"):
        last = reverse_steps(NoiseSchedule.named(name, 4), prediction="x0")[-1]
        assert (last.keep, last.push, last.spread) == pytest.approx((0, 1, 0), abs=1e-9)


def test_an_unknown_prediction_is_refused():
    with pytest.raises(InputError, match="score"):
        reverse_steps(NoiseSchedule.named("vp", 4), prediction="score")
