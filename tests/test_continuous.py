"""Schedules in continuous time: identities, derivatives, ends; predictions turned into each other, all in doubles."""

import math
import warnings
from dataclasses import replace

import pytest
import torch

from diffpolicy import DiffusionPolicy, InputError, NoiseSchedule
from diffpolicy.diffusion import (
    CosineSchedule,
    DPMSolver,
    EDMSchedule,
    FlowProcess,
    FlowSchedule,
    GaussianProcess,
    Schedule,
    VPSchedule,
    noise_of_score,
    noise_of_velocity,
    noise_of_x0,
    score_of_noise,
    velocity_of,
    x0_of_noise,
    x0_of_velocity,
)
from diffpolicy.diffusion.processes import PREDICTIONS
from toys import GuessEnv

SCHEDULES = [
    VPSchedule(),
    VPSchedule(b_max=10.0),
    CosineSchedule(),
    FlowSchedule(),
    EDMSchedule(),
    EDMSchedule(rho=1.0),
]
TIMES = torch.linspace(0.02, 0.99, 25, dtype=torch.float64)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_derivatives_are_those_of_the_coefficients(schedule):
    t = TIMES.clone().requires_grad_()
    at = schedule.at(t)
    for value, derivative in ((at.alpha, at.d_alpha), (at.sigma, at.d_sigma)):
        (slope,) = torch.autograd.grad((value + 0 * t).sum(), t, retain_graph=True)
        torch.testing.assert_close(derivative, slope, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_derivatives_by_the_level_are_those_of_differences(schedule):
    levels, i = 1000, torch.tensor([300.0, 700.0], dtype=torch.float64)
    before, here, after = (schedule.level(i + step, levels) for step in (-1, 0, 1))
    torch.testing.assert_close((after.sigma - before.sigma) / 2, here.d_sigma, rtol=1e-3, atol=0)
    torch.testing.assert_close((after.alpha - before.alpha) / 2, here.d_alpha, rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES[:3], ids=str)
def test_signal_and_noise_share_the_variance(schedule):
    at = schedule.at(TIMES)
    torch.testing.assert_close(at.alpha.square() + at.sigma.square(), torch.ones_like(TIMES), rtol=0, atol=1e-12)


def test_vp_in_levels_is_the_schedule_of_that_name():
    process = GaussianProcess(VPSchedule(b_max=10.0), 5)
    assert process.values == pytest.approx(NoiseSchedule.named("vp", 5).values, rel=1e-12)


def test_betas_of_ddpm_are_the_levels_of_vp_in_the_limit():
    levels, named = GaussianProcess(VPSchedule(), 1000).values, NoiseSchedule.named("linear", 1000).values
    assert max(abs(a - b) for a, b in zip(levels, named, strict=True)) < 2e-3


def test_a_flow_process_has_the_levels_of_its_schedule():
    process, at = FlowProcess(10), FlowSchedule(end=1.0).at(torch.arange(10, dtype=torch.float64) / 10)
    for i in range(10):
        assert process.squares(i) == pytest.approx((float(at.alpha[i]) ** 2, float(at.sigma[i]) ** 2))
    assert process.squares(10) == (1e-6, 0.999**2)
    fine = FlowProcess(1001)  # whose last steps are shorter than what is left: no two levels are the same
    assert all(fine.squares(i)[0] > fine.squares(i + 1)[0] for i in range(1001))
    end = DPMSolver(prediction="x0").sample(lambda x, i, cond: x + 1, torch.zeros(1), None, fine)
    assert torch.isfinite(end).all()


def test_edm_sigmas_are_those_of_the_paper():
    # eq. 5: sigma_i of i = 0..N-1 from the greatest to the least
    n, rho, low, high = 18, 7, 0.002, 80.0
    root = [high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho)) for i in range(n)]
    found = [math.sqrt(GaussianProcess(EDMSchedule(), n).squares(i)[1]) for i in range(n, 0, -1)]
    assert found == pytest.approx([r**rho for r in root], rel=1e-9)
    assert float(GaussianProcess(EDMSchedule(), n).terminal(torch.ones(()))) == high


# Ends


@pytest.mark.parametrize(
    ("make", "left"),
    [
        (
            lambda: GaussianProcess(
                tuple(math.prod([1 - 1e-4 - 0.02 * k / 9 for k in range(n + 1)]) for n in range(10))
            ),
            0.9,
        ),
        (lambda: GaussianProcess(VPSchedule(b_max=5.0), 8), math.exp(-2.55)),
        (lambda: GaussianProcess(EDMSchedule(sigma_max=2.0), 8), 0.2),
    ],
    ids=["linear betas of a thousand steps, at ten", "vp", "edm"],
)
def test_a_schedule_that_does_not_end_in_noise_says_what_is_left(make, left):
    with pytest.warns(UserWarning, match="does not end in noise: alpha_bar is") as told:
        process = make()
    a, noise = process.squares(process.steps)
    assert a / (a + noise) == pytest.approx(left, rel=0.02)
    assert f"{a / (a + noise):.4g}" in str(told[0].message)


@pytest.mark.parametrize("steps", [1, 2, 5, 100])
def test_named_schedules_end_in_noise(steps):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("vp", "linear", "cosine"):
            GaussianProcess(name, steps)
        for schedule in (VPSchedule(), VPSchedule(b_max=10.0), CosineSchedule(), EDMSchedule()):
            assert schedule.rest < 0.01
            GaussianProcess(schedule, steps)


