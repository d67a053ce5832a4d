"""Losses that weigh a policy's own actions: the laws that are reached on problems that can be enumerated."""

import itertools
import math

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torchrl.data import Binary, Bounded, Categorical, Unbounded

from diffpolicy import ActionMemory, DiffusionPolicy, FeedforwardPolicy, InputError
from diffpolicy.diffusion import Ancestral, FlowProcess, GaussianProcess, MaskedProcess, TauLeaping, UniformProcess
from diffpolicy.objectives import (
    DenoisingLoss,
    MirrorDescentLoss,
    OnChainMirrorLoss,
    QDFMLoss,
    QVPOLoss,
    ReverseMirrorLoss,
    action_critic,
)
from diffpolicy.objectives.action_losses import action_losses
from diffpolicy.objectives.denoising import denoising_errors, spread
from diffpolicy.objectives.recorded import ended, recorded, step_log_probs
from diffpolicy.policies.heads import TokenHead, VectorHead
from test_keys import Specs

ITEMS, CHOICES = 2, 3
ALLOWED = torch.tensor([[True, True, True], [True, False, True]])
ACTIONS = torch.tensor(list(itertools.product(range(CHOICES), repeat=ITEMS)))
POSSIBLE = ALLOWED[torch.arange(ITEMS), ACTIONS].all(-1)
GAIN = torch.tensor([2.0, 0.3, -1.0, -0.5, 9.0, 1.2, 0.4, 9.0, 1.0])
"""Of each of the nine actions; no product of laws has exp(GAIN), and the best two are forbidden."""


def gains(action):
    """Of actions `[.., K]`."""
    return GAIN[action[..., 0] * CHOICES + action[..., 1]]


class Known(nn.Module):
    """A critic that knows the gain of each action, whatever is observed. Reads F + K W numbers."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        choice = x[..., -ITEMS * CHOICES :].unflatten(-1, (ITEMS, CHOICES)).argmax(-1)
        return (gains(choice) + self.offset).unsqueeze(-1).unsqueeze(0)


def bandit():
    """One step, two items with a mask, and nothing to be seen but which item it is."""
    seen = {
        "observation": Unbounded((4, ITEMS, ITEMS)),
        "action_mask": Binary(CHOICES, (4, ITEMS, CHOICES), dtype=torch.bool),
    }
    return Specs(seen, Categorical(CHOICES, (4, ITEMS)))


def chain_policy(process=None, sampler=None, seed=0):
    return DiffusionPolicy.from_specs(
        bandit(),
        items="joint",
        schedule=process or MaskedProcess(ITEMS),
        sampler=sampler or Ancestral(order="confidence"),
        head=TokenHead(),
        denoiser={"kind": "MLPDenoiser", "hidden": [32], "act": "mish"},
        seed=seed,
    )


def plain_policy(seed=0):
    return FeedforwardPolicy.from_specs(bandit(), items="joint", hidden=[64], head="sample", seed=seed)


SEEN, MASK = torch.eye(ITEMS).flatten().unsqueeze(0), ALLOWED.flatten().unsqueeze(0)


@torch.no_grad()
def chances(policy):
    """Chances of the nine actions, `[9]`, by the steps' laws over all states, multiplied out."""
    if not policy.head.tokens:
        return policy.head.joint_log_prob(policy.law(SEEN, None, MASK))[0].exp()
    v = policy.vocabulary
    states = torch.tensor(list(itertools.product(range(v), repeat=ITEMS)))
    rows = len(states)
    allowed = ALLOWED.expand(rows, ITEMS, CHOICES)
    cond = policy.prepared(policy.condition(SEEN.expand(rows, -1)))
    if v > CHOICES:
        now = (states == CHOICES).all(-1).double()
    else:
        now = ALLOWED[torch.arange(ITEMS), states].all(-1).double()
        now = now / now.sum()
    for k in range(len(policy.path)):
        kernel = policy.sampling.kernel(
            lambda x, t, given: policy.token_logits(x, t, given, allowed, v), states, k, cond, policy.process
        )
        first, *others = kernel.logits.double().softmax(-1).unbind(-2)
        for each in others:
            first = (first.unsqueeze(-1) * each.unsqueeze(-2)).flatten(-2)
        now = now @ first
    return now[(ACTIONS * v ** torch.arange(ITEMS - 1, -1, -1)).sum(-1)].float()


def far(a, b):
    """Total variation of two laws."""
    return float(0.5 * (a - b).abs().sum())


