"""Processes and samplers against closed forms, in double precision, and additions from outside the package."""

import itertools
import math
from dataclasses import dataclass, replace

import pytest
import torch

from diffpolicy import DiffusionPolicy
from diffpolicy.diffusion import (
    DDIM,
    PREDICTIONS,
    FlowProcess,
    GaussianProcess,
    NoiseSchedule,
    Point,
    Sampler,
    reverse_steps,
)
from diffpolicy.diffusion.kernels import Categorical, Gaussian
from diffpolicy.diffusion.processes import Process
from diffpolicy.errors import InputError
from diffpolicy.policies.heads import Head
from toys import GuessEnv

PROCESSES = [GaussianProcess("vp", 8), GaussianProcess("cosine", 8), GaussianProcess("linear", 8), FlowProcess(8)]
MEAN, STD = 0.7, 0.4


def exact(process, prediction="noise"):
    """The best prediction where x_0 ~ N(MEAN, STD^2): E[x_0 | x_t], turned into what is predicted."""

    def model(x, t, cond):
        a, noise = process.squares(t)
        alpha = math.sqrt(a)
        gain = alpha * STD**2 / (a * STD**2 + noise)
        x0 = MEAN + gain * (x - alpha * MEAN)
        return process.convert(x0, x, t, given="x0", wanted=prediction)

    return model


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_predictions_are_turned_into_each_other(process):
    x0, eps = normal(9, 3), normal(9, 3, seed=1)
    for t in (1, 4, process.steps):
        x = process.corrupt(x0, t, eps)
        values = {word: process.target(x0, t, eps, word) for word in PREDICTIONS}
        assert torch.equal(values["noise"], eps)
        assert torch.allclose(values["x0"], x0, atol=1e-6)
        for given in PREDICTIONS:
            for wanted in PREDICTIONS:
                turned = process.convert(values[given], x, t, given=given, wanted=wanted)
                assert torch.allclose(turned, values[wanted], atol=1e-6), (given, wanted)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_times_may_differ_by_row(process):
    x0, eps = normal(process.steps, 2), normal(process.steps, 2, seed=1)
    t = torch.arange(1, process.steps + 1)
    rows = process.corrupt(x0, t, eps)
    assert torch.equal(rows, torch.stack([process.corrupt(x0[k], int(t[k]), eps[k]) for k in range(len(t))]))


@pytest.mark.parametrize("process", PROCESSES, ids=str)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_samplers_agree_whatever_is_predicted(process, eta):
    x, noise = normal(50, 2), normal(7, 50, 2, seed=1)
    ends = [
        DDIM(eta=eta, prediction=word).sample(exact(process, word), x, None, process, noise)
        for word in ("noise", "x0", "velocity")
    ]
    assert torch.allclose(ends[0], ends[1], atol=1e-6)
    assert torch.allclose(ends[0], ends[2], atol=1e-6)


@pytest.mark.parametrize("schedule", ["vp", "cosine", "linear"])
@pytest.mark.parametrize("prediction", ["noise", "x0"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("steps", [None, 1, 3])
def test_the_steps_are_bit_for_bit_those_of_the_functions(schedule, prediction, eta, steps):
    old = reverse_steps(NoiseSchedule.named(schedule, 8), steps, eta, prediction)
    new = DDIM(eta=eta, prediction=prediction, steps=steps).reverse_steps(GaussianProcess(schedule, 8))
    assert [(s.i, s.keep, s.push, s.spread) for s in old] == [(s.i, s.keep, s.push, s.spread) for s in new]


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_exact_predictions_lead_to_the_target(eta):
    process = GaussianProcess("cosine", 400)
    noise = normal(399, 20_000, 1, seed=1)
    end = DDIM(eta=eta).sample(exact(process), normal(20_000, 1), None, process, noise)
    assert float(end.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(end.std()) == pytest.approx(STD, rel=0.05)


def test_the_deterministic_sampler_is_of_first_order():
    def end(steps):
        process = GaussianProcess("cosine", steps)
        return DDIM().sample(exact(process), torch.tensor([[1.3]], dtype=torch.float64), None, process)

    best = end(6400)
    errors = [float((end(n) - best).abs()) for n in (50, 100, 200)]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.25)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.25)


def test_a_recorded_chain_is_evaluated_step_by_step():
    process, sampler = GaussianProcess("vp", 6), DDIM(eta=1.0, min_std=0.05)
    assert sampler.noisy_steps(process) == 6
    model = exact(process)
    chain = sampler.chain(model, normal(40, 3), None, process, normal(6, 40, 3, seed=1))
    assert chain.states.shape == (7, 40, 3)
    assert torch.equal(chain.states[-1], chain.x0)
    log_prob = sampler.log_prob(model, chain.states, None, process)
    assert log_prob.shape == (6, 40)
    z = normal(6, 40, 3, seed=1)
    spreads = torch.tensor([max(s.spread, 0.05) for s in sampler.reverse_steps(process)], dtype=torch.float64)
    expected = (-0.5 * z.square() - 0.5 * math.log(2 * math.pi)).sum(-1) - 3 * spreads.log().unsqueeze(-1)
    assert torch.allclose(log_prob, expected)


def test_the_density_is_that_of_what_is_drawn():
    process, sampler = GaussianProcess("vp", 2), DDIM(eta=1.0, min_std=0.3)
    x = torch.full((1, 1), 0.5, dtype=torch.float64)
    kernel = sampler.kernel(exact(process), x, 0, None, process)
    grid = torch.linspace(-12, 12, 200_001, dtype=torch.float64).unsqueeze(-1)
    assert float(torch.trapezoid(kernel.log_prob(grid).exp(), grid.squeeze(-1))) == pytest.approx(1, abs=1e-6)


def test_of_several_slots_each_has_a_probability_of_its_own():
    mean, logits = normal(2, 3, 4), normal(2, 3, 5, seed=1)
    states, tokens = normal(2, 3, 4, seed=2), torch.arange(6).view(2, 3) % 5
    found = Gaussian(mean, 0.5).log_prob(states), Categorical(logits).log_prob(tokens)
    for row, slot in itertools.product(range(2), range(3)):
        law = torch.distributions.Normal(mean[row, slot], 0.5).log_prob(states[row, slot]).sum()
        torch.testing.assert_close(found[0][row, slot], law)
        law = torch.distributions.Categorical(logits=logits[row, slot]).log_prob(tokens[row, slot])
        torch.testing.assert_close(found[1][row, slot], law)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DDIM(eta=2.0), "eta must be from 0 to 1, got 2.0"),
        (lambda: DDIM(prediction="score"), "'score'"),
        (lambda: DDIM(steps=2.5), "2.5"),
        (lambda: DDIM(min_std=-1.0), "-1.0"),
        (lambda: DDIM(steps=9).grid(GaussianProcess("vp", 8)), "from 1 to the 8"),
        (lambda: GaussianProcess("square", 8), "'square'"),
        (lambda: GaussianProcess().convert(normal(2), normal(2), 1, given="noise", wanted="speed"), "'speed'"),
        (lambda: DDIM().log_prob(exact(PROCESSES[0]), normal(9, 4, 1), None, PROCESSES[0]), "no density"),
        (lambda: DDIM(eta=1.0).log_prob(exact(PROCESSES[0]), normal(3, 4, 1), None, PROCESSES[0]), "9 states, got 3"),
        (lambda: DDIM(eta=1.0).sample(exact(PROCESSES[0]), normal(4, 1), None, PROCESSES[0]), "noise"),
    ],
)
def test_mistakes_get_a_sentence(make, words):
    with pytest.raises(InputError, match=words):
        make()


