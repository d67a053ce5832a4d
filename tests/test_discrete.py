"""Processes and samplers of tokens against Bayes' rule and exact distributions, by enumeration in doubles."""

import itertools
import math

import pytest
import torch
from torchrl.data import Categorical, MultiCategorical, OneHot, Unbounded

from diffpolicy import DiffusionPolicy, InputError
from diffpolicy.diffusion import (
    DDIM,
    SAMPLERS,
    Ancestral,
    GaussianProcess,
    MaskedProcess,
    TauLeaping,
    TokenProcess,
    UniformProcess,
    allowed_by,
)
from diffpolicy.diffusion import Categorical as CategoricalKernel
from diffpolicy.diffusion.discrete import _rank
from diffpolicy.environments import check_policy
from diffpolicy.policies.heads import TokenHead
from test_joint import env_of, seen
from test_keys import Specs

CHOICES = 3
KINDS = [MaskedProcess, UniformProcess]
SHAPES = ["linear", "cosine"]


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def every(count, slots):
    return torch.tensor(list(itertools.product(range(count), repeat=slots)))


def forward(process, allowed):
    """Matrices q(x_i | x_(i-1)) of one slot, of each level, from the definition of the process."""
    count = int(allowed.sum())
    size = process.vocabulary(len(allowed))
    for i in range(1, process.steps + 1):
        stays = process.kept(i) / process.kept(i - 1)
        step = torch.eye(size, dtype=torch.float64)
        to = torch.zeros(size, dtype=torch.float64)
        if size > len(allowed):
            to[-1] = 1
        else:
            to[allowed] = 1 / count
        step = stays * step + (1 - stays) * to
        if size > len(allowed):
            step[-1] = to
        yield step


ALLOWED = [torch.tensor([True, True, True]), torch.tensor([True, False, True])]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("allowed", ALLOWED, ids=["all", "two"])
def test_marginals_and_posteriors_are_those_of_the_forward_matrices(kind, shape, allowed):
    process = kind(5, shape)
    steps = list(forward(process, allowed))
    law = torch.where(allowed, torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64), 0.0)
    law = law / law.sum()
    logits = torch.where(allowed, law.log(), -1e9)
    size = process.vocabulary(CHOICES)
    for i in range(1, 6):
        whole = torch.linalg.multi_dot([*steps[:i], torch.eye(size, dtype=torch.float64)])
        found = process.marginal(torch.arange(CHOICES), i, allowed)
        torch.testing.assert_close(found[allowed], whole[:CHOICES][allowed])
        torch.testing.assert_close(
            process.marginal(torch.zeros(1).long(), i, allowed)[0], whole[0]
        )  # of the first alone
        for j in range(i):
            one = torch.eye(size, dtype=torch.float64)
            before = torch.linalg.multi_dot([one, one, *steps[:j]])
            between = torch.linalg.multi_dot([*steps[j:i], torch.eye(size, dtype=torch.float64)])
            for x in range(size):
                if float(law @ whole[:CHOICES, x]) == 0:
                    continue
                # p(x_0) is what is told of x_0 at x_i, so q(x_j | x_i) = sum over x_0 of p(x_0) q(x_j | x_i, x_0)
                told = law.clone() if size == CHOICES or x == CHOICES else torch.eye(CHOICES, dtype=torch.float64)[x]
                expected = torch.zeros(size, dtype=torch.float64)
                for x0 in range(CHOICES):
                    if told[x0] > 0:
                        expected += told[x0] * before[x0] * between[:, x] / whole[x0, x]
                posterior = process.posterior(logits.unsqueeze(0), torch.tensor([x]), i, j).squeeze(0)
                torch.testing.assert_close(posterior, expected, rtol=1e-9, atol=1e-12)
                assert float(posterior.sum()) == pytest.approx(1, abs=1e-12)


def test_a_uniform_chain_starts_from_any_allowed_choice_alike_and_from_all_where_none_is():
    allowed = torch.tensor([[True, False, True], [False, False, False], [False, True, False]]).expand(3, 3, 3)
    draws = torch.tensor([0.1, 0.45, 0.9]).unsqueeze(-1).expand(3, 3)
    assert UniformProcess(3).terminal(draws, allowed).tolist() == [[0, 0, 1], [0, 1, 1], [2, 2, 1]]


