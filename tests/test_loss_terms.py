"""Losses term by term where what often coincides does not: critics that disagree, agents, steps of unlike weight."""

import math
from functools import partial

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from diffpolicy import DiffusionPolicy, FeedforwardPolicy
from diffpolicy.diffusion import Ancestral, FlowProcess, MaskedProcess, TauLeaping, UniformProcess
from diffpolicy.networks import CriticEnsemble
from diffpolicy.objectives import (
    ChainPPOLoss,
    DenoisingLoss,
    DistillationLoss,
    DPPOLoss,
    FPOLoss,
    FQLLoss,
    LikelihoodLoss,
    MirrorDescentLoss,
    QDFMLoss,
    QVPOLoss,
    TokenImitationLoss,
    WeightedActionLoss,
    action_critic,
    choice_probabilities,
)
from diffpolicy.objectives.action_losses import action_losses
from diffpolicy.objectives.critics import state_values
from diffpolicy.objectives.token_imitation import token_errors
from diffpolicy.policies.heads import BoundedHead, TokenHead, VectorHead
from test_dppo import NUMBERS, VECTOR, loss_of, played
from test_fql import parts
from test_weighted import ACTIONS, CHOICES, GAIN, ITEMS, MASK, POSSIBLE, SEEN, chain_policy, gains, plain_policy
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


def vectors(agents=None, prediction="x0", chain=FLOW, seed=0):
    return DiffusionPolicy(
        choices=2, observation_dim=3, agents=agents, head=HEAD, prediction=prediction, seed=seed, **chain
    )


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


# Agents side by side, each as if it were alone


def of_choices(agents):
    """A policy of tokens of so many agents, as it played, with an advantage of each row."""
    policy = DiffusionPolicy.from_specs(GuessEnv(M, agents), schedule=MaskedProcess(2), head=TokenHead())
    policy.record = "draws"
    rows = policy(GuessEnv(M, agents).reset())["agents"].transpose(0, 1).select("observation", "action", "draws")
    more = {name: torch.randn(agents, M, 1) for name in ("advantage", "value_target")}
    loss = DPPOLoss(policy, CriticEnsemble(3, 1, ensemble=1, agents=agents))
    ready = loss.begin(rows.clone().update(more))
    ready["step_log_prob"] += 0.1 * torch.randn(ready["step_log_prob"].shape)
    return loss, ready


def of_vectors(agents):
    """A flow of so many agents, with kept draws and what their losses were."""
    policy = vectors(agents, "velocity")
    loss = FPOLoss(policy, CriticEnsemble(3, 1, ensemble=1, agents=agents))
    more = {name: torch.randn(agents, M, 1) for name in ("advantage", "value_target")}
    given = {"observation": torch.randn(agents, M, 3), "action": 4 * torch.rand(agents, M, 2)}
    ready = loss.begin(TensorDict(given, [agents, M]))
    raise_by = 0.1 * torch.randn(ready["flow_loss"].shape)
    return loss, ready.update(more).set("flow_loss", ready["flow_loss"] + raise_by)


def alone(loss, g):
    """The same loss of one agent."""
    critic = CriticEnsemble(3, 1, ensemble=1)
    with torch.no_grad():
        for mine, theirs in zip(critic.parameters(), loss.critic.parameters(), strict=True):
            mine.copy_(theirs[g].reshape(mine.shape))
    return type(loss)(loss.policy.for_agent(g), critic)


@pytest.mark.parametrize("make", [of_choices, of_vectors])
def test_on_policy_losses_of_agents_add_up(make):
    torch.manual_seed(0)
    loss, ready = make(G)
    together, each = loss(ready), [alone(loss, g)(ready[g]) for g in range(G)]
    for name in ("loss_objective", "loss_critic"):
        torch.testing.assert_close(together[name], sum(one[name] for one in each))
    for name in ("kl_approx", "clip_fraction"):
        torch.testing.assert_close(together[name], sum(one[name] for one in each) / G)


@pytest.mark.parametrize("teacher", [None, FeedforwardPolicy(choices=3, observation_dim=3, agents=G, seed=5)])
def test_imitation_of_agents_adds_up(teacher):
    policy = FeedforwardPolicy(choices=3, observation_dim=3, agents=G, seed=1)
    rows = TensorDict({"observation": torch.randn(G, M, 3), "action": torch.randint(0, 3, (G, M))}, [G, M])
    law = policy.law(rows["observation"]).log_softmax(-1)
    if teacher is None:
        each, loss = -law.gather(-1, rows["action"].unsqueeze(-1)).squeeze(-1), LikelihoodLoss(policy)
        torch.testing.assert_close(DistillationLoss(policy, nn.Identity())(rows)["loss_actor"], each.mean(-1).sum())
    else:
        theirs = teacher.law(rows["observation"]).log_softmax(-1)
        each, loss = (theirs.exp() * (theirs - law)).sum(-1), DistillationLoss(policy, teacher)
    torch.testing.assert_close(loss(rows)["loss_actor"], each.mean(-1).sum())


