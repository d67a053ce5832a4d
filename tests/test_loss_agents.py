"""Losses of agents side by side: each learns as if it were alone, and what they lose adds up."""

import math
from functools import partial

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from diffpolicy import DiffusionPolicy, FeedforwardPolicy, InputError
from diffpolicy.diffusion import Ancestral, MaskedProcess, TauLeaping, UniformProcess
from diffpolicy.networks import CriticEnsemble
from diffpolicy.objectives import (
    DenoisingLoss,
    DistillationLoss,
    DPPOLoss,
    FPOLoss,
    FQLLoss,
    LikelihoodLoss,
    MirrorDescentLoss,
    QVPOLoss,
    TokenImitationLoss,
    WeightedActionLoss,
    action_critic,
)
from diffpolicy.objectives.action_losses import action_losses
from diffpolicy.policies.heads import TokenHead
from test_fql import parts
from test_loss_terms import ONE, G, M, Offsets, Opinions, transitions, vectors, zeroed
from test_weighted import (
    ACTIONS,
    MASK,
    POSSIBLE,
    SEEN,
    chain_policy,
    gains,
    plain_policy,
)
from toys import GuessEnv


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


def test_masked_students_are_held_to_masked_laws_and_decisions_within_the_mask():
    """Both laws are even over two of three choices: they are the same, and each decision has half the chance."""
    teacher, student = (zeroed(FeedforwardPolicy.from_specs(GuessEnv(1, mask=True))) for _ in range(2))
    rows = TensorDict({"observation": torch.randn(M, 3), "action": torch.ones(M).long()}, [M])
    rows["action_mask"] = torch.tensor([True, True, False]).expand(M, -1)
    assert DistillationLoss(student, teacher)(rows)["loss_actor"].item() == pytest.approx(0, abs=1e-6)
    assert DistillationLoss(student, nn.Identity())(rows)["loss_actor"].item() == pytest.approx(math.log(2), rel=1e-5)
    rows["action"][2] = 2
    with pytest.raises(InputError, match="one that the mask forbids"):
        LikelihoodLoss(student)(rows)


def test_the_end_of_a_teachers_flow_is_regressed_by_the_mean_square():
    student, teacher = parts(0.5, 0.25)
    rows = TensorDict({"observation": torch.randn(M, 3), "action": torch.zeros(M, 2)}, [M])
    assert DistillationLoss(student, teacher)(rows)["loss_actor"].item() == pytest.approx(0.0625, rel=0.02)


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
        within = TokenImitationLoss(policy).imitate(seen, allowed, two)
        assert within.item() == pytest.approx((agents or 1) * math.log(2), rel=1e-5)


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


@pytest.mark.parametrize("kept", [None, 2])
def test_what_a_mask_forbids_is_neither_drawn_nor_learned_as_if_it_might_be(kept):
    loss, learned = QVPOLoss(chain_policy(), Opinions(), samples=64, kept=kept, entropy=0), []
    given = loss.given
    loss.given = lambda *asked: (learned.append(asked), given(*asked))[1]
    loss.more = lambda observation, mask, weight: learned.append((None, None, mask)) or {}
    masks = torch.cat([MASK, torch.ones_like(MASK)])
    loss.actor_losses(SEEN.expand(2, -1), masks)
    assert torch.equal(learned.pop()[2], masks)  # uniform actions are drawn within it, too
    (_, action, mask), *more = learned
    count = 64 if kept is None else kept
    assert not more
    assert torch.equal(mask, torch.cat([MASK.expand(count, -1), torch.ones_like(MASK).expand(count, -1)]))
    forbidden = action[:count, 1] == 1
    assert not forbidden.any()
    if kept is None:
        assert (action[count:, 1] == 1).any()
    else:  # where all may be, the best two of 64 draws are those that the mask forbids in the other state
        assert (gains(action[count:]) == 9.0).all()


def test_the_loss_of_an_action_is_that_within_its_mask():
    loss = QVPOLoss(zeroed(plain_policy()), Opinions())
    found = loss.given(SEEN, ACTIONS[POSSIBLE][:1], MASK)
    assert found.item() == pytest.approx(math.log(int(POSSIBLE.sum())), rel=1e-5)


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


def test_uniform_actions_cost_each_agent_what_its_own_weights_say():
    policy = zeroed(FeedforwardPolicy(choices=3, observation_dim=3, agents=G))
    loss = QVPOLoss(policy, action_critic(policy), samples=2, entropy=0.5, uniform=4)
    weight = torch.rand(G, M, 2)
    found = loss.more(torch.zeros(G, M, 3), None, weight)["loss_entropy"]
    assert found.item() == pytest.approx(0.5 * float(weight.sum(-1).mean(-1).sum()) * math.log(3), rel=1e-5)
