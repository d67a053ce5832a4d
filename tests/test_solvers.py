"""Samplers of numbers against closed forms in doubles: orders of convergence, mixtures, and diffusers' schedulers."""

import math

import pytest
import torch

from diffpolicy import DiffusionPolicy, InputError
from diffpolicy.cli.acting import SAMPLERS as TOLD
from diffpolicy.diffusion import (
    DDIM,
    SAMPLERS,
    CosineSchedule,
    DPMSolver,
    EDMHeun,
    EDMSchedule,
    FlowEuler,
    FlowHeun,
    FlowProcess,
    GaussianProcess,
    OneStep,
    VPSchedule,
)
from test_chains import MEAN, STD, exact, normal
from toys import GuessEnv

PROCESSES = [GaussianProcess(VPSchedule(), 12), GaussianProcess(EDMSchedule(sigma_max=20.0), 12), FlowProcess(12)]
SOLVERS = [DPMSolver, EDMHeun, FlowEuler, FlowHeun]


def marginal(process, i):
    """Mean and standard deviation of x_i where x_0 ~ N(MEAN, STD^2)."""
    a, noise = process.squares(i)
    return math.sqrt(a) * MEAN, math.sqrt(a * STD**2 + noise)


def error_midway(sampler, process):
    """How far a chain is from the exact flow, x_i = mean_i + std_i z with z constant, at half of its levels."""
    z = torch.tensor([[1.3], [-0.4]], dtype=torch.float64)
    n = process.steps
    mean, std = marginal(process, n)
    states = sampler.chain(exact(process, sampler.prediction), mean + std * z, None, process).states
    mean, std = marginal(process, n // 2)
    return float((states[n - n // 2] - mean - std * z).abs().max())


@pytest.mark.parametrize(
    ("sampler", "order"),
    [(DDIM(), 1), (FlowEuler(), 1), (DPMSolver(), 2), (EDMHeun(), 2), (FlowHeun(), 2)],
    ids=lambda value: type(value).__name__ if not isinstance(value, int) else str(value),
)
@pytest.mark.parametrize(
    "make",
    [
        lambda n: GaussianProcess(VPSchedule(b_max=10.0), n),
        lambda n: GaussianProcess(CosineSchedule(end=0.9), n),
        lambda n: GaussianProcess(EDMSchedule(sigma_max=10.0, rho=3.0), n),
        FlowProcess,
    ],
    ids=["vp", "cosine", "edm", "flow"],
)
@pytest.mark.filterwarnings("ignore:the schedule does not end in noise")
def test_the_order_of_convergence(sampler, order, make):
    errors = [error_midway(sampler, make(n)) for n in (200, 400, 800)]
    slopes = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert slopes == pytest.approx([order] * 2, abs=0.15)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
@pytest.mark.parametrize("kind", [*SOLVERS, OneStep], ids=lambda kind: kind.__name__)
def test_chains_agree_whatever_is_predicted(kind, process):
    x = process.terminal(normal(50, 2))
    ends = [
        kind(prediction=word).sample(exact(process, word), x, None, process) for word in ("noise", "x0", "velocity")
    ]
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-7)
    torch.testing.assert_close(ends[0], ends[2], rtol=0, atol=1e-7)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_eulers_method_on_the_straight_path_is_ddim(process):
    x = process.terminal(normal(50, 2))
    for steps in (None, 5, 1):
        ends = [kind(steps=steps).sample(exact(process), x, None, process) for kind in (FlowEuler, DDIM)]
        torch.testing.assert_close(*ends, rtol=0, atol=1e-9)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
@pytest.mark.parametrize("kind", SOLVERS, ids=lambda kind: kind.__name__)
def test_with_one_step_all_are_the_prediction_of_x0(kind, process):
    x = process.terminal(normal(50, 2))
    one = OneStep().sample(exact(process), x, None, process)
    torch.testing.assert_close(kind(steps=1).sample(exact(process), x, None, process), one, rtol=0, atol=1e-9)
    torch.testing.assert_close(one, exact(process, "x0")(x, process.steps, None), rtol=0, atol=1e-9)


# A mixture of two normal laws: nothing is linear here


CENTRES, WIDTH, WEIGHT = (-1.0, 0.8), 0.15, 0.3


def of_mixture(process):
    """E[x_0 | x_t] of the mixture, in closed form."""

    def model(x, t, cond):
        a, noise = process.squares(t)
        alpha, variance = math.sqrt(a), a * WIDTH**2 + noise
        centres = torch.tensor(CENTRES, dtype=x.dtype)
        weights = torch.tensor([WEIGHT, 1 - WEIGHT], dtype=x.dtype).log()
        away = x.unsqueeze(-1) - alpha * centres
        share = (weights - away.square() / (2 * variance)).softmax(-1)
        return (share * (centres + alpha * WIDTH**2 / variance * away)).sum(-1)

    return model


def distribution_of_mixture(x):
    """P(x_0 <= x)."""
    low, high = (0.5 * (1 + torch.erf((x - c) / (WIDTH * math.sqrt(2)))) for c in CENTRES)
    return WEIGHT * low + (1 - WEIGHT) * high


@pytest.mark.parametrize(
    ("sampler", "process"),
    [
        (DDIM(eta=1.0, prediction="x0"), GaussianProcess("cosine", 300)),
        (DDIM(prediction="x0"), GaussianProcess("cosine", 300)),
        (DPMSolver(prediction="x0"), GaussianProcess(CosineSchedule(), 100)),
        (EDMHeun(prediction="x0"), GaussianProcess(EDMSchedule(sigma_max=30.0), 40)),
        (FlowEuler(prediction="x0"), FlowProcess(400)),
        (FlowHeun(prediction="x0"), FlowProcess(100)),
    ],
    ids=lambda part: type(part).__name__,
)
def test_exact_predictions_lead_to_a_mixture(sampler, process):
    rows = 5_000
    # quantiles in place of draws: solvers are monotone maps of one number
    u = (torch.arange(rows, dtype=torch.float64) + 0.5) / rows
    x = process.terminal(math.sqrt(2) * torch.erfinv(2 * u - 1)).unsqueeze(-1)
    noise = normal(process.steps, rows, 1) if sampler.noisy_steps(process) else None
    end = sampler.sample(of_mixture(process), x, None, process, noise).squeeze(-1).sort().values
    assert float((distribution_of_mixture(end) - u).abs().max()) < 0.025


# Laws, names, policies


@pytest.mark.parametrize("kind", [*SOLVERS, OneStep], ids=lambda kind: kind.__name__)
def test_a_point_has_no_density_and_a_spread_one_has(kind):
    process, x = PROCESSES[0], normal(6, 2)
    plain = exact(process)
    model = lambda x, i, cond: cond + plain(x, i, cond)  # noqa: E731 (what is seen comes through)
    sampler = kind()
    assert sampler.noisy_steps(process) == 0
    with pytest.raises(InputError, match="no density"):
        sampler.log_prob(model, sampler.chain(model, x, 0.5, process).states, 0.5, process)
    spread = kind(min_std=0.05)
    n = len(spread.grid(process)) - 1
    assert spread.grid(process) == ((12, 0) if kind is OneStep else tuple(range(12, -1, -1)))
    assert spread.noisy_steps(process) == n
    z = normal(n, 6, 2, seed=1)
    states = spread.chain(model, x, 0.5, process, z).states
    found = spread.log_prob(model, states, 0.5, process)
    expected = (-0.5 * z.square() - math.log(0.05) - 0.5 * math.log(2 * math.pi)).sum(-1)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(spread.kernel(model, x, 0, 0.5, process).log_prob(states[1]), expected[0])


def test_the_command_line_tells_every_name():
    assert tuple(SAMPLERS) == TOLD


@pytest.mark.parametrize("name", [name for name, make in SAMPLERS.items() if not make("x0").tokens])
def test_a_trained_policy_acts_under_any_sampler(name, tmp_path):
    env = GuessEnv(4)
    policy = DiffusionPolicy.from_specs(env, schedule="cosine", steps=6, prediction="x0", seed=1)
    other = policy.with_sampler(name, None if name == "one-step" else 3)
    assert len(other.path) == (1 if name == "one-step" else 3)
    assert env.full_action_spec["action"].is_in(other(env.reset())["action"])
    other.save(tmp_path)
    again = DiffusionPolicy.load(tmp_path)
    assert again.sampling == other.sampling
    assert (again.sampler, again.sampler_steps) == (name, other.sampler_steps)


def test_a_chain_of_a_solver_is_compiled():
    process, x = GaussianProcess("cosine", 3), torch.linspace(-1, 1, 6).unsqueeze(-1)
    for sampler in (DPMSolver(prediction="x0"), FlowHeun(prediction="x0")):

        def chain(x, sampler=sampler):
            return sampler.sample(lambda x, i, cond: torch.tanh(x), x, None, process)

        torch.testing.assert_close(torch.compile(chain, backend="eager", fullgraph=True)(x), chain(x))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: OneStep(steps=2), "one step, got steps = 2"),
        (lambda: DPMSolver(prediction="score"), "'score'"),
        (lambda: EDMHeun(steps=0).grid(PROCESSES[0]), "from 1 to the 12"),
        (lambda: DiffusionPolicy.from_specs(GuessEnv(4), sampler="heun"), "must be one of ddpm, ddim, dpm"),
    ],
)
def test_mistakes_get_a_sentence(make, words):
    with pytest.raises(InputError, match=words):
        make()


