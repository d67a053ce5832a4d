"""Guidance by a condition and a critic, against Gaussian laws in closed form; chains that begin from what is given."""

import pytest
import torch
from torch import nn
from torchrl.data import Bounded, MultiCategorical, Unbounded
from torchrl.envs.utils import ExplorationType, set_exploration_type

from diffpolicy import ActionMemory, DiffusionPolicy, InputError
from diffpolicy.diffusion import (
    DDIM,
    Ancestral,
    EDMHeun,
    FlowEuler,
    FlowProcess,
    GaussianProcess,
    MaskedProcess,
    TauLeaping,
    UniformProcess,
    VPSchedule,
    along_gradient,
    classifier_free,
)
from diffpolicy.diffusion.processes import PREDICTIONS
from diffpolicy.environments import check_policy
from diffpolicy.export.decision import Decision
from diffpolicy.networks import CriticEnsemble
from diffpolicy.objectives import TokenImitationLoss
from diffpolicy.policies import BestOf, ClassifierFree, QGradient
from diffpolicy.policies.heads import TokenHead, VectorHead
from test_keys import Specs
from toys import GuessEnv

FINE = GaussianProcess(VPSchedule(), 400)
STILL = ExplorationType.DETERMINISTIC


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact(process, x, i, mean, variance):
    """E[x_0 | x_i] of x_0 ~ N(mean, variance)."""
    a, noise = process.squares(i)
    return mean + a**0.5 * variance * (x - a**0.5 * mean) / (a * variance + noise)


# By the condition


@pytest.mark.parametrize("process", [GaussianProcess("vp", 6), FlowProcess(6)], ids=str)
def test_guidance_is_the_same_of_whatever_is_predicted(process):
    x, given, null = normal(3, 5, 2)
    for wanted in PREDICTIONS:
        turn = lambda y: process.convert(y, x, 4, given="noise", wanted=wanted)  # noqa: B023, E731
        found = classifier_free(turn(given), turn(null), 1.7)
        torch.testing.assert_close(found, turn(classifier_free(given, null, 1.7)))


def test_of_gaussians_of_one_spread_the_mean_is_led_on():
    # scores are linear, so the guided one is that of a mean (1 + w) m, where a chain without noise ends
    for weight in (-1.0, 0.0, 0.5, 2.0):
        model = lambda x, i, cond: classifier_free(  # noqa: E731
            exact(FINE, x, i, 0.8, 0.3),
            exact(FINE, x, i, 0.0, 0.3),
            weight,  # noqa: B023
        )
        end = DDIM(eta=0.0, prediction="x0").sample(model, torch.zeros(1, dtype=torch.float64), None, FINE)
        assert end.item() == pytest.approx(0.8 * (1 + weight), abs=0.01)


def dropping(**options):
    return DiffusionPolicy.from_specs(GuessEnv(6), condition_drop=0.3, steps=3, seed=2, **options)


@pytest.mark.parametrize("agents", [None, 2])
def test_a_guided_policy_sees_more_or_nothing_and_is_saved(agents, tmp_path):
    env = GuessEnv(6, agents)
    policy = DiffusionPolicy.from_specs(env, condition_drop=0.3, steps=3, seed=2)
    observation = torch.randn(*([agents] if agents else []), 6, policy.observation_dim)
    noise = policy.noise(observation.shape[:-1])
    plain, blind, more = (
        policy.with_guidance(guidance).law(observation, noise=noise)
        for guidance in (None, ClassifierFree(-1.0), ClassifierFree(1.5))
    )
    torch.testing.assert_close(policy.with_guidance(ClassifierFree(0.0)).law(observation, noise=noise), plain)
    again = policy.with_guidance(ClassifierFree(-1.0)).law(observation + 3, noise=noise)
    torch.testing.assert_close(blind, again)
    assert not torch.allclose(more, plain)
    guided = policy.with_guidance(ClassifierFree(1.5))
    loaded = DiffusionPolicy.load(guided.save(tmp_path))
    assert loaded.guidance == ClassifierFree(1.5)
    torch.testing.assert_close(loaded.law(observation, noise=noise), more)
    check_policy(loaded, env)
    if agents:
        one = loaded.for_agent(1)
        torch.testing.assert_close(one.law(observation[1], noise=noise[:, 1]), more[1])


