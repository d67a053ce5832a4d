"""Losses term by term where critics disagree, and what else is weighed."""

import math

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from diffpolicy import DiffusionPolicy, FeedforwardPolicy, InputError
from diffpolicy.diffusion import FlowProcess
from diffpolicy.networks import CriticEnsemble
from diffpolicy.objectives import (
    ChainPPOLoss,
    DenoisingLoss,
    DistillationLoss,
    FPOLoss,
    FQLLoss,
    MirrorDescentLoss,
    QDFMLoss,
    QVPOLoss,
    WeightedActionLoss,
    action_critic,
    choice_probabilities,
)
from diffpolicy.objectives.critics import state_values
from diffpolicy.policies.heads import BoundedHead, VectorHead
from test_fql import parts
from test_weighted import (
    ACTIONS,
    CHOICES,
    GAIN,
    ITEMS,
    MASK,
    POSSIBLE,
    SEEN,
    chain_policy,
    gains,
    plain_policy,
)
from toys import GuessEnv

G, M = 3, 5
FLOW = {"schedule": FlowProcess(6), "sampler": "flow-euler"}
ONE = {"schedule": FlowProcess(6), "sampler": "one-step"}
HEAD = VectorHead(low=(0.0, 0.0), high=(4.0, 4.0))


class Offsets(nn.Module):
    """Critics of the first number of an action of two, as it is scaled; each adds an offset of its own."""

    def __init__(self, *offsets):
        super().__init__()
        self.offsets = nn.Parameter(torch.tensor(offsets))

    def forward(self, x):
        return (x[..., -2] + self.offsets.view(-1, *[1] * (x.ndim - 1))).unsqueeze(-1)