STAYS = 1e-12
"""Share of the new parameters in a copy that is to stay as it was."""


def learn(loss, updates=250, rate=1e-2):
    """The actor alone learns: what it draws from and what judges stay as they are."""
    optimizer = torch.optim.Adam(loss.policy.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 1 - k / updates)
    for _ in range(updates):
        losses = loss.actor_losses(SEEN, MASK)
        optimizer.zero_grad()
        sum(value for name, value in losses.items() if name.startswith("loss")).backward()
        optimizer.step()
        schedule.step()
        loss.update_targets()
    return chances(loss.policy)


def tilted(old, temperature=1.0):
    """What mirror descent goes to: proportional to old exp(gain / temperature)."""
    weight = torch.where(POSSIBLE, old * (GAIN / temperature).exp(), 0)
    return weight / weight.sum()


def test_chances_of_a_chain_are_those_of_what_it_draws():
    policy = chain_policy(MaskedProcess(3), Ancestral(), seed=3)
    drawn = policy.choose(policy.law(SEEN.expand(20_000, -1), None, MASK.expand(20_000, -1)))
    seen = torch.bincount((drawn * torch.tensor([3, 1])).sum(-1), minlength=9) / 20_000
    assert far(seen, chances(policy)) < 0.02
    assert float(chances(policy)[~POSSIBLE].sum()) == 0


@pytest.mark.parametrize("make", [chain_policy, plain_policy])
def test_qvpo_goes_to_the_law_that_its_weights_and_its_uniform_actions_say(make):
    policy = make(seed=1)
    loss = QVPOLoss(policy, Known(), samples=128, entropy=0.5, uniform=32, tau=STAYS)
    old = chances(policy)
    above = (GAIN - (old * GAIN).sum()).clamp_min(0)
    weighted = old * above / (old * above).sum()
    wanted = (weighted + 0.5 * POSSIBLE / POSSIBLE.sum()) / 1.5
    found = learn(loss)
    assert float(found[~POSSIBLE].sum()) == 0
    if make is chain_policy:
        assert far(found, wanted) < 0.03
    else:  # a product of laws, the nearest in divergence: that of the margins
        table = wanted.view(3, 3)
        product = (table.sum(1, keepdim=True) * table.sum(0, keepdim=True)).flatten()
        assert far(found, product) < 0.03
        assert far(product, wanted) > 0.1


def test_weights_of_qvpo():
    q = torch.tensor([[1.0, 2.0, 6.0, 3.0], [0.0, 0.0, 0.0, 0.0], [4.0, 0.0, 5.0, -1.0]])
    policy = chain_policy()
    every, best = QVPOLoss(policy, Known(), samples=4), QVPOLoss(policy, Known(), samples=4, kept=1)
    assert torch.equal(4 * every.weights(q), torch.tensor([[0.0, 0, 3, 0], [0, 0, 0, 0], [2, 0, 3, 0]]))
    assert torch.equal(4 * best.weights(q), torch.tensor([[0.0, 0, 3, 0], [0, 0, 0, 0], [0, 0, 3, 0]]))
    assert torch.equal(every.value(q), torch.tensor([6.0, 0.0, 5.0]))


@pytest.mark.parametrize(("kept", "some"), [(1, [3]), (2, [3, 3]), (3, [3, 3, 3]), (4, [3, 3, 3])])
def test_of_draws_that_tie_so_many_have_a_weight_as_are_kept(kept, some):
    q = torch.tensor([[7.0, 7.0, 7.0, -5.0]])
    loss = QVPOLoss(chain_policy(), Known(), samples=4, kept=kept)
    weights = 4 * loss.weights(q)
    assert weights[weights > 0].tolist() == some
    assert weights[0, 3] == 0


def test_of_the_actions_that_are_kept_alone_a_loss_is_had():
    loss, asked = QVPOLoss(chain_policy(), Known(), samples=8, kept=2, entropy=0), []
    drawn = ACTIONS[POSSIBLE][torch.arange(24) % int(POSSIBLE.sum())]
    loss.drawn = lambda observation, mask: drawn
    loss.given = lambda observation, action, mask: (asked.append(action), gains(action))[1]
    q = gains(drawn).view(3, 8)
    best, which = q.topk(2, -1)
    found = loss.actor_losses(SEEN.expand(3, -1), MASK.expand(3, -1))["loss_actor"]
    assert torch.equal(asked[0].view(3, 2, ITEMS), drawn.view(3, 8, ITEMS).take_along_dim(which.unsqueeze(-1), 1))
    assert found.item() == pytest.approx(
        float(((best - q.mean(-1, keepdim=True)).clamp_min(0) / 8 * best).sum(-1).mean())
    )