@pytest.mark.parametrize("agents", [None, G])
def test_where_nothing_is_predicted_the_error_is_the_square_of_the_action(agents):
    """Of a network that gives 0 as x_0: whatever is drawn, the loss is the mean square of scaled numbers."""
    lead = (M,) if agents is None else (agents, M)
    action = 1 + 2 * torch.rand(*lead, 2)
    square = (action / 2 - 1).square().mean(-1)
    close = partial(torch.testing.assert_close, rtol=1e-3, atol=1e-4)  # x_0 is had back of what is noised
    policy = zeroed(vectors(agents))
    seen = torch.randn(*lead, 3)
    close(DenoisingLoss(policy).imitate(seen, action), square.mean(-1).sum())
    close(action_losses(policy, seen, action, None), square)
    student = zeroed(vectors(agents, chain=ONE))
    close(DistillationLoss(student, nn.Identity()).imitate(seen, action), square.mean(-1).sum())
    found = FQLLoss(student, Offsets(-1.0, -5.0), policy)(transitions(lead, action))
    close(found["loss_flow"], square.mean(-1).sum())
    assert found["loss_actor"].item() == pytest.approx(1.0 * (agents or 1))  # both ends are 0, and -Q / |Q| is 1


@pytest.mark.parametrize("agents", [None, G])
def test_where_all_choices_are_predicted_alike_the_error_is_the_log_of_their_number(agents):
    """One step hides every token of a masked process; a uniform one shows some and asks for all."""
    lead = (M,) if agents is None else (agents, M)
    seen, action = torch.randn(*lead, 3), torch.randint(0, 3, lead)
    for process, sampler in ((MaskedProcess(1), Ancestral()), (UniformProcess(4), TauLeaping())):
        policy = zeroed(
            DiffusionPolicy.from_specs(
                GuessEnv(1, agents), schedule=process, sampler=sampler, head=TokenHead(), denoiser={"hidden": [8]}
            )
        )
        per_row = torch.full(lead, math.log(3))
        torch.testing.assert_close(action_losses(policy, seen, action, None), per_row)
        torch.testing.assert_close(TokenImitationLoss(policy).imitate(seen, action), per_row.mean(-1).sum())
        two = torch.tensor([True, True, False]).expand(*lead, 3)
        allowed = action.clamp_max(1)
        torch.testing.assert_close(action_losses(policy, seen, allowed, two), torch.full(lead, math.log(2)))


class Given(WeightedActionLoss):
    """Weights that are the values, of actions and losses that are given."""

    def weights(self, q):
        return q

    def value(self, q):
        return q.mean(-1)


def test_weighted_losses_are_means_over_states_and_sums_over_actions_and_agents():
    """A state that allows nothing counts as one of no loss."""
    policy = FeedforwardPolicy(choices=3, observation_dim=3, agents=G)
    loss = Given(policy, action_critic(policy), samples=4)
    weight, cost = torch.randn(G, M, 4), torch.randn(G, M, 4)
    loss.drawn = lambda observation, mask: torch.zeros(G, 4 * M).long()
    loss.values = lambda observation, action: weight
    loss.given = lambda observation, action, mask: cost.flatten(-2)
    mask = torch.ones(G, M, 3, dtype=torch.bool)
    mask[1, 2] = False
    wanted = sum(
        float(weight[g, m, n] * cost[g, m, n]) / M
        for g in range(G)
        for m in range(M)
        for n in range(4)
        if (g, m) != (1, 2)
    )
    assert loss.actor_losses(torch.zeros(G, M, 3), mask)["loss_actor"].item() == pytest.approx(wanted, rel=1e-4)


def test_each_agent_has_a_lambda_that_follows_its_own_divergence():
    policy = FeedforwardPolicy(choices=3, observation_dim=3, agents=G)
    loss = MirrorDescentLoss(policy, action_critic(policy), target_kl=0.1)
    lambdas, kl = torch.tensor([0.5, 1.0, 4.0]), torch.tensor([0.05, 0.1, 0.4])
    with torch.no_grad():
        loss.log_temperature.copy_(lambdas.log().view(G, 1))
    told = loss.dual(kl)
    assert told["loss_temperature"].item() == pytest.approx((0.5 * 0.05 - 4.0 * 0.3), rel=1e-5)
    assert told["temperature"].item() == pytest.approx(5.5 / 3)
    assert told["kl"].item() == pytest.approx(0.55 / 3)
    told["loss_temperature"].backward()
    wanted = [0.5 * 0.05, 0.0, -4.0 * 0.3]
    assert loss.log_temperature.grad.flatten().tolist() == pytest.approx(wanted, abs=1e-6)
    q = torch.tensor([0.0, 1.0]).expand(G, M, 2)
    chance = 1 / (1 + (-1 / lambdas).exp())
    torch.testing.assert_close(loss.weights(q)[..., 1], chance.unsqueeze(-1).expand(G, M))


