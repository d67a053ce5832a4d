"""Deep Q-learning: the textbook target, the copied target network, and a known optimum."""

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Composite, OneHot

from diffpolicy import GreedyValuePolicy
from diffpolicy.methods import DQNMethod
from diffpolicy.objectives import AgentsDQNLoss
from diffpolicy.training.fit import fit
from toys import GuessEnv, copy_slice, guess_transitions

G, M, F, A, GAMMA = 3, 6, 4, 3, 0.9


def make(agents=None, **options):
    policy = GreedyValuePolicy(choices=A, observation_dim=F, agents=agents, hidden=(8,), act="tanh", seed=1)
    old = [p.detach().clone() for p in policy.parameters()]
    loss = AgentsDQNLoss(policy, gamma=GAMMA, **options)
    move(policy)
    return loss, policy, old


def move(policy, seed=2):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=g))


def with_parameters(policy, values):
    """The same policy with other parameters."""
    other = GreedyValuePolicy(choices=A, observation_dim=F, agents=policy.agents, hidden=(8,), act="tanh")
    with torch.no_grad():
        for p, v in zip(other.parameters(), values, strict=True):
            p.copy_(v)
    return other


def rows(lead, terminated=False, seed=3):
    g = torch.Generator().manual_seed(seed)
    td = TensorDict(
        observation=torch.randn(*lead, F, generator=g),
        action=torch.randint(0, A, lead, generator=g),
        reward=torch.randn(*lead, generator=g),
        next=TensorDict(observation=torch.randn(*lead, F, generator=g), batch_size=lead),
        batch_size=lead,
    )
    if terminated:
        flag = (torch.rand(*lead, 1, generator=g) < 0.5).bool()
        td["next", "terminated"], td["next", "done"] = flag, flag.clone()
    return td


def by_hand(policy, target, td, double):
    """Mean squared error of each agent, summed over agents, with explicit loops."""
    stacked = policy.agents is not None
    with torch.no_grad():
        q, online = policy.logits(td["observation"]), policy.logits(td["next", "observation"])
        after = target.logits(td["next", "observation"])
    total = 0.0
    for g in range(policy.agents or 1):
        for m in range(td.batch_size[-1]):
            at = (g, m) if stacked else (m,)
            best = online[at].argmax() if double else after[at].argmax()
            over = "terminated" in td["next"].keys() and bool(td["next", "terminated"][at])
            goal = td["reward"][at] + (0 if over else GAMMA * after[at][best])
            total += float((q[at][td["action"][at]] - goal) ** 2) / td.batch_size[-1]
    return total


@pytest.mark.parametrize("agents", [None, G])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("terminated", [False, True])
def test_the_loss_is_the_squared_error_to_the_textbook_target(agents, double, terminated):
    loss, policy, old = make(agents, double=double)
    td = rows((M,) if agents is None else (agents, M), terminated)
    expected = by_hand(policy, with_parameters(policy, old), td, double)
    assert float(loss(td)["loss"].detach()) == pytest.approx(expected, rel=1e-4)


def test_double_q_learning_differs_where_the_networks_disagree():
    single, double = (float(make(double=double)[0](rows((60,)))["loss"].detach()) for double in (False, True))
    assert single != pytest.approx(double)


def test_a_stack_is_the_sum_of_separate_learners():
    loss, policy, old = make(G)
    td = rows((G, M))
    total = 0.0
    for g in range(G):
        single = GreedyValuePolicy(choices=A, observation_dim=F, hidden=(8,), act="tanh")
        copy_slice(single, with_parameters(policy, old), g)
        alone = AgentsDQNLoss(single, gamma=GAMMA)
        copy_slice(single, policy, g)
        total += float(alone(td[g])["loss"].detach())
    assert float(loss(td)["loss"].detach()) == pytest.approx(total, rel=1e-4)


def test_the_gradient_reaches_the_policys_own_parameters():
    loss, policy, _ = make(G)
    loss(rows((G, M)))["loss"].backward()
    for p in policy.parameters():
        assert p.grad is not None
        assert (p.grad.flatten(1).abs().sum(1) > 0).all()
    assert [id(p) for p in loss.parameter_groups()["critic"]] == [id(p) for p in policy.parameters()]