def test_critics_learn_the_backed_up_value_of_the_best_next_action():
    policy = chain_policy()
    loss = QVPOLoss(policy, action_critic(policy), samples=4, next_samples=512, gamma=0.5, reward_scale=2.0)
    with torch.no_grad():
        for part in loss.target_critic.parameters():
            part.zero_()
    loss.__dict__["_modules"]["target_critic"] = Known()
    rows, best = 6, float(GAIN[POSSIBLE].max())
    ends = torch.tensor([False, True]).repeat(3)
    target = loss.target(SEEN.expand(rows, -1), MASK.expand(rows, -1), torch.ones(rows), ends)
    assert torch.equal(target, 2.0 + 0.5 * best * ~ends)


def test_a_batch_of_rows_moves_the_actor_by_its_loss_and_the_critics_by_theirs():
    policy = chain_policy()
    loss = QVPOLoss(policy, action_critic(policy), samples=3, next_samples=2)
    state = {"observation": SEEN.expand(5, -1), "action_mask": MASK.expand(5, -1)}
    rows = TensorDict(
        {**state, "action": ACTIONS[[0, 2, 3, 5, 8]], "reward": torch.zeros(5), "next": state}, batch_size=[5]
    )
    written = loss(rows)
    groups = {name: list(parameters) for name, parameters in loss.parameter_groups().items()}
    for name, part in {"loss_actor": "actor", "loss_entropy": "actor", "loss_qvalue": "critic"}.items():
        loss.zero_grad()
        written[name].backward(retain_graph=True)
        moved = {group for group, of in groups.items() if any(p.grad is not None and p.grad.any() for p in of)}
        assert moved == {part}, name
    before = [p.clone() for p in loss.target_policy.parameters()]
    loss.update_targets()
    assert all(
        torch.equal(a, b) for a, b in zip(before, loss.target_policy.parameters(), strict=True)
    )  # none moved yet


@pytest.mark.parametrize("prediction", ["noise", "x0", "velocity"])
def test_the_loss_of_numbers_is_the_squared_error_of_what_is_predicted(prediction):
    for process in (GaussianProcess("vp", 4), FlowProcess(levels=4)):
        env = Specs({"observation": Unbounded((4, 3))}, Bounded(-1.0, 2.0, (4, 2)))
        policy = DiffusionPolicy.from_specs(
            env, schedule=process, sampler="ddim", prediction=prediction, head=VectorHead()
        )
        action, noise = torch.rand(7, 2) * 3 - 1, torch.randn(7, 2)
        t, observation = torch.tensor([1, 2, 3, 4, 4, 1, 2]), torch.randn(7, 3)
        x0 = policy.head.encode(action)
        found = denoising_errors(policy, observation, x0, t, noise)
        cond = policy.prepared(policy.condition(observation))
        for row in range(7):
            level, one = int(t[row]), slice(row, row + 1)
            x = process.corrupt(x0[one], level, noise[one])
            given = policy.denoise(x, level, type(cond)(cond.condition[one], cond.time, cond.layers))
            x0_given = process.convert(given, x, level, given=prediction, wanted="x0")
            known = process.convert(x0_given, x, level, given="x0", wanted=prediction)
            wanted = process.target(x0[one], level, noise[one], prediction)
            assert torch.allclose(found[row], (known - wanted).square().mean(), atol=1e-3, rtol=1e-3)


def test_steps_are_spread_over_rows_and_over_the_actions_of_each():
    t = spread(torch.tensor([0.3]), 8 * 4, 4, turns=4).view(8, 4)
    assert torch.equal(t.sort(-1).values, torch.arange(1, 5).expand(8, -1))
    assert torch.equal(spread(torch.tensor([0.999]), 6, 3), torch.tensor([3, 1, 1, 2, 2, 3]))


