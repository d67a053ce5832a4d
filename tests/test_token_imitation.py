"""Imitation by chains of tokens: the bound in closed form, one or several choices, joint items, what is refused."""

import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Categorical, MultiCategorical, OneHot, Unbounded

from diffpolicy import DiffusionPolicy, FeedforwardPolicy, InputError
from diffpolicy.environments import step_transitions
from diffpolicy.networks import ItemDenoiser, MLPDenoiser, PerAgent
from diffpolicy.objectives import TokenImitationLoss
from diffpolicy.policies.heads import TokenHead
from diffpolicy.policies.keys import Keys
from diffpolicy.training import ImitationModule, fit
from test_joint import Apart, env_of, seen
from test_keys import Specs
from test_tokens import Absorbing, Ancestral, policy_of


@dataclass(frozen=True)
class Mixing(Absorbing):
    """Each token is drawn anew with probability t / I, among the choices (a uniform process)."""

    def vocabulary(self, choices):
        return choices

    def corrupt(self, x0, t, draws, allowed=None):
        chance = torch.as_tensor(t).unsqueeze(-1) / self.levels
        anew = (draws / chance.clamp_min(1e-9) * allowed.shape[-1]).long().clamp_max(allowed.shape[-1] - 1)
        return torch.where(draws < chance, anew, x0)


SPECS = [Categorical(5, (4,)), OneHot(5, (4, 5)), MultiCategorical([3, 2], (4, 2))]


@pytest.mark.parametrize("spec", SPECS, ids=["categorical", "one-hot", "multi-categorical"])
def test_the_loss_is_the_bound_summed_over_steps_and_hidden_slots(spec):
    policy = policy_of(Specs({"observation": Unbounded((4, 3))}, spec), seed=1)
    loss, levels, k = TokenImitationLoss(policy), policy.process.steps, policy.head.slots
    observation, action = torch.randn(1, 3), spec.rand()[:1]
    x0 = policy.head.encode(action)
    head = policy.head
    allowed = head.read_mask(torch.ones(1, head.mask_width, dtype=torch.bool)).unflatten(-1, (k, -1))
    cond, bound, found = policy.prepared(policy.condition(observation)), 0.0, 0.0
    for t, hidden in itertools.product(range(1, levels + 1), itertools.product([False, True], repeat=k)):
        hidden = torch.tensor([hidden])
        chance = math.prod(t / levels if h else 1 - t / levels for h in hidden[0].tolist())
        x = torch.where(hidden, allowed.shape[-1], x0)
        each = policy.token_logits(x, t, cond, allowed, policy.vocabulary).log_softmax(-1)
        bound -= float((each.gather(-1, x0.unsqueeze(-1)).squeeze(-1) * hidden).sum().detach()) * chance / t
        # the same by the loss: draws that hide just these slots at just this step
        when, noise = torch.tensor([(t - 0.5) / levels]), torch.where(hidden, 0.0, 1 - 1e-6)
        found += chance * float(loss.losses(observation, action, None, when, noise).detach()) / levels
    assert found == pytest.approx(bound, rel=1e-5)


def test_of_one_slot_the_bound_is_the_cross_entropy_of_what_is_predicted_of_nothing():
    policy = policy_of(Specs({"observation": Unbounded((4, 3))}, Categorical(5, (4,))), seed=1)
    with torch.no_grad():
        for p in policy.denoiser.parameters():
            p.zero_()
    loss = TokenImitationLoss(policy)
    found = torch.stack([loss.imitate(torch.zeros(600, 3), torch.zeros(600).long()) for _ in range(30)]).mean()
    assert float(found.detach()) == pytest.approx(math.log(5), rel=0.03)


def imitated(process, env=None):
    """A policy that imitated (0, 1) and (1, 0), each as often, by `ImitationModule`."""
    policy = DiffusionPolicy.from_specs(
        Apart(1),
        items="joint",
        schedule=process,
        sampler=Ancestral(),
        denoiser={"kind": "MLPDenoiser", "hidden": [32]},
        head=TokenHead(),
    )
    generator = torch.Generator().manual_seed(0)

    def collect(number):
        first = torch.randint(2, (256,), generator=generator)
        return torch.ones(256, 2), torch.stack([first, 1 - first], -1)

    loss = TokenImitationLoss(policy).imitate
    module = ImitationModule(policy, collect, loss, rounds=2, updates=100, batch_size=128, env=env)
    fit(module)
    assert module.history[1]["loss"] < module.history[0]["loss"]
    return policy