# Steps and slots of unlike weight


def test_the_last_step_of_a_chain_counts_most():
    loss = loss_of(VECTOR, NUMBERS, denoising_gamma=0.5)
    ready = loss.begin(played(loss.policy, lambda a: torch.ones(64)))
    for step, weight in enumerate((0.25, 0.5, 1.0)):
        moved = ready.clone()
        moved["step_log_prob"][:, step] -= 1  # this step's ratio is e, which is clipped, and those of others are 1
        found = loss(moved)
        assert found["loss_objective"].item() == pytest.approx(-(1.75 + 0.2 * weight), rel=1e-5)
        assert found["kl_approx"].item() == pytest.approx(-1, rel=1e-4)
        assert found["clip_fraction"].item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("process", [UniformProcess(4), MaskedProcess(4)])
def test_rates_of_tokens_are_matched_slot_by_slot_and_choice_by_choice(process, monkeypatch):
    policy = chain_policy(process, TauLeaping(), seed=2)
    loss, v = QDFMLoss(policy, Opinions(), beta=1.0), policy.vocabulary
    last = CHOICES if v > CHOICES else 2
    x, t = torch.tensor([[0, 0], [2, last], [1, 2], [last, last]]), torch.tensor([1, 3, 4, 2])
    x0 = torch.tensor([[0, 2], [2, 0], [1, 2], [0, 0]])
    monkeypatch.setattr("diffpolicy.objectives.qdfm.spread", lambda *given: t)
    monkeypatch.setattr(type(process), "corrupt", lambda *given: x)
    seen, mask = SEEN.expand(4, -1), MASK.expand(4, -1)
    found = loss.given(seen, x0, mask)
    allowed = policy.allowed_tokens(mask, torch.Size([4]))
    law = policy.token_logits(x, t, policy.learned(seen), allowed, v).softmax(-1)
    for row in range(4):
        stays, wanted = 1 - process.kept(int(t[row])), 0.0
        for slot in range(ITEMS):
            now, end = int(x[row, slot]), int(x0[row, slot])
            for y in range(CHOICES):
                if y == now or (v > CHOICES and now != CHOICES):  # what is shown of a masked process stays
                    continue
                wanted += (float(law[row, slot, y]) - (y == end)) ** 2 / stays**2
        assert found[row].item() == pytest.approx(wanted, rel=1e-4, abs=1e-7)


def test_a_process_that_changes_tokens_asks_for_all_of_them_with_weights_of_one():
    policy = chain_policy(UniformProcess(4), TauLeaping(), seed=2)
    x, x0, t = torch.tensor([[0, 2], [1, 0]]), torch.tensor([[0, 0], [2, 2]]), torch.tensor([1, 4])
    seen, allowed = SEEN.expand(2, -1), policy.allowed_tokens(MASK.expand(2, -1), torch.Size([2]))
    law = policy.token_logits(x, t, policy.learned(seen), allowed, policy.vocabulary).softmax(-1)
    wanted = [-sum(math.log(law[row, slot, x0[row, slot]]) for slot in range(ITEMS)) for row in range(2)]
    assert token_errors(policy, seen, x0, x, t, allowed).tolist() == pytest.approx(wanted, rel=1e-5)


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


def test_chances_at_a_temperature_are_those_of_divided_logits():
    policy, td = FeedforwardPolicy.from_specs(GuessEnv(4), seed=3), GuessEnv(4).reset()
    warm = choice_probabilities(policy, td, temperature=2.0)
    weight = choice_probabilities(policy, td).sqrt()
    torch.testing.assert_close(warm, weight / weight.sum(-1, keepdim=True))


def test_uniform_actions_cost_each_agent_what_its_own_weights_say():
    policy = zeroed(FeedforwardPolicy(choices=3, observation_dim=3, agents=G))
    loss = QVPOLoss(policy, action_critic(policy), samples=2, entropy=0.5, uniform=4)
    weight = torch.rand(G, M, 2)
    found = loss.more(torch.zeros(G, M, 3), None, weight)["loss_entropy"]
    assert found.item() == pytest.approx(0.5 * float(weight.sum(-1).mean(-1).sum()) * math.log(3), rel=1e-5)


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