def tokens(process=None, **options):
    env = Specs({"observation": Unbounded((4, 3))}, MultiCategorical([3, 2], (4, 2)))
    process = MaskedProcess(4) if process is None else process
    return env, DiffusionPolicy.from_specs(env, schedule=process, head=TokenHead(), seed=1, **options)


def test_a_condition_is_left_out_by_the_draws_of_an_update():
    _, policy = tokens(condition_drop=1.0)
    loss, seen = TokenImitationLoss(policy), torch.randn(40, 3)
    action = torch.stack([torch.randint(3, (40,)), torch.randint(2, (40,))], -1)
    when, noise = torch.full((1,), 0.3), torch.rand(40, 2)
    gone = torch.ones(40, dtype=torch.bool)
    values = [loss.losses(x, action, None, when, noise, d) for x, d in ((seen, gone), (seen + 1, gone), (seen, ~gone))]
    assert values[0] == values[1] != values[2]
    loss.imitate(seen, action).backward()
    assert policy.null.grad.abs().sum() > 0
    some = dropping().drops(torch.Size([4000])).float().mean().item()
    assert some == pytest.approx(0.3, abs=0.03)
    assert tokens()[1].drops(torch.Size([4])) is None
    guided = policy.with_guidance(ClassifierFree(2.0))
    assert tokens()[0].action_spec.is_in(guided(tokens()[0].reset())["action"])


# By a critic