# Against diffusers


LEVELS = 10
BETAS = [0.05 + 0.08 * k for k in range(LEVELS)]
BARS = [math.prod(1 - b for b in BETAS[: k + 1]) for k in range(LEVELS)]


def theirs(name, steps=LEVELS, **options):
    schedulers = pytest.importorskip("diffusers.schedulers")
    options = {"trained_betas": BETAS, "num_train_timesteps": LEVELS, **options}
    scheduler = getattr(schedulers, name)(**options)
    scheduler.set_timesteps(steps)
    return scheduler


def network(x, t):
    return torch.sin(x) + 0.1 * t


def test_ddim_and_ddpm_are_those_of_diffusers():
    process, x = GaussianProcess(tuple(BARS)), normal(20, 3)
    model = lambda x, i, cond: network(x, i - 1)  # noqa: E731 (their timesteps begin at 0)
    scheduler, state = theirs("DDIMScheduler", clip_sample=False), x
    for t in scheduler.timesteps:
        state = scheduler.step(network(state, int(t)), t, state).prev_sample
    torch.testing.assert_close(DDIM().sample(model, x, None, process), state, rtol=1e-6, atol=1e-6)
    # DDPM's means: a step from each level, without its noise
    scheduler = theirs("DDPMScheduler", clip_sample=False)
    for k, t in enumerate(scheduler.timesteps):
        law = DDIM(eta=1.0).kernel(model, x, k, None, process)
        mean = law.sample(None if law.draws is None else torch.zeros_like(x))
        variance = float(scheduler._get_variance(int(t)))
        found = scheduler.step(network(x, int(t)), t, x, generator=torch.Generator().manual_seed(5)).prev_sample
        drawn = torch.randn(20, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        expected = mean if int(t) == 0 else mean + math.sqrt(variance) * drawn
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        if law.draws is not None:
            assert law.std**2 == pytest.approx(variance, rel=1e-5)


def test_dpm_solver_is_that_of_diffusers():
    # their timesteps of nine steps are 9..1, and then sigma = 0: all levels but the first
    scheduler = theirs(
        "DPMSolverMultistepScheduler",
        LEVELS - 1,
        algorithm_type="dpmsolver++",
        solver_order=2,
        final_sigmas_type="zero",
        timestep_spacing="leading",
        lower_order_final=True,
    )
    assert scheduler.timesteps.tolist() == list(range(LEVELS - 1, 0, -1))
    x = state = normal(20, 3)
    for t in scheduler.timesteps:
        state = scheduler.step(network(state, int(t)), t, state).prev_sample
    process = GaussianProcess(tuple(BARS[1:]))
    found = DPMSolver().sample(lambda x, i, cond: network(x, i), x, None, process)
    torch.testing.assert_close(found, state, rtol=1e-5, atol=1e-5)


def test_heuns_steps_are_the_mean_of_two_slopes_but_for_the_last():
    process, x, sampler = GaussianProcess(EDMSchedule(sigma_max=20.0), 4), normal(5, 2), EDMHeun()
    sigma = [0.0, *(math.sqrt(process.squares(i)[1]) for i in range(1, 5))]
    for k, (i, j) in enumerate([(4, 3), (3, 2), (2, 1), (1, 0)]):
        slope = network(x, i)
        if j > 0:
            slope = (slope + network(x + (sigma[j] - sigma[i]) * slope, j)) / 2
        found = sampler.kernel(lambda x, i, cond: network(x, i), x, k, None, process).sample(None)
        torch.testing.assert_close(found, x + (sigma[j] - sigma[i]) * slope)


def test_heuns_method_is_that_of_diffusers():
    schedulers = pytest.importorskip("diffusers.schedulers")
    scheduler = schedulers.FlowMatchHeunDiscreteScheduler(num_train_timesteps=1000)
    scheduler.set_timesteps(6)
    sigmas = [float(s) for s in scheduler.sigmas[::2]] + [float(scheduler.sigmas[-1])]
    sigmas = sorted({round(s, 12) for s in sigmas} - {0.0})
    x = state = normal(20, 3).float()
    for t in scheduler.timesteps:
        state = scheduler.step(torch.sin(state) + 0.1 * t / 1000, t, state).prev_sample

    class Theirs(FlowProcess):
        def squares(self, i):
            sigma = 0.0 if i == 0 else sigmas[i - 1]
            return max(1 - sigma, 1e-6) ** 2, sigma**2

    process = Theirs(len(sigmas))
    found = FlowHeun(prediction="velocity").sample(
        lambda x, i, cond: torch.sin(x) + 0.1 * sigmas[i - 1], x, None, process
    )
    torch.testing.assert_close(found, state, rtol=1e-3, atol=1e-3)