# Predictions


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_each_function_undoes_its_inverse(schedule):
    at = schedule.at(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64).unsqueeze(-1))
    x0, eps = normal(3, 7), normal(3, 7, seed=1)
    x = at.alpha * x0 + at.sigma * eps
    v = velocity_of(x0, eps, at.d_alpha, at.d_sigma)
    pairs = [
        (x0_of_noise(eps, x, at.alpha, at.sigma), x0),
        (noise_of_x0(x0, x, at.alpha, at.sigma), eps),
        (noise_of_score(score_of_noise(eps, at.sigma), at.sigma), eps),
        (x0_of_velocity(v, x, at.alpha, at.sigma, at.d_alpha, at.d_sigma), x0),
        (noise_of_velocity(v, x, at.alpha, at.sigma, at.d_alpha, at.d_sigma), eps),
    ]
    for found, expected in pairs:
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_the_velocity_is_the_derivative_along_the_path():
    schedule, x0, eps = VPSchedule(), normal(5), normal(5, seed=1)
    t = torch.full((5,), 0.4, dtype=torch.float64, requires_grad=True)
    at = schedule.at(t)
    (slope,) = torch.autograd.grad((at.alpha * x0 + at.sigma * eps).sum(), t)
    torch.testing.assert_close(velocity_of(x0, eps, at.d_alpha, at.d_sigma), slope)


def test_a_process_with_any_schedule_turns_predictions_into_each_other():
    for process in (GaussianProcess(EDMSchedule(sigma_max=10.0), 6), GaussianProcess(CosineSchedule(), 6)):
        x0, eps = normal(4, 3), normal(4, 3, seed=1)
        for t in (1, torch.tensor([1, 3, 5, 6])):
            x = process.corrupt(x0, t, eps)
            values = {word: process.target(x0, t, eps, word) for word in PREDICTIONS}
            for given in PREDICTIONS:
                for wanted in PREDICTIONS:
                    turned = process.convert(values[given], x, t, given=given, wanted=wanted)
                    torch.testing.assert_close(turned, values[wanted], rtol=1e-7, atol=1e-7)


# Policies and files


@pytest.mark.parametrize("schedule", [EDMSchedule(sigma_max=10.0), VPSchedule(), CosineSchedule(s=0.01)], ids=str)
def test_a_policy_on_any_schedule_is_saved(schedule, tmp_path):
    policy = DiffusionPolicy.from_specs(GuessEnv(4), schedule=GaussianProcess(schedule, 4), sampler="edm-heun")
    policy.save(tmp_path)
    again = DiffusionPolicy.load(tmp_path)
    assert (again.process, again.sampling) == (policy.process, policy.sampling)
    assert again.process.schedule == schedule
    kind = {"kind": f"elsewhere:{type(schedule).__name__}"}  # as a file names a class of another module
    assert Schedule.from_dict({**vars(schedule), **kind}) == schedule


def test_levels_of_edm_begin_at_the_least_noise_and_end_at_the_most():
    for levels in (2, 3, 9):
        sigma = EDMSchedule(rho=0.5).level(torch.tensor([1.0, float(levels)], dtype=torch.float64), levels).sigma
        torch.testing.assert_close(sigma, torch.tensor([0.002, 80.0], dtype=torch.float64))
    assert EDMSchedule().time(1, 1) == 1


def test_numbers_at_the_ends_of_their_ranges_are_schedules():
    steady = VPSchedule(b_min=1.0, b_max=1.0).at(torch.tensor(0.5, dtype=torch.float64))
    assert float(steady.alpha) == pytest.approx(math.exp(-0.25))  # constant betas: log alpha = -t / 2
    assert VPSchedule(b_min=0.0).rest < 0.01
    assert float(CosineSchedule(s=0.0).at(torch.tensor(0.0, dtype=torch.float64)).alpha) == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: VPSchedule(b_min=3.0, b_max=1.0), "got 3.0 and 1.0"),
        (lambda: VPSchedule(b_max=math.inf), "inf"),
        (lambda: CosineSchedule(end=1.0), "1.0"),
        (lambda: CosineSchedule(end=0.0), "0.0"),
        (lambda: CosineSchedule(s=math.inf), "inf"),
        (lambda: FlowSchedule(end=2.0), "2.0"),
        (lambda: FlowSchedule(end=0.0), "0.0"),
        (lambda: EDMSchedule(sigma_min=0.0), "got 0.0, 80.0"),
        (lambda: GaussianProcess(FlowSchedule(), 4), "use a FlowProcess"),
        (lambda: GaussianProcess(VPSchedule(), 0), "levels"),
        (lambda: FlowProcess(0), "levels"),
        (lambda: FlowProcess(4, least=1.0), "least must be above 0 and below 1, got 1.0"),
        (lambda: Schedule.from_dict({"kind": "Sqrt"}), "'Sqrt'"),
        (lambda: Schedule.from_dict({"end": 1.0}), "schedule must be one of"),
        (lambda: Schedule.from_dict({"kind": "VPSchedule", "b": 1}), "schedule VPSchedule"),
        (lambda: EDMSchedule(sigma_min=1.0, sigma_max=1.0), "got 1.0, 1.0"),
        (lambda: EDMSchedule(sigma_max=math.inf), "got 0.002, inf"),
        *((lambda rho=rho: replace(EDMSchedule(), rho=rho), "rho above 0") for rho in (-1.0, 0.0, math.inf)),
    ],
)
def test_mistakes_get_a_sentence(make, words):
    with pytest.raises(InputError, match=words):
        make()