class Known(nn.Module):
    """E[x_0 | x_t] of N(0, 0.01), which no parameter changes."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x, t, cond):
        return exact(FINE, x, t, 0.0, 0.01)


class Linear(nn.Module):
    """Q(s, a) = 3 times the sum of what it reads after the observation."""

    def forward(self, x):
        return 3 * x[..., 2:].sum(-1, keepdim=True).unsqueeze(0)


def vectors(head=None, **options):
    env = Specs({"observation": Unbounded((4, 2))}, Bounded(-1.0, 1.0, (4, 2)))
    return env, DiffusionPolicy.from_specs(env, head=head, **options)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_with_a_linear_critic_the_mean_moves_by_the_scaled_gradient(sampler):
    env, policy = vectors(VectorHead(), schedule=FINE, sampler=sampler, prediction="x0", denoiser=Known())
    guided = policy.with_guidance(QGradient(Linear(), scale=5.0))
    with set_exploration_type(STILL), torch.no_grad():
        action = guided(env.reset())["action"]
    # of N(0, v) times exp(scale g x): the mean is scale g v, and a chain without draws of linear steps is its mean
    torch.testing.assert_close(action, torch.full((4, 2), 5.0 * 3 * 0.01), rtol=0.02, atol=0)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
def test_a_gradient_is_taken_in_inference_mode_too(sampler):
    env, policy = vectors(steps=4, sampler=sampler)
    guided = policy.with_guidance(QGradient(CriticEnsemble(2 + 2, 1), scale=2.0))
    found = []
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode, set_exploration_type(STILL):
            state = env.reset().apply(lambda x: torch.full_like(x, True if x.dtype == torch.bool else 0.3))
            guided.generator.manual_seed(3)
            found.append(guided(state)["action"])
    assert torch.equal(*found)


def test_a_gradient_is_added_to_the_score():
    process, (x, value, gradient) = FlowProcess(6), normal(3, 5, 2)
    for prediction in PREDICTIONS:
        moved = along_gradient(value, gradient, x, 3, process, prediction=prediction, scale=0.4)
        before, after = (process.convert(y, x, 3, given=prediction, wanted="score") for y in (value, moved))
        torch.testing.assert_close(after, before + 0.4 * gradient)


@pytest.mark.parametrize(
    "make",
    [
        lambda: (GuessEnv(300, mask=True), BestOf(CriticEnsemble(3, 3), 30, "state")),
        lambda: (GuessEnv(300, 2), BestOf(CriticEnsemble(3 + 3, 1, agents=2), 30)),
        lambda: (Specs({"observation": Unbounded((4, 2))}, Bounded(-1.0, 1.0, (4, 2))), BestOf(Linear(), 30)),
    ],
    ids=["choices", "agents", "vectors"],
)
def test_the_best_of_several_draws_is_taken(make):
    env, guide = make()
    policy = DiffusionPolicy.from_specs(env, seed=1)
    guided, td = policy.with_guidance(guide), env.reset()
    if isinstance(guide.critic, Linear):
        td["observation"] = normal(4, 2).float()
    check_policy(guided, env)
    rows = policy.rows(td)
    condition = policy.condition(policy.read_observation(td, rows))

    def value(policy):
        action = policy(td.clone())[policy.action_key]
        assert env.full_action_spec[policy.action_key].is_in(action)
        if "action_mask" in td.keys():
            assert td["action_mask"].gather(-1, action.unsqueeze(-1)).all()
        parts = len(policy.head.event)
        flat = rows.take(action.reshape(*rows.shape, -1).float())
        action = flat if parts else flat.squeeze(-1).long()
        return guide.values(policy, condition, action)

    with torch.no_grad():
        plain, best = value(policy), value(guided)
    assert best.mean() > plain.mean() + 0.01
    assert (best >= plain).float().mean() > 0.7


def test_what_was_best_is_remembered():
    env = GuessEnv(5)
    policy = DiffusionPolicy.from_specs(env, prior=ActionMemory(), seed=1).with_guidance(
        BestOf(CriticEnsemble(3, 3), draws=7, reads="state")
    )
    state = env.reset().set("latent", torch.randn(5, 3))
    td = policy(state)
    assert td["next", "latent"].shape == (5, 3)
    with set_exploration_type(STILL):
        first, second = (policy(state.clone())["action"] for _ in range(2))
    assert torch.equal(first, second)


# From what is given


@pytest.mark.parametrize(
    "sampler", [DDIM(eta=1.0), DDIM(), EDMHeun(), FlowEuler(steps=4)], ids=lambda sampler: type(sampler).__name__
)
def test_a_chain_that_begins_within_goes_on_as_the_whole_one(sampler):
    process, x = GaussianProcess("vp", 8), normal(5, 3)
    model = lambda x, i, cond: torch.sin(x) + 0.1 * i  # noqa: E731
    noise = normal(sampler.noisy_steps(process), 5, 3, seed=1)
    chain = sampler.chain(model, x, None, process, noise)
    for k in range(1, len(chain.states)):
        end = sampler.sample(model, chain.states[k], None, process, noise[k:], first=k)
        assert torch.equal(end, chain.x0)


def test_from_any_level_exact_predictions_end_in_the_law_that_was_noised():
    variance = 0.3
    steps = DDIM(eta=1.0, prediction="x0").reverse_steps(FINE)
    for first in (0, 100, 250, 399):
        a, noise = FINE.squares(steps[first].i)
        now = a * variance + noise  # of x_t from q(x_t | x_0), x_0 of the target
        for step in steps[first:]:
            slope = step.keep + step.push * exact(FINE, 1.0, step.i, 0.0, variance)
            now = slope**2 * now + step.spread**2
        assert now == pytest.approx(variance, rel=0.05)


@pytest.mark.parametrize("sampler", [Ancestral(), TauLeaping()], ids=lambda sampler: type(sampler).__name__)
@pytest.mark.parametrize("process", [MaskedProcess(300), UniformProcess(300)], ids=lambda p: type(p).__name__)
def test_from_any_level_tokens_end_in_the_law_that_was_noised(sampler, process):
    law, allowed = torch.tensor([0.5, 0.0, 0.2, 0.3], dtype=torch.float64), torch.tensor([[True, False, True, True]])
    v = process.vocabulary(4)
    states = torch.arange(v).unsqueeze(-1)
    marginal = lambda i: torch.stack(  # noqa: E731
        [process.marginal(torch.tensor([c]), i, allowed)[0] for c in range(4)]
    )

    def model(x, i, cond):
        likely = marginal(i)[:, x.squeeze(-1)].T * law
        return torch.where(likely > 0, likely.log(), -torch.inf).clamp_min(-1e9).unsqueeze(-2)

    for first in (0, 150, 299):
        i = sampler.grid(process)[first]
        now = law @ marginal(i)
        for k in range(first, 300):
            now = now @ sampler.kernel(model, states, k, None, process).logits.softmax(-1)[:, 0]
        exact_steps = isinstance(sampler, Ancestral)
        torch.testing.assert_close(now[:4], law, atol=1e-9 if exact_steps else 5e-3, rtol=0)


def test_a_policy_begins_from_what_it_is_given():
    env, policy = vectors(VectorHead(), schedule=FINE, sampler="ddim", prediction="x0", denoiser=Known())
    given = torch.linspace(-0.1, 0.1, 8).view(4, 2)
    td = env.reset().set("start", given)
    ends = {level: policy.with_start(level)(td.clone())["action"] for level in (1, 60, 400)}
    away = {level: (action - given).abs().mean().item() for level, action in ends.items()}
    assert away[1] < 0.03 < away[60]
    assert away[60] < away[400]
    check_policy(policy.with_start(None), env)
    with pytest.raises(InputError, match="reads 'start', which"):
        check_policy(policy.with_start(1), env)
    with set_exploration_type(STILL):
        first, second = (policy.with_start(60)(td.clone())["action"] for _ in range(2))
    assert torch.equal(first, second)


class AsSeen(nn.Module):
    """x_0 is most likely what x_t is."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x, t, cond):
        return 9 * x