class Opinions(nn.Module):
    """Two critics of the nine actions of the bandit: one knows the gains, the other takes 1 off the positive ones."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        gain = gains(x[..., -ITEMS * CHOICES :].unflatten(-1, (ITEMS, CHOICES)).argmax(-1)) + self.offset
        return torch.stack([gain, gain - (gain > 0).to(gain)]).unsqueeze(-1)


LEAST = GAIN - (GAIN > 0).float()


def zeroed(policy):
    """The policy with a network that gives 0."""
    with torch.no_grad():
        for p in policy.parameters():
            p.zero_()
    return policy


def vectors(agents=None, prediction="x0", chain=FLOW, seed=0, **more):
    shape = {"choices": 2, "observation_dim": 3, "agents": agents, "head": HEAD}
    return DiffusionPolicy(**shape, prediction=prediction, seed=seed, **chain, **more)


def transitions(lead, action, **more):
    state = {"observation": torch.randn(*lead, 3)}
    return TensorDict({**state, "action": action, "reward": torch.randn(lead), "next": {**state, **more}}, lead)


# Critics that disagree


def test_flow_q_learning_takes_the_mean_of_critics_and_the_magnitude_of_their_value():
    policy, flow = parts(-0.5, 0.25)
    loss = FQLLoss(policy, Offsets(0.0, -3.0), flow, alpha=2.0, gamma=0.9, reward_scale=0.5)
    with torch.no_grad():
        loss.target_critic.offsets.copy_(torch.tensor([2.0, 4.0]))
    over = torch.arange(M) == 3
    rows = transitions((M,), torch.full((M, 2), 3.0), terminated=over)  # scaled 0.5
    target = 0.5 * rows["reward"] + 0.9 * (-0.5 + 3.0) * ~over
    found = loss(rows)
    wanted = sum((0.5 + offset - target).square().mean() for offset in (0.0, -3.0))
    assert found["loss_qvalue"].item() == pytest.approx(wanted.item(), rel=1e-4)
    assert found["loss_actor"].item() == pytest.approx(2 * 0.75**2 + 1, rel=0.02)  # -Q / |Q|, Q being -2
    loss.normalize_q = False
    assert loss(rows)["loss_actor"].item() == pytest.approx(2 * 0.75**2 + 2, rel=0.02)


def test_the_magnitude_of_values_is_a_unit_without_a_gradient_and_never_zero():
    head = BoundedHead(low=(0.0, 0.0), high=(4.0, 4.0))
    policy = FeedforwardPolicy(choices=head.width, observation_dim=3, head=head)
    rows = transitions((M,), torch.full((M, 2), 3.0))
    gradients = []
    for normalize in (False, True):
        loss = FQLLoss(policy, Offsets(5.0), None, alpha=0.0, normalize_q=normalize)
        policy.reseed(1)
        found = loss(rows)["loss_actor"]
        policy.zero_grad()
        found.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in policy.parameters()]))
        if not normalize:
            mean = -found.detach()
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(gradients[1], gradients[0] / mean)
    student = zeroed(vectors(chain=ONE))
    none = FQLLoss(student, Offsets(0.0), zeroed(vectors()), alpha=0.0)(rows)["loss_actor"]
    assert none.item() == 0  # not 0 / 0


def test_without_a_flow_a_normal_law_stays_near_the_rows_by_their_log_probability():
    head = BoundedHead(low=(0.0, 0.0), high=(4.0, 4.0))
    policy = FeedforwardPolicy(choices=head.width, observation_dim=3, head=head)
    loss = FQLLoss(policy, Offsets(5.0, 7.0), None, alpha=0.5)
    rows = transitions((M,), 1 + 2 * torch.rand(M, 2))
    far = -head.log_prob(policy.law(rows["observation"]), rows["action"])
    found = loss(rows)
    assert found["distance"].item() == pytest.approx(far.mean().item(), rel=1e-4)
    # all values are positive, so that their mean in units of their mean magnitude is 1
    assert found["loss_actor"].item() == pytest.approx(0.5 * far.mean().item() - 1, rel=1e-4)
    assert "loss_flow" not in found.keys()
    found = []
    for seed in (1, 2):  # whatever else draws of torch's own generator
        torch.manual_seed(seed)
        policy.reseed(3)
        found.append(loss(rows))
    policy.reseed(4)
    assert found[0]["loss_qvalue"] == found[1]["loss_qvalue"] != loss(rows)["loss_qvalue"]


def test_a_policy_is_held_to_the_ends_of_a_flow_within_the_bounds():
    policy, flow = parts(0.5, 1.5)
    found = FQLLoss(policy, Offsets(0.0), flow)(transitions((M,), torch.full((M, 2), 3.0)))
    assert found["distance"].item() == pytest.approx(0.5**2, rel=1e-3)


def test_losses_of_own_actions_take_the_least_of_critics_for_what_follows_and_each_for_what_was_done():
    policy = chain_policy()
    loss = QVPOLoss(policy, Opinions(), samples=4, next_samples=256, gamma=0.5)
    rows = TensorDict(
        {
            "observation": SEEN.expand(M, -1),
            "action_mask": MASK.expand(M, -1),
            "action": ACTIONS[[0, 2, 3, 5, 8]],
            "reward": torch.arange(M).float(),
            "next": {"observation": SEEN.expand(M, -1), "action_mask": MASK.expand(M, -1)},
        },
        [M],
    )
    target = torch.arange(M) + 0.5 * LEAST[POSSIBLE].max()
    done = gains(rows["action"])
    each = (done - target).square() + (done - (done > 0).float() - target).square()
    assert loss(rows)["loss_qvalue"].item() == pytest.approx(each.mean().item(), rel=1e-5)
    drawn = ACTIONS[POSSIBLE][:4]
    assert torch.equal(loss.values(SEEN.expand(4, -1), drawn), LEAST[POSSIBLE][:4].unsqueeze(0))


def test_the_value_of_a_state_is_the_mean_of_an_ensemble():
    policy = FeedforwardPolicy.from_specs(GuessEnv(1))
    critic, seen = CriticEnsemble(3, 1, ensemble=4), torch.randn(M, 3)
    assert torch.allclose(state_values(critic, policy, seen), critic(seen).sum(0).squeeze(-1) / 4)


def test_a_critic_begins_as_its_generator_says():
    policy, made = FeedforwardPolicy.from_specs(GuessEnv(1)), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        made.append(action_critic(policy, ensemble=3, generator=torch.Generator().manual_seed(5)))
    seen = torch.randn(M, 3 + policy.head.feature_width)
    assert torch.equal(*(critic(seen) for critic in made))
    assert made[0](seen).shape == (3, M, 1)


# What else is weighed


def test_the_entropy_of_a_law_is_weighed_and_that_of_critics_too():
    policy = FeedforwardPolicy.from_specs(GuessEnv(8), seed=3)
    policy.record = True
    rows = policy(GuessEnv(8).reset()).update({"advantage": torch.zeros(8, 1), "value_target": torch.ones(8, 1)})
    critic = CriticEnsemble(3, 1, ensemble=3)
    found = ChainPPOLoss(policy, critic, entropy=0.3, critic_weight=2.0)(rows)
    log_p = policy.law(rows["observation"]).log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum(-1).mean()
    torch.testing.assert_close(found["entropy"], entropy)
    torch.testing.assert_close(found["loss_entropy"], -0.3 * entropy)
    value = critic(rows["observation"]).mean(0).squeeze(-1)
    torch.testing.assert_close(found["loss_critic"], 2.0 * (value - 1).square().mean())


def test_the_divergence_that_is_told_is_a_mean_over_states_and_no_bound_is_beyond_weights():
    loss = MirrorDescentLoss(chain_policy(), Opinions(), samples=2)
    weight = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    assert loss.more(SEEN, MASK, weight)["kl"].item() == pytest.approx(math.log(2) / 2)
    with pytest.raises(InputError, match="target_kl must be below"):
        MirrorDescentLoss(chain_policy(), Opinions(), samples=2, target_kl=math.log(2))


def test_what_is_not_given_is_what_the_reference_says():
    policy, numbers = chain_policy(), vectors(chain=ONE)
    every = {"gamma": 0.95, "tau": 0.005, "reward_scale": 1.0}
    drawn = {**every, "samples": 16, "next_samples": 4}
    for loss, wanted in (
        (QVPOLoss(policy, Opinions()), {**drawn, "kept": None, "entropy": 0.01, "uniform": 4}),
        (MirrorDescentLoss(policy, Opinions()), {**drawn, "temperature": 1.0, "target_kl": 0.1}),
        (QDFMLoss(policy, Opinions()), {**drawn, "beta": 5.0}),
        (FQLLoss(numbers, Offsets(0.0), vectors()), {**every, "alpha": 1.0, "normalize_q": True}),
        (FPOLoss(vectors(), CriticEnsemble(3, 1, ensemble=1)), {"clip": 0.05, "critic_weight": 0.5, "samples": 8}),
    ):
        assert {name: getattr(loss, name) for name in wanted} == wanted, type(loss).__name__
        copied = getattr(loss, "target_policy", None) is not None
        assert copied == isinstance(loss, WeightedActionLoss)


def test_imitation_by_numbers_learns_what_stands_for_a_condition_that_is_left_out():
    policy = vectors(condition_drop=1.0)
    DenoisingLoss(policy).imitate(torch.randn(M, 3), torch.ones(M, 2)).backward()
    assert policy.null.grad.abs().sum() > 0


def test_chances_at_a_temperature_are_those_of_divided_logits():
    policy, td = FeedforwardPolicy.from_specs(GuessEnv(4), seed=3), GuessEnv(4).reset()
    warm = choice_probabilities(policy, td, temperature=2.0)
    weight = choice_probabilities(policy, td).sqrt()
    torch.testing.assert_close(warm, weight / weight.sum(-1, keepdim=True))


def test_a_student_of_its_own_chain_loses_nothing_since_both_start_from_the_same_noise():
    flow = vectors(prediction="velocity", seed=4)
    rows = TensorDict({"observation": torch.randn(M, 3), "action": torch.zeros(M, 2)}, [M])
    assert DistillationLoss(flow, flow)(rows)["loss_actor"].item() == pytest.approx(0, abs=1e-12)
    other = vectors(prediction="velocity", seed=5)
    assert DistillationLoss(other, flow)(rows)["loss_actor"] > 1e-3


def test_a_plain_policy_of_the_bandit_is_held_to_the_least_opinion_too():
    loss = MirrorDescentLoss(plain_policy(), Opinions(), samples=4, temperature=1.0, target_kl=None)
    drawn = ACTIONS[POSSIBLE][:4]
    weight = loss.weighed(SEEN.expand(4, -1), drawn, MASK)
    torch.testing.assert_close(weight, LEAST[POSSIBLE][:4].softmax(-1).unsqueeze(0))