# Additions from outside


@dataclass(frozen=True)
class Exploding(Process):
    """Variance-exploding: x_i = x_0 + sigma_i eps, sigma rising geometrically (Song et al. 2021)."""

    levels: int = 40
    greatest: float = 20.0

    @property
    def steps(self):
        return self.levels

    def squares(self, i):
        return 1.0, 0.0 if i == 0 else (0.01 * (self.greatest / 0.01) ** (i / self.levels)) ** 2

    def terminal(self, draws):
        return self.greatest * draws


@dataclass(frozen=True, kw_only=True)
class Euler(Sampler):
    """Euler's method on dx/d sigma = (x - x_0) / sigma (Karras et al. 2022), of a variance-exploding process."""

    def noisy_steps(self, process):
        return 0

    def kernel(self, model, x, k, cond, process):
        i, j = self.grid(process)[k : k + 2]
        now, then = (math.sqrt(process.squares(t)[1]) for t in (i, j))
        return Point(x + (then - now) * model(x, i, cond))


def test_a_process_and_a_sampler_of_ones_own():
    process = Exploding()
    start = process.terminal(normal(20_000, 1))
    for sampler in (Euler(), DDIM()):
        end = sampler.sample(exact(process), start, None, process)
        assert float(end.mean()) == pytest.approx(MEAN, abs=0.05)
        assert float(end.std()) == pytest.approx(STD, rel=0.15)


@dataclass(frozen=True)
class Ranked(Head):
    """x_0 holds a score for each choice; the action is one of the two best, the first with chance `first`."""

    kinds = ("categorical",)
    first: float = 0.8
    choices: int = 0

    def sized(self, action):
        self._check_kind(action)
        return replace(self, choices=action.nvec[0])

    @property
    def width(self):
        return self.choices

    @property
    def event(self):
        return ()

    def draws(self, rows, generator):
        return torch.rand(rows, generator=generator, device=generator.device)

    def sample(self, law, draws):
        best = law.topk(2, -1).indices
        return self.mode(law) if draws is None else torch.where(draws < self.first, best[..., 0], best[..., 1])

    def mode(self, law):
        return law.argmax(-1)


def test_a_policy_of_parts_of_ones_own_acts_and_is_saved(tmp_path):
    env = GuessEnv(6)
    policy = DiffusionPolicy.from_specs(
        env, schedule=Exploding(levels=4), sampler=Euler(steps=2), head=Ranked(), prediction="x0", seed=3
    )
    assert policy.draws == 1
    td = env.reset()
    action = policy(td.clone())["action"]
    assert env.full_action_spec["action"].is_in(action)
    policy.save(tmp_path)
    again = DiffusionPolicy.load(tmp_path)
    assert (again.process, again.sampling, again.head) == (policy.process, policy.sampling, policy.head)
    again.reseed(7)
    policy.eval().reseed(7)
    assert torch.equal(again(td.clone())["action"], policy(td.clone())["action"])
    assert policy.with_sampler(DDIM(eta=1.0, prediction="x0")).draws == 4


def test_parts_that_nobody_imported_are_named(tmp_path):
    policy = DiffusionPolicy.from_specs(GuessEnv(4), sampler=DDIM(eta=0.5))
    policy.save(tmp_path)
    file = tmp_path / "policy.json"
    file.write_text(file.read_text().replace('"DDIM"', '"elsewhere:Heun"'))
    with pytest.raises(InputError, match="Heun of the module elsewhere is not imported here"):
        DiffusionPolicy.load(tmp_path)