@pytest.mark.parametrize("kind", KINDS)
def test_over_a_short_step_expected_jumps_are_the_posterior_chances(kind):
    process = kind(1000, shape="cosine")
    logits = torch.stack([uniform(2, CHOICES), uniform(2, CHOICES, seed=1)]).masked_fill(~ALLOWED[1], -1e9)
    x = torch.tensor([[0, CHOICES], [2, 0]]) if kind is MaskedProcess else torch.tensor([[0, 2], [2, 0]])
    for i in (200, 700):
        jumps, law = process.jumps(logits, x, i, i - 1), process.posterior(logits, x, i, i - 1)
        stands = torch.nn.functional.one_hot(x, process.vocabulary(CHOICES)).bool()
        assert jumps.shape == law.shape
        assert (jumps[stands] == 0).all()
        torch.testing.assert_close(jumps[~stands], law[~stands], rtol=0.01, atol=0)  # but for the square of the step
    leaping = TauLeaping(steps=4)
    jumps = process.jumps(logits, x, *leaping.grid(process)[1:3])
    stays = (-jumps.sum(-1, keepdim=True)).exp()  # a Poisson number of jumps, of which the first counts
    expected = torch.where(stands, stays, (1 - stays) * jumps / jumps.sum(-1, keepdim=True).clamp_min(1e-30))
    kernel = leaping.kernel(lambda x, t, cond: logits, x, 1, None, process)
    torch.testing.assert_close(kernel.logits.exp(), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_corrupted_tokens_are_drawn_from_the_marginal(kind):
    process, rows = kind(4), 20_000
    x0 = torch.arange(3).repeat(rows, 1)
    allowed = torch.tensor([[True, True, True], [True, True, False], [False, False, True]]).expand(rows, 3, 3)
    t = torch.full((rows,), 3)
    x = process.corrupt(x0, t, uniform(rows, 3), allowed)
    expected = process.marginal(x0[:1], 3, allowed[:1])[0]
    found = torch.stack([torch.bincount(x[:, k], minlength=expected.shape[-1]) for k in range(3)]) / rows
    assert float((found - expected).abs().max()) < 5 * 0.5 / math.sqrt(rows)
    assert torch.equal(process.corrupt(x0, 0, uniform(rows, 3), allowed), x0)
    if kind is UniformProcess:
        assert allowed.gather(-1, x.unsqueeze(-1)).all()


def test_remasking_keeps_the_marginals():
    process, x0 = MaskedProcess(10, "cosine"), 1
    logits = torch.where(torch.arange(3) == x0, 0.0, -1e9).double().expand(2, 3)
    for i, j, again in ((10, 9, 0.3), (9, 8, 2.0), (6, 5, 0.3), (3, 1, 0.3), (1, 0, 0.3)):
        rows = process.posterior(logits, torch.tensor([x0, 3]), i, j, again)
        assert rows.min() >= 0  # also where more is to be hidden again than there is
        torch.testing.assert_close(rows.sum(-1), torch.ones(2, dtype=torch.float64))
        known = process.kept(i) * rows[0, x0] + (1 - process.kept(i)) * rows[1, x0]
        assert float(known) == pytest.approx(process.kept(j))


# With exact scores


def scores(process, table, allowed):
    """E[x_0 | x_i] of a table of joint choices, as logits, by enumeration."""
    slots = table.ndim
    choices = every(table.shape[0], slots)

    def model(x, i, cond):
        each = process.marginal(choices, i, allowed)
        like = torch.stack([each[:, k].T[x[:, k]] for k in range(slots)]).prod(0)  # [states, joint choices]
        weight = like * table.flatten()
        of = torch.stack(
            [
                torch.stack([weight[:, choices[:, k] == c].sum(-1) for c in range(table.shape[0])], -1)
                for k in range(slots)
            ],
            -2,
        )
        return torch.where(allowed, of.clamp_min(1e-300).log(), -1e9)

    return model


def distribution(sampler, process, table, allowed):
    """Of a chain's end over all joint choices, by propagating probabilities."""
    slots, size = table.ndim, process.vocabulary(table.shape[0])
    states = every(size, slots)
    model = scores(process, table, allowed)
    chance = torch.zeros(len(states), dtype=torch.float64)
    if size > table.shape[0]:
        chance[-1] = 1
    else:
        chance = torch.stack([(allowed[k] / allowed[k].sum())[states[:, k]] for k in range(slots)]).prod(0).double()
    for k in range(len(sampler.grid(process)) - 1):
        rows = sampler.kernel(model, states, k, None, process).logits.softmax(-1)
        assert float((rows.sum(-1) - 1).abs().max()) < 1e-12
        step = rows[:, 0][:, states[:, 0]]
        for slot in range(1, slots):
            step = step * rows[:, slot][:, states[:, slot]]
        chance = chance @ step
    real = (states < table.shape[0]).all(-1)
    assert float(chance[~real].abs().sum()) < 1e-12
    return chance[real].reshape(table.shape)


def target(slots=2, seed=0):
    """A table with two forbidden choices, and the mask."""
    allowed = torch.ones(slots, CHOICES, dtype=torch.bool)
    allowed[0, 1] = allowed[-1, 2] = False
    table = (
        3 * torch.randn(*[CHOICES] * slots, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ).exp()
    for slot in range(slots):
        shape = [1] * slots
        shape[slot] = CHOICES
        table = table * allowed[slot].view(shape)
    return table / table.sum(), allowed


def apart(sampler, process, slots=2):
    table, allowed = target(slots)
    found = distribution(sampler, process, table, allowed)
    assert float(found[table == 0].abs().sum()) == 0
    return float((found - table).abs().sum()) / 2


@pytest.mark.parametrize(
    ("sampler", "kind"),
    [
        (Ancestral(), MaskedProcess),
        (Ancestral(), UniformProcess),
        (Ancestral(remask=2.0), MaskedProcess),
        (TauLeaping(), MaskedProcess),
        (TauLeaping(), UniformProcess),
    ],
    ids=["ancestral-masked", "ancestral-uniform", "remasking", "leaping-masked", "leaping-uniform"],
)
def test_with_exact_scores_a_chain_of_many_steps_ends_in_its_target(sampler, kind):
    coarse, fine = (apart(sampler, kind(n)) for n in (50, 100))
    assert coarse / fine == pytest.approx(2, rel=0.3)  # of first order
    assert apart(sampler, kind(1000)) < 1e-3


@pytest.mark.parametrize("slots", [2, 3])
def test_by_confidence_one_slot_a_step_is_exact(slots):
    sure = torch.randint(4, (200, 5), generator=torch.Generator().manual_seed(0)).float()
    assert torch.equal(_rank(sure), sure.argsort(dim=-1, descending=True, stable=True).argsort(-1))
    assert apart(Ancestral(order="confidence"), MaskedProcess(slots), slots) < 1e-12
    assert apart(Ancestral(order="confidence", steps=1), MaskedProcess(slots), slots) > 0.01


def test_with_exact_scores_of_4096_joint_choices():
    allowed = torch.ones(6, 4, dtype=torch.bool)
    table = torch.randn(*[4] * 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).exp()
    table = table / table.sum()
    process, rows = MaskedProcess(6), 4096
    model = scores(process, table, allowed)
    # all that a chain by confidence may meet: propagated slot by slot from the hidden row
    sampler, chance = Ancestral(order="confidence"), {(4,) * 6: 1.0}
    for k in range(6):
        states = torch.tensor(list(chance))
        laws = sampler.kernel(model, states, k, None, process).logits.softmax(-1)
        following = {}
        for state, law, p in zip(states.tolist(), laws, chance.values(), strict=True):
            shown = next(s for s in range(6) if law[s, 4] < 1 and state[s] == 4)
            for choice in range(4):
                key = tuple(choice if s == shown else state[s] for s in range(6))
                following[key] = following.get(key, 0.0) + p * float(law[shown, choice])
        chance = following
    assert len(chance) == rows
    found = torch.tensor([chance[tuple(c)] for c in every(4, 6).tolist()], dtype=torch.float64)
    assert float((found - table.flatten()).abs().sum()) / 2 < 1e-3


# Masks


def forbidden_draws(sampler, process, rows, seed, width=5, slots=2, dtype=torch.float32):
    """How many ends of chains are forbidden, under logits, masks and draws of a seed."""
    generator = torch.Generator().manual_seed(seed)
    allowed = torch.rand(rows, slots, width, generator=generator) < 0.4
    allowed[..., 2] |= ~allowed.any(-1)
    given = (5 * torch.randn(rows, slots, width, generator=generator)).masked_fill(~allowed, -1e9).to(dtype)
    noise = torch.rand(sampler.noisy_steps(process), rows, slots, generator=generator)
    noise[:, ::7] = 0.0
    noise[:, 1::7] = 1 - 2**-24
    x = process.terminal(torch.rand(rows, slots, generator=generator), allowed)
    end = sampler.sample(lambda x, i, cond: given, x, None, process, noise)
    assert ((end >= 0) & (end < width)).all()
    return int((~allowed.gather(-1, end.unsqueeze(-1))).sum())


TOKEN_SAMPLERS = [Ancestral(), Ancestral(order="confidence"), Ancestral(remask=1.0), TauLeaping(), Ancestral(steps=2)]
TOKEN_PROCESSES = [kind(levels, shape) for kind in KINDS for levels, shape in ((3, "linear"), (4, "cosine"))]
HIDING = (Ancestral(order="confidence"), Ancestral(remask=1.0))
"""What goes back through a `MaskedProcess` alone."""
MASKED = [
    (sampler, process)
    for sampler in TOKEN_SAMPLERS
    for process in TOKEN_PROCESSES
    if sampler not in HIDING or isinstance(process, MaskedProcess)
]


def test_every_sampler_of_tokens_and_every_process_is_drawn_from():
    assert {type(s) for s, _ in MASKED} == {type(make("x0")) for make in SAMPLERS.values() if make("x0").tokens}
    for sampler in HIDING:
        with pytest.raises(InputError, match="hides nothing"):
            sampler.grid(UniformProcess(3))


@pytest.mark.parametrize(("sampler", "process"), MASKED, ids=str)
def test_no_forbidden_choice_is_drawn(sampler, process):
    assert sum(forbidden_draws(sampler, process, 5_000, seed) for seed in range(3)) == 0  # of two slots each


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "process"), MASKED, ids=str)
def test_no_forbidden_choice_is_drawn_in_ten_million(sampler, process):
    """Of each sampler through each process, 10^7 draws under masks, logits and numbers that no two repeats share."""
    assert sum(forbidden_draws(sampler, process, 500_000, seed) for seed in range(100, 110)) == 0