def test_the_gradient_of_one_agents_rows_stays_with_it():
    loss, policy, _ = make(G)
    td = rows((G, M))
    with torch.no_grad():
        # the other agents' errors vanish, so that their gradients must too
        best = policy.logits(td["observation"]).gather(-1, td["action"].unsqueeze(-1)).squeeze(-1)
    td["next", "terminated"] = torch.ones(G, M, 1, dtype=torch.bool)
    td["next", "done"] = td["next", "terminated"].clone()
    td["reward"] = torch.where(torch.arange(G).unsqueeze(-1) == 1, td["reward"], best)
    loss(td)["loss"].backward()
    for p in policy.parameters():
        per_agent = p.grad.flatten(1).abs().sum(1)
        assert per_agent[1] > 0
        assert per_agent[0] < 1e-5
        assert per_agent[2] < 1e-5


@pytest.mark.parametrize("interval", [1, 3])
def test_the_target_is_copied_after_so_many_updates_and_not_before(interval):
    loss, policy, old = make(target_interval=interval)
    td = rows((M,))
    now = [p.detach().clone() for p in policy.parameters()]
    for k in range(1, 2 * interval + 1):
        expected = by_hand(policy, with_parameters(policy, now if k > interval else old), td, False)
        assert float(loss(td)["loss"].detach()) == pytest.approx(expected, rel=1e-4)
        loss.update_targets()
    assert float(loss(td)["loss"].detach()) == pytest.approx(
        by_hand(policy, with_parameters(policy, now), td, False), rel=1e-4
    )
    move(policy, seed=5)
    # what has been copied stays as it is while the network moves on
    assert float(loss(td)["loss"].detach()) == pytest.approx(
        by_hand(policy, with_parameters(policy, now), td, False), rel=1e-4
    )


def test_the_count_of_updates_survives_a_checkpoint():
    loss, _, _ = make(target_interval=3)
    for _ in range(2):
        loss.update_targets()
    other, policy, _ = make(target_interval=3)
    other.load_state_dict(loss.state_dict())
    move(policy, seed=5)
    td = rows((M,))
    other.update_targets()
    copied = [p.detach().clone() for p in policy.parameters()]
    expected = by_hand(policy, with_parameters(policy, copied), td, False)
    assert float(other(td)["loss"].detach()) == pytest.approx(expected, rel=1e-4)


def test_the_batch_is_not_changed():
    loss, _, _ = make(G)
    td = rows((G, M))
    before = td.clone()
    loss(td)
    assert set(td.keys(True, True)) == set(before.keys(True, True))
    assert (td == before).all()


@pytest.mark.parametrize("agents", [pytest.param(None, marks=pytest.mark.slow), 2])
def test_a_contextual_bandit_is_learned(agents):
    method = DQNMethod(
        transitions=guess_transitions,
        learning_rates={"critic": 1e-2},
        start_after=20,
        epsilon=0.2,
        gamma=0.5,
        target_interval=10,
    )
    module = method.build(GuessEnv(8, agents, horizon=20), episode_steps=20)
    fit(module, episodes=8 * 12)
    env = GuessEnv(500, agents)
    with torch.no_grad():
        td = module.policy.eval()(env.reset())
    action = td["action"] if agents is None else td["agents", "action"]
    assert float((action == env.best()).float().mean()) > 0.85


def test_one_hot_actions_are_learned_as_their_numbers():
    env = GuessEnv(4)
    env.action_spec = Composite(action=OneHot(3, (4, 3)), shape=(4,))
    policy = GreedyValuePolicy.from_specs(env)
    loss = AgentsDQNLoss(policy)
    number = torch.tensor([2, 0, 1])
    rows = TensorDict(
        observation=torch.randn(3, 3),
        reward=torch.ones(3),
        action=number,
        next=TensorDict(observation=torch.randn(3, 3), batch_size=[3]),
        batch_size=[3],
    )
    plain = AgentsDQNLoss(GreedyValuePolicy.from_specs(GuessEnv(4)))
    plain.load_state_dict(loss.state_dict())
    hot = rows.clone().set("action", torch.nn.functional.one_hot(number, 3).bool())
    assert torch.equal(loss(hot)["loss"], plain(rows)["loss"])