@pytest.mark.parametrize(("rows", "steps", "turns"), [(64, 8, 1), (5, 3, 1), (24, 8, 4), (12, 3, 6), (1, 4, 1)])
def test_each_step_is_as_likely_for_every_row_and_a_batch_has_them_evenly(rows, steps, turns):
    draws = 4000
    when = (torch.arange(draws).view(-1, 1) + 0.5) / draws
    t = spread(when, rows, steps, turns)
    assert t.min() == 1
    assert t.max() == steps
    levels = torch.arange(1, steps + 1)
    likely = (t.unsqueeze(-1) == levels).double().mean(0)  # [rows, steps]
    torch.testing.assert_close(likely, torch.full_like(likely, 1 / steps), rtol=0, atol=2e-3)
    for groups, count in ((t, rows), (t.view(draws, -1, turns), turns)):
        found = (groups.unsqueeze(-1) == levels).sum(-2)
        assert found.min() >= count // steps
        assert found.max() <= -(-count // steps)


def test_who_has_no_chain_learns_by_minus_the_log_probability():
    policy = plain_policy(seed=2)
    action = ACTIONS[[0, 5, 8]]
    found = action_losses(policy, SEEN.expand(3, -1), action, MASK.expand(3, -1))
    assert torch.allclose(found, -chances(policy)[[0, 5, 8]].log(), atol=1e-5)


def test_without_a_chain_what_learns_of_steps_learns_of_whole_actions():
    """One step is the action: on the same draws on-chain and rate losses are that of the weighted actions."""
    kinds = (MirrorDescentLoss, OnChainMirrorLoss, QDFMLoss)
    fixed = {QDFMLoss: {"beta": 1.0}}
    found = [
        kind(plain_policy(), Known(), samples=16, **fixed.get(kind, {"target_kl": None})).actor_losses(SEEN, MASK)
        for kind in kinds
    ]
    assert found[0]["loss_actor"] == found[1]["loss_actor"]
    torch.testing.assert_close(found[2]["loss_actor"], found[0]["loss_actor"])
    policy = plain_policy(seed=2)
    states = recorded(policy, SEEN.expand(5, -1), MASK.expand(5, -1))
    number = ended(policy, states)[..., 0] * CHOICES + ended(policy, states)[..., 1]
    steps = step_log_probs(policy, SEEN.expand(5, -1), MASK.expand(5, -1), states)
    torch.testing.assert_close(steps, chances(policy)[number].log().unsqueeze(0), rtol=1e-5, atol=1e-5)
    reverse = ReverseMirrorLoss(policy, Known(), samples=64, target_kl=None)
    assert reverse.actor_losses(SEEN, MASK)["loss_actor"].abs() < 1e-4  # ratios of 1 to the copy of now


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (lambda env: DiffusionPolicy.from_specs(env), "use a TokenHead or a VectorHead"),
        (lambda env: DiffusionPolicy.from_specs(env, prior=ActionMemory()), "remembers"),
    ],
)
def test_policies_that_give_no_action_are_refused(policy, words):
    made = policy(Specs({"observation": Unbounded((4, 3))}, Categorical(3, (4,))))
    with pytest.raises(InputError, match=words):
        QVPOLoss(made, action_critic(made))


def by_chance(seed):
    return chain_policy(MaskedProcess(8), Ancestral(), seed)


def uniform(seed):
    return chain_policy(UniformProcess(12), TauLeaping(), seed)


@pytest.mark.parametrize(
    ("kind", "make", "near"),
    [
        (MirrorDescentLoss, chain_policy, 0.04),
        (OnChainMirrorLoss, chain_policy, 0.04),
        pytest.param(ReverseMirrorLoss, by_chance, 0.06, marks=pytest.mark.slow),  # clipped ratios lead there too
        (QDFMLoss, uniform, 0.12),
    ],
)
def test_mirror_descent_goes_to_the_tilted_law(kind, make, near):
    """Slow: the reverse divergence, whose gradient is that of policies and so noisier."""
    fixed = {"beta": 1.0} if kind is QDFMLoss else {"target_kl": None}
    loss = kind(make(seed=1), Known(), samples=128, tau=STAYS, **fixed)
    wanted = tilted(chances(loss.target_policy))
    before = far(chances(loss.policy), wanted)
    found = learn(loss, updates=150 if kind is QDFMLoss else 250)
    assert float(found[~POSSIBLE].sum()) < 1e-6
    assert far(found, wanted) < near < before / 2