def test_a_kernel_never_draws_what_has_no_chance():
    kernel = CategoricalKernel(torch.tensor([-math.inf, 0.0, -math.inf, 0.0, -math.inf]).expand(3, 5))
    assert kernel.sample(torch.tensor([0.0, 0.51, 1 - 2**-24])).tolist() == [1, 3, 3]
    assert allowed_by(torch.full((1, 3), -1e9)).all()  # nothing is: whoever asked is told elsewhere


def test_gradients_stay_finite_where_a_chance_is_none():
    for sampler, process in MASKED:
        given = torch.randn(40, 2, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
        allowed = torch.tensor([True, False, True, True]).expand(40, 2, 4)
        model = lambda x, i, cond, given=given, allowed=allowed: given.masked_fill(~allowed, -1e9)  # noqa: E731
        x = process.terminal(uniform(40, 2), allowed)
        chain = sampler.chain(model, x, None, process, uniform(sampler.noisy_steps(process), 40, 2, seed=1).float())
        log_prob = sampler.log_prob(model, chain.states, None, process)
        assert torch.isfinite(log_prob).all()
        log_prob.sum().backward()
        assert torch.isfinite(given.grad).all()


# Policies


@pytest.mark.parametrize(
    "spec",
    [Categorical(5, (4,)), OneHot(5, (4, 5)), MultiCategorical([3, 2], (4, 2))],
    ids=["categorical", "one-hot", "multi-categorical"],
)
@pytest.mark.parametrize("process", [MaskedProcess(4, "cosine"), UniformProcess(4)], ids=str)
def test_a_policy_of_tokens_acts_and_is_saved(spec, process, tmp_path):
    env = Specs({"observation": Unbounded((4, 3))}, spec)
    policy = DiffusionPolicy.from_specs(env, schedule=process, head=TokenHead(), seed=2)
    assert policy.sampler == "ancestral"
    check_policy(policy, env)
    td = env.reset()
    assert env.full_action_spec["action"].is_in(policy(td.clone())["action"])
    other = policy.with_sampler("tau-leaping", 2)
    assert env.full_action_spec["action"].is_in(other(td.clone())["action"])
    for saved in (policy, other):
        saved.save(tmp_path)
        again = DiffusionPolicy.load(tmp_path)
        assert (again.process, again.sampling, again.head) == (saved.process, saved.sampling, saved.head)
        again.reseed(7)
        saved.eval().reseed(7)
        assert torch.equal(again(td.clone())["action"], saved(td.clone())["action"])


@pytest.mark.parametrize("process", [MaskedProcess(6), UniformProcess(6)], ids=str)
def test_joint_items_keep_to_the_mask(process, tmp_path):
    env = env_of()
    policy = DiffusionPolicy.from_specs(
        env, schedule=process, head=TokenHead(), items="joint", share_parameters=True, sampler_steps=3
    )
    td = seen(env)
    for _ in range(20):
        action = policy(td.clone())["action"]
        assert td["action_mask"].gather(-1, action.unsqueeze(-1)).squeeze(-1)[td["valid"]].all()
    policy.save(tmp_path)
    again = DiffusionPolicy.load(tmp_path)
    assert (again.process, again.sampling) == (policy.process, policy.sampling)


SPECS = {"observation": Unbounded((4, 3))}, Categorical(5, (4,))


class Bare(TokenProcess):
    """A process that gives no more than it must."""

    steps = 3

    def terminal(self, draws, allowed=None):
        return torch.zeros(2, dtype=torch.int64)

    def corrupt(self, x0, t, draws, allowed=None):
        return x0


BARE = torch.zeros(2, CHOICES), torch.zeros(2, dtype=torch.int64), 2, 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MaskedProcess(shape="square"), "'square'"),
        (lambda: UniformProcess(0), "levels"),
        (lambda: UniformProcess(10**9), "levels"),
        (lambda: MaskedProcess(1).squares(1), "no levels of signal"),
        (lambda: Ancestral(order="random"), "'random'"),
        (lambda: Ancestral(order="confidence", remask=1.0), "works only with the order chance"),
        (lambda: Ancestral(min_std=0.1), "no min_std"),
        (lambda: Ancestral(remask=1.0).grid(UniformProcess(3)), "UniformProcess hides nothing"),
        (lambda: Ancestral().grid(GaussianProcess()), "samples tokens"),
        (lambda: MaskedProcess(3).corrupt(torch.zeros(2).long(), 1, torch.rand(2)), "pass allowed"),
        (lambda: MaskedProcess(3).terminal(None), "pass allowed"),
        (lambda: UniformProcess(3).terminal(None), "pass allowed"),
        (lambda: Bare().kept(1), r"Bare does not define kept\(i\)"),
        (lambda: Bare().posterior(*BARE), "Bare defines no posterior"),
        (lambda: Bare().jumps(*BARE), "Bare defines no rates"),
        (lambda: Ancestral().grid(Bare()), "Bare defines no posterior"),
        (lambda: TauLeaping().grid(Bare()), "Bare defines no rates"),
        (lambda: MaskedProcess(3).squares(1), "no levels of signal"),
        (
            lambda: MaskedProcess(3).convert(torch.ones(1), torch.ones(1), 1, given="x0", wanted="noise"),
            "predicts the law of x0 alone",
        ),
        (lambda: MaskedProcess(3).target(torch.ones(1), 1, torch.ones(1), "score"), "'score'"),
        (
            lambda: DiffusionPolicy.from_specs(
                Specs(*SPECS), schedule=MaskedProcess(), head=TokenHead(), sampler=DDIM()
            ),
            "are tokens, and a DDIM",
        ),
        (lambda: DiffusionPolicy.from_specs(Specs(*SPECS), sampler="ancestral"), "are numbers, and a Ancestral"),
    ],
)
def test_mistakes_get_a_sentence(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_a_chain_tells_when_each_slot_was_shown_and_how_often_it_was_hidden_again():
    process, allowed = MaskedProcess(8), torch.ones(64, 5, CHOICES, dtype=torch.bool)

    told = []

    def model(x, t, cond):
        told.append((t, cond))
        return torch.zeros(*x.shape, CHOICES)

    start = process.terminal(None, allowed)
    chain = Ancestral(remask=2.0).chain(model, start, "seen", process, uniform(8, 64, 5).float())
    assert told == [(t, "seen") for t in range(8, 0, -1)]
    assert (chain.remasks > 0).any()
    assert (Ancestral(steps=1).chain(model, start, None, process, uniform(1, 64, 5).float()).shown_at == 1).all()
    for row, slot in itertools.product(range(64), range(5)):
        hidden = [int(token) == CHOICES for token in chain.states[:, row, slot]]
        reveals = [k for k in range(1, 9) if hidden[k - 1] and not hidden[k]]
        assert chain.shown_at[row, slot] == reveals[-1]
        assert chain.remasks[row, slot] == len(reveals) - 1
    other = Ancestral().chain(model, start.clamp_max(2), None, UniformProcess(8), uniform(8, 64, 5).float())
    assert other.shown_at is None
    assert other.remasks is None


def test_the_surest_slot_is_shown_first():
    logits = torch.tensor([[1.0, 0.0, 0.0], [5.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    process, allowed = MaskedProcess(3), torch.ones(3, CHOICES, dtype=torch.bool)
    sampler = Ancestral(order="confidence")
    chain = sampler.chain(lambda x, t, cond: logits, process.terminal(None, allowed), None, process)
    assert chain.shown_at.tolist() == [3, 1, 2]