def predicted(policy, x, t):
    allowed = torch.ones(*x.shape, 2, dtype=torch.bool)
    cond = policy.prepared(policy.condition(torch.ones(len(x), 2)))
    return policy.token_logits(x, t, cond, allowed, policy.vocabulary).softmax(-1)


def test_imitation_learns_actions_that_only_together_are_right():
    policy = imitated(Absorbing(), Apart(1))
    law = predicted(policy, torch.tensor([[0, 2], [1, 2]]), 3)
    assert min(law[0, 1, 1], law[1, 1, 0]) > 0.9
    action = policy.eval()(Apart(500).reset())["action"]
    assert (action[:, 0] != action[:, 1]).float().mean() > 0.75  # two may be shown at the same step


def test_a_process_that_changes_tokens_is_imitated_too():
    law = predicted(imitated(Mixing()), torch.tensor([[0, 1], [1, 0], [0, 0]]), 1)
    assert min(law[0, 0, 0], law[0, 1, 1], law[1, 0, 1], law[1, 1, 0]) > 0.9
    assert (law[2] - 0.5).abs().max() < 0.15


@pytest.mark.parametrize("agents", [None, 2])
def test_rows_of_transitions_are_what_is_imitated(agents):
    env = env_of(agents=agents)
    policy = policy_of(env, items="joint", seed=3)
    now, after = policy(seen(env)), seen(env, seed=1)
    after["reward"] = torch.ones(5, 1)
    after["terminated"] = torch.zeros(5, 1, dtype=torch.bool)
    after["done"] = after["terminated"].clone()
    rollout = now.set("next", after).unsqueeze(1)
    rollout.batch_size = [5, 1]
    rows = step_transitions(rollout, Keys.of(env, items="joint"))
    rows = rows.reshape(-1) if agents is None else rows.transpose(0, 1).reshape(agents, -1)
    loss = TokenImitationLoss(policy)
    value = loss(rows)["loss_actor"]
    assert float(value.detach()) > 0
    value.backward()
    assert all(torch.isfinite(p.grad).all() for p in policy.parameters())
    assert any(bool(p.grad.any()) for p in policy.parameters())


def test_denoisers_take_a_step_for_each_row():
    steps = torch.tensor([3, 1, 2])
    mlp = MLPDenoiser(4, 2, 3)
    x, c = torch.randn(3, 4), torch.randn(3, 2)
    each = torch.cat([mlp(x[r : r + 1], int(t), mlp.prepare(c[r : r + 1])) for r, t in enumerate(steps)])
    assert torch.allclose(mlp(x, steps, mlp.prepare(c)), each, atol=1e-6)
    stack = MLPDenoiser(4, 2, 3, agents=2)
    x2, c2, s2 = torch.randn(2, 3, 4), torch.randn(2, 3, 2), torch.stack([steps, steps.flip(0)])
    found = stack(x2, s2, stack.prepare(c2))
    for g, r in itertools.product(range(2), range(3)):
        assert torch.allclose(stack(x2, int(s2[g, r]), stack.prepare(c2))[g, r], found[g, r], atol=1e-6)
    items = PerAgent(ItemDenoiser(4, 2, 3), 2)
    x3, c3 = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 2)
    found = items(x3, s2, items.prepare(c3))
    for g, r in itertools.product(range(2), range(3)):
        assert torch.allclose(items(x3, int(s2[g, r]), items.prepare(c3))[g, r], found[g, r], atol=1e-5)


def plain():
    return Specs({"observation": Unbounded((4, 3))}, Categorical(5, (4,)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TokenImitationLoss(DiffusionPolicy.from_specs(plain())), "goes through the numbers of a Gaussian"),
        (lambda: TokenImitationLoss(FeedforwardPolicy.from_specs(plain())), "FeedforwardPolicy has no chain"),
        (
            lambda: TokenImitationLoss(policy_of(plain())).imitate(torch.zeros(3, 3), torch.tensor([0, 5, 1])),
            r"at \[1, 0\] is 5, which is not allowed",
        ),
        (
            lambda: TokenImitationLoss(policy_of(env_of(), items="joint"))(
                TensorDict({"observation": torch.zeros(2, 12), "action": torch.zeros(2, 4).long()}, batch_size=2)
            ),
            "'action_mask', which the objective reads",
        ),
    ],
)
def test_mistakes_get_a_sentence(make, words):
    with pytest.raises(InputError, match=words):
        make()