def test_ratios_and_advantages_of_recorded_chains():
    loss = ReverseMirrorLoss(by_chance(4), Known(), samples=32, target_kl=None)
    each, given = SEEN.expand(32, -1), MASK.expand(32, -1)
    states = recorded(loss.recorder, each, given)
    assert torch.equal(ended(loss.policy, states), states[-1])
    steps = step_log_probs(loss.policy, each, given, states)
    assert steps.shape == (8, 32)
    assert torch.isfinite(steps).all()
    loss.actor_losses(SEEN, MASK)["loss_actor"].backward()  # at unchanged parameters the gradient of policies
    found = [p.grad.clone() for p in loss.policy.parameters() if p.grad is not None]
    assert any(g.any() for g in found)


def test_the_reverse_step_is_its_formula_taken_chain_by_chain_and_step_by_step():
    """With other parameters than those of the copies: ratios are clipped on both sides, and more is yet to come."""
    policy, samples, clip, temperature = by_chance(4), 5, 0.05, 0.7
    loss = ReverseMirrorLoss(policy, Known(), samples=samples, clip=clip, temperature=temperature, target_kl=None)
    usual = ReverseMirrorLoss(policy, Known())
    assert (usual.clip, usual.refresh, float(usual.temperature), usual.target_kl) == (0.2, 4, 1.0, 0.1)
    loss.actor_losses(SEEN, MASK)  # the copy that records is of the policy as it is here
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for moved in (loss.policy, loss.actor):
            for p in moved.parameters():
                p.add_(0.3 * torch.randn(p.shape, generator=generator))
    seen, masks = SEEN.expand(2, -1), torch.cat([MASK, torch.ones_like(MASK)])
    loss.recorder.reseed(7)
    found = loss.actor_losses(seen, masks)
    each, given = seen.repeat_interleave(samples, 0), masks.repeat_interleave(samples, 0)
    loss.recorder.reseed(7)
    with torch.no_grad():
        states = recorded(loss.recorder, each, given)
        was, old, now = (step_log_probs(p, each, given, states) for p in (loss.recorder, loss.actor, policy))
    ratio, value = (now - was).exp(), gains(ended(policy, states))
    assert ratio.min() < 1 - clip < 1 + clip < ratio.max()
    worth = 0.0
    for state in range(2):
        chains = range(state * samples, (state + 1) * samples)
        for step in range(len(was)):
            gain = {n: float(value[n] - temperature * (now - old)[step:, n].sum()) for n in chains}
            for n in chains:
                advantage, r = gain[n] - sum(gain.values()) / samples, float(ratio[step, n])
                worth += min(r * advantage, min(max(r, 1 - clip), 1 + clip) * advantage)
    assert found["loss_actor"].item() == pytest.approx(-worth / (2 * samples), rel=1e-4)
    assert found["kl"].item() == pytest.approx(float((now - old).sum(0).mean()), rel=1e-4)


@pytest.mark.parametrize("make", [chain_policy, plain_policy])
def test_lambda_grows_where_a_step_goes_too_far_and_falls_where_it_may_go_further(make):
    for temperature, target, sign in ((0.05, 0.1, -1), (50.0, 0.1, 1)):
        loss = MirrorDescentLoss(make(), Known(), samples=64, temperature=temperature, target_kl=target)
        written = loss.actor_losses(SEEN, MASK)
        written["loss_temperature"].backward()
        assert sign * float(loss.log_temperature.grad) > 0
        assert (float(written["kl"]) > target) == (sign < 0)


def test_at_its_bound_the_divergence_is_what_was_asked_for():
    loss = MirrorDescentLoss(chain_policy(), Known(), samples=512, temperature=5.0, target_kl=0.2)
    optimizer = torch.optim.Adam([loss.log_temperature], lr=0.1)
    kl = []
    for _ in range(80):
        q = GAIN[POSSIBLE].repeat(64).unsqueeze(0)
        weight = loss.weights(q)
        written = loss.more(SEEN, MASK, weight)
        optimizer.zero_grad()
        written["loss_temperature"].backward()
        optimizer.step()
        kl.append(float(written["kl"]))
    assert kl[-1] == pytest.approx(0.2, abs=0.02)


def test_the_first_reverse_step_goes_along_the_value_of_what_may_be_chosen():
    """The gradient of E[Q] by enumeration; a state in which nothing may be chosen counts as one of no gradient."""
    policy = plain_policy(seed=2)
    value = (policy.head.joint_log_prob(policy.law(SEEN, None, MASK))[0].exp() * GAIN)[POSSIBLE].sum()
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(-value / 2, list(policy.parameters()))])
    loss = ReverseMirrorLoss(policy, Known(), samples=20_000, target_kl=None)
    masks = torch.cat([MASK, torch.zeros_like(MASK)])
    loss.actor_losses(SEEN.expand(2, -1), masks)["loss_actor"].backward()
    found = torch.cat([p.grad.flatten() for p in policy.parameters()])
    assert (found - expected).norm() < 0.05 * expected.norm()