@pytest.mark.parametrize("process", [MaskedProcess(50), UniformProcess(50)], ids=lambda p: type(p).__name__)
def test_a_policy_of_tokens_begins_from_an_action(process):
    env, policy = tokens(process, denoiser=AsSeen())
    action = torch.tensor([[0, 1], [2, 0], [1, 1], [2, 1]])
    td = env.reset().set("observation", torch.zeros(4, 3)).set("start", action)

    def kept(level, times):
        begun = policy.with_start(level)
        return torch.stack([begun(td.clone())["action"] == action for _ in range(times)]).float().mean().item()

    assert kept(1, 30) > 0.9 > kept(50, 10)
    shown = env.observation_spec.clone()
    shown["start"] = env.action_spec.clone()
    check_policy(policy.with_start(2), Specs(dict(shown.items()), env.action_spec))
    with set_exploration_type(STILL):
        assert env.action_spec.is_in(policy.with_start(2)(td.clone())["action"])


@pytest.mark.parametrize("kind", [BestOf, QGradient])
def test_the_critic_of_a_guided_policy_is_saved_with_it(kind, tmp_path):
    env, policy = vectors()
    critic = CriticEnsemble(policy.observation_dim + policy.head.feature_width, 1, hidden=(8,))
    guided = policy.with_guidance(kind(critic))
    assert policy.guiding is None  # the policy itself stays as it was
    assert len(list(guided.parameters())) > len(list(policy.parameters()))
    guided.save(tmp_path)
    again = DiffusionPolicy.load(tmp_path)
    assert all(map(torch.equal, again.guidance.critic.parameters(), critic.parameters()))
    for each in (guided, again):
        each.reseed(5)
    state = env.reset()
    assert torch.equal(guided.eval()(state.clone())["action"], again(state.clone())["action"])
    assert len(list(again.with_guidance(None).parameters())) == len(list(policy.parameters()))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: vectors()[1].with_guidance(ClassifierFree(1.0)), "condition_drop above 0"),
        (lambda: ClassifierFree(-2.0), "weight must be at least -1"),
        (lambda: dropping(guidance="more"), "guidance must be a Guidance, such as"),
        (lambda: dropping().with_guidance(QGradient(Linear())), "a CategoricalHead makes choices; use BestOf"),
        (lambda: dropping().with_guidance(BestOf(CriticEnsemble(9, 1))), "critic cannot read 6 numbers"),
        (
            lambda: dropping().with_guidance(BestOf(CriticEnsemble(3, 2), reads="state")),
            r"\[K, 2, 3\], got \[2, 2, 2\]",
        ),
        (lambda: vectors()[1].with_guidance(BestOf(Linear())).save("nowhere"), "a policy's file does not hold"),
        (lambda: setattr(vectors()[1].with_guidance(BestOf(Linear())), "record", True), "have no law"),
        (lambda: Decision(vectors()[1].with_guidance(QGradient(Linear()))), "a QGradient guides has no exported form"),
        (lambda: vectors()[1].with_start(9), r"through, \(5, 4, 3, 2, 1\), got 9"),
        (lambda: vectors(prior=ActionMemory())[1].with_start(2), "starts from what it remembers"),
        (lambda: vectors()[1].with_start(2).with_sampler("ddim", 1), "begins at level 2, which is none of"),
        (
            lambda: vectors()[1].with_start(2)(vectors()[0].reset().set("start", torch.zeros(4, 3))),
            r"'start' must give \[4, 4\] numbers, got \[4, 3\]",
        ),
    ],
)
def test_mistakes_get_a_sentence(make, words):
    with pytest.raises(InputError, match=words):
        make()