def test_the_copy_that_records_is_renewed_every_few_updates_and_not_by_a_look():
    policy = plain_policy()
    loss = ReverseMirrorLoss(policy, Known(), samples=4, refresh=2, target_kl=None)
    renewed = []
    for _ in range(4):
        with torch.no_grad():
            for p in policy.parameters():
                p.add_(0.1)
            loss.actor_losses(SEEN, MASK)
        loss.actor_losses(SEEN, MASK)
        renewed.append(all(map(torch.equal, loss.recorder.parameters(), policy.parameters())))
    assert renewed == [True, False, True, False]


def test_losses_of_actions_draw_from_the_policys_own_generator():
    chain, numbers = chain_policy(), vectors()
    for policy, *given in (
        (chain, SEEN.expand(2, -1), ACTIONS[[0, 8]], MASK.expand(2, -1)),
        (numbers, torch.ones(2, 3), torch.ones(2, 2), None),
    ):
        found = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            policy.reseed(3)
            found.append(action_losses(policy, *given))
        assert torch.equal(*found)


def test_giving_uniform_actions_costs_their_mean_loss_in_units_of_what_was_weighed():
    policy, weight = plain_policy(seed=2), torch.tensor([[1.0, 2.0], [0.5, 0.0]])
    loss = QVPOLoss(policy, Known(), entropy=0.5, uniform=4000)
    found = loss.more(SEEN.expand(2, -1), MASK.expand(2, -1), weight)["loss_entropy"]
    mean = -chances(policy)[POSSIBLE].log().mean()
    assert found.item() == pytest.approx(0.5 * (3.0 + 0.5) / 2 * mean.item(), rel=0.03)


def test_values_of_next_states():
    q = torch.tensor([[[0.0, 1.0, 5.0], [2.0, 2.0, 8.0]], [[3.0, 0.0, 0.0], [7.0, 1.0, 1.0]]])
    chain = chain_policy()
    assert torch.equal(MirrorDescentLoss(chain, Known()).value(q), torch.tensor([[2.0, 4.0], [1.0, 3.0]]))
    flow = QDFMLoss(uniform(0), Known(), beta=0.5, samples=7)
    assert flow.samples == 7
    chance = (0.5 * q).softmax(-1)
    assert torch.allclose(flow.value(q), (chance * q).sum(-1))
    told = flow.more(SEEN, MASK, chance)["kl"]  # how far weights are from even ones
    assert told.item() == pytest.approx(math.log(3) - (-chance * chance.log()).sum(-1).mean().item(), rel=1e-4)
    assert flow.more(SEEN, MASK, torch.full((2, 2, 3), 1 / 3))["kl"].abs() < 1e-6


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ReverseMirrorLoss(chain_policy(), Known()), "order='chance'"),
        (
            lambda: ReverseMirrorLoss(by_chance(0), Known(), target_actor=False),
            "must be true under a ReverseMirrorLoss",
        ),
        (lambda: DenoisingLoss(plain_policy()), "the FeedforwardPolicy has no chain"),
        (lambda: DenoisingLoss(chain_policy()), "goes through a MaskedProcess to a JointHead; use a VectorHead"),
        (
            lambda: DenoisingLoss(DiffusionPolicy.from_specs(bandit(), items="joint")),
            "goes through a GaussianProcess to a JointHead",
        ),
        (lambda: QDFMLoss(vectors(), Known()), "rates of tokens, and the states of a GaussianProcess"),
        (lambda: OnChainMirrorLoss(vectors(), Known()), "recorded chains are of tokens"),
        (lambda: QDFMLoss(uniform(0), Known(), beta=0.0), "beta must be greater than 0"),
        (lambda: MirrorDescentLoss(chain_policy(), Known(), temperature=0), "temperature"),
        (
            lambda: MirrorDescentLoss(chain_policy(), action_critic(plain_policy(), ensemble=2), target_kl=-1),
            "target_kl",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()


def vectors():
    env = Specs({"observation": Unbounded((4, 3))}, Bounded(-1.0, 2.0, (4, 2)))
    return DiffusionPolicy.from_specs(env, head=VectorHead())
