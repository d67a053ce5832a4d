"""Items of a row that are decided together: heads, what is read of them, chains in which they see each other."""

import itertools
import json

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictSequential
from torchrl.data import Binary, Bounded, Categorical, Composite, MultiCategorical, Unbounded
from torchrl.envs import EnvBase

from diffpolicy import ActionMemory, DiffusionPolicy, FeedforwardPolicy, InputError, Policy
from diffpolicy.environments import EnvProblem, check_policy, step_transitions
from diffpolicy.evaluation import evaluate
from diffpolicy.experiments import train
from diffpolicy.export.decision import Decision
from diffpolicy.networks import CriticEnsemble, ItemDenoiser
from diffpolicy.objectives import LatentBoundedSACLoss, LatentDiscreteSACLoss
from diffpolicy.policies.heads import BoundedHead, CategoricalHead, JointHead, MultiCategoricalHead, head_from_dict
from diffpolicy.policies.keys import Keys
from test_keys import Specs

E, N, A, F = 5, 4, 3, 2


def env_of(*, valid=True, mask=True, agents=None, action=None):
    """An environment of E lanes (and agents) whose action is N items of A choices."""
    lead = (E,) if agents is None else (E, agents)
    shown = {"observation": Unbounded((*lead, N, F))}
    shown |= {"valid": Binary(N, (*lead, N), dtype=torch.bool)} if valid else {}
    shown |= {"action_mask": Binary(A, (*lead, N, A), dtype=torch.bool)} if mask else {}
    spec = Categorical(A, (*lead, N)) if action is None else action
    if agents is None:
        return Specs(shown, spec, batch=(E,))
    group = {"agents": Composite(shown, shape=lead)}
    return Specs(group, Composite(agents=Composite(action=spec, shape=lead), shape=(E,)), batch=(E,))


def seen(env, seed=0):
    """What it shows, with a mask that allows something and items of which some are missing."""
    generator = torch.Generator().manual_seed(seed)
    td = env.reset()
    at = td["agents"] if "agents" in td.keys() else td
    at["observation"] = torch.randn(at["observation"].shape, generator=generator)
    if "valid" in at.keys():
        at["valid"] = torch.rand(at["valid"].shape, generator=generator) < 0.6
    if "action_mask" in at.keys():
        at["action_mask"] = torch.rand(at["action_mask"].shape, generator=generator) < 0.5
        at["action_mask"][..., 1] = True
    return td


HEADS = [
    JointHead(CategoricalHead(choices=3), (3,)),
    JointHead(MultiCategoricalHead(nvec=(2, 3)), (2,)),
    JointHead(CategoricalHead(choices=2), (2, 2)),
]


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_joint_chances_sum_to_one_and_are_those_of_single_actions(head):
    law = head.law(torch.randn(7, head.width, dtype=torch.float64))
    joint = head.joint_log_prob(law)
    assert joint.shape == (7, head.joint)
    assert torch.allclose(joint.exp().sum(-1), torch.ones(7, dtype=torch.float64))
    nvec = [n for _ in range(head.count) for n in (head.each.nvec if head.each.event else (head.each.choices,))]
    for number, choice in enumerate(itertools.product(*map(range, nvec))):
        action = torch.tensor(choice).view(head.event).expand(7, *head.event)
        assert (head.joint_index(action) == number).all()
        assert torch.allclose(head.log_prob(law, action), joint[:, number])
    assert torch.allclose(head.entropy(law), -(joint.exp() * joint).sum(-1))


@pytest.mark.parametrize("head", [*HEADS, JointHead(BoundedHead(low=(-1.0,), high=(2.0,)), (3,))], ids=str)
def test_a_joint_head_has_the_shapes_of_its_action_and_is_described_by_json(head):
    law = head.law(torch.randn(2, 5, head.width))
    numbers = head.draws(torch.Size([2, 5]), torch.Generator().manual_seed(0))
    for action in (head.sample(law, numbers), head.mode(law)):
        assert action.shape == (2, 5, *head.event)
        assert head.log_prob(law, action).shape == (2, 5)
    assert numbers.shape == (2, 5, *head.draw_input[1])
    assert head_from_dict(json.loads(json.dumps(head.to_dict()))) == head


def test_an_item_that_does_not_exist_adds_nothing():
    head = HEADS[0]
    mask = torch.tensor([True, True, False, *head.each.first().tolist(), True, True, True])
    law = head.law(torch.randn(100, head.width), head.read_mask(mask.expand(100, 9)))
    action = head.sample(law, head.draws(torch.Size([100]), torch.Generator().manual_seed(0)))
    assert (action[:, 1] == 0).all()
    assert (action[:, 0] < 2).all()
    shares = law.unflatten(-1, (3, 3))
    alone = sum(head.each.log_prob(shares[:, k], action[:, k]) for k in (0, 2))
    assert torch.allclose(head.log_prob(law, action), alone)
    assert torch.allclose(head.entropy(law), sum(head.each.entropy(shares[:, k]) for k in (0, 2)))
    assert int(head.joint_mask(head.read_mask(mask)).sum()) == 2 * 1 * 3


@pytest.mark.parametrize("agents", [None, 2])
@pytest.mark.parametrize("valid", [False, True])
@pytest.mark.parametrize("cls", [DiffusionPolicy, FeedforwardPolicy])
def test_a_joint_policy_acts_within_its_mask_records_and_is_saved(cls, valid, agents, tmp_path):
    env = env_of(valid=valid, agents=agents)
    td = seen(env)
    policy = cls.from_specs(env, items="joint", seed=2)
    check_policy(policy, env)
    policy.record = True
    out = policy(td.clone())
    at = out["agents"] if agents else out
    action, rows = at["action"], (E,) if agents is None else (E, agents)
    assert at["action_log_prob"].shape == rows
    there = at["valid"] if valid else torch.ones(*rows, N, dtype=torch.bool)
    allowed = at["action_mask"].gather(-1, action.unsqueeze(-1)).squeeze(-1)
    assert allowed[there].all()
    assert (action[~there] == 0).all()
    law = policy.get_dist(out)
    assert (law.batch_shape, law.event_shape) == (rows, (N,))
    assert torch.allclose(law.log_prob(action), at["action_log_prob"], atol=1e-6)
    each = CategoricalHead(choices=A).log_prob(law.parameters.unflatten(-1, (N, A)), action)
    assert torch.allclose(law.log_prob(action), (each * there).sum(-1), atol=1e-5)
    again = Policy.load(policy.save(tmp_path))
    policy.record = False
    policy.eval().reseed(7)
    again.reseed(7)
    for _ in range(2):
        assert torch.equal(again(td.clone()).get(policy.action_key), policy(td.clone()).get(policy.action_key))


def test_items_see_each_other_and_not_those_that_do_not_exist():
    denoiser = ItemDenoiser(A, F + 1, steps=3, flagged=True, generator=torch.Generator().manual_seed(0))
    x, condition = torch.randn(2, N, A), torch.cat([torch.randn(2, N, F), torch.ones(2, N, 1)], -1)
    condition[:, 2, -1] = 0
    there = [0, 1, 3]

    def out(x, condition):
        return denoiser(x, 2, denoiser.prepare(condition))

    first, other = out(x, condition), x.clone()
    other[:, 1] += 1
    assert (out(other, condition)[:, 0] - first[:, 0]).abs().min() > 1e-6
    other = x.clone()
    other[:, 2] += 1
    assert torch.equal(out(other, condition)[:, there], first[:, there])
    order = torch.tensor([3, 0, 2, 1])
    assert torch.allclose(out(x[:, order], condition[:, order]), first[:, order], atol=1e-6)


def test_what_is_observed_of_items_that_do_not_exist_means_nothing():
    env = env_of()
    td = seen(env)
    policy = DiffusionPolicy.from_specs(env, items="joint", normalize=True).eval()
    policy.normalizer.update(policy.normalizer.moments(torch.randn(50, policy.observation_dim)))
    other = td.clone()
    other["observation"][~td["valid"]] = torch.nan
    results = []
    for seen_td in (td, other):
        policy.reseed(3)
        results.append(policy(seen_td.clone())["action"])
    assert torch.equal(*results)
    rows = policy.rows(td)
    flags = policy.normalized(policy.read_observation(td, rows)).unflatten(-1, (N, -1))[..., -1]
    assert torch.equal(flags.bool(), td["valid"])


def test_an_embed_of_ones_own_reads_each_item():
    class Doubled(DiffusionPolicy):
        def embed(self, td):
            assert td.batch_size[-1] == N
            return 2 * super().embed(td)

    env = env_of()
    policy = Doubled.from_specs(env, items="joint")
    check_policy(policy, env)
    observation = policy.read_observation(seen(env), policy.rows(seen(env)))
    given, doubled = (x.unflatten(-1, (N, -1)) for x in (observation, policy.condition(observation)))
    assert torch.equal(doubled[..., :-1], 2 * given[..., :-1])
    assert torch.equal(doubled[..., -1], given[..., -1])


def test_the_pure_decision_is_that_of_acting():
    env = env_of()
    td, policy = seen(env), DiffusionPolicy.from_specs(env, items="joint", seed=1).eval()
    decision = Decision(policy)
    assert [i.name for i in decision.inputs] == ["observation", "noise", "uniform", "mask"]
    acted = policy(td.clone())["action"]
    policy.reseed(1)
    rows, keys = policy.rows(td), Keys.of(env, items="joint")
    policy.generator.set_state(DiffusionPolicy.from_specs(env, items="joint", seed=1).generator.get_state())
    noise = policy.noise(torch.Size([E]))
    uniform = policy.head.draws(torch.Size([E]), policy.generator)
    action, *_ = decision(policy.read_observation(td, rows), noise, uniform, keys.allowed(td))
    assert torch.equal(action, acted)


class Apart(EnvBase):
    """Two items that look alike; the reward is 1 where they choose otherwise: a factorised policy gets 0.5."""

    def __init__(self, batch, seed=0):
        super().__init__(batch_size=[batch])
        self.observation_spec = Composite(observation=Unbounded((batch, 2, 1)), shape=(batch,))
        self.action_spec = Categorical(2, (batch, 2))
        self.reward_spec = Unbounded((batch, 1))
        ends = {name: Binary(1, (batch, 1), dtype=torch.bool) for name in ("done", "terminated")}
        self.done_spec = Composite(ends, shape=(batch,))

    def _reset(self, tensordict=None, **_):
        over = torch.zeros(*self.batch_size, 1, dtype=torch.bool)
        shown = {"observation": torch.ones(*self.batch_size, 2, 1), "done": over, "terminated": over.clone()}
        return TensorDict(shown, batch_size=self.batch_size)

    def _step(self, tensordict):
        first, second = tensordict["action"].unbind(-1)
        return self._reset().set("reward", (first != second).float().unsqueeze(-1))

    def _set_seed(self, seed):
        pass


def test_joint_items_learn_what_single_ones_cannot():
    policy = DiffusionPolicy.from_specs(Apart(1), items="joint", steps=2, prediction="x0", seed=1)
    assert isinstance(policy.denoiser, ItemDenoiser)
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    seen, reward = torch.ones(64, 2), torch.tensor([0.0, 1.0, 1.0, 0.0])
    for _ in range(200):
        loss = -(policy.head.joint_log_prob(policy.law(seen)).exp() @ reward).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    action = policy(Apart(500).reset())["action"]
    assert (action[:, 0] != action[:, 1]).float().mean() > 0.9


def test_a_method_trains_joint_items_and_the_policy_is_evaluated():
    problem = EnvProblem(Apart, steps=10)
    changes = {"items": "joint", "start_after": 20, "batch_size": 32}
    run = train(problem, "d2sac", episodes=8, environments=4, changes=changes)
    assert isinstance(run.policy.head, JointHead)
    assert torch.isfinite(torch.tensor([row["loss_actor"] for row in run.history[1:]])).all()
    assert 0.0 <= -evaluate(problem, {"joint": run.policy}, episodes=4).results["joint"].costs.mean <= 10.0


def test_transitions_of_joint_rows_are_those_that_the_objective_reads():
    env, policy = env_of(), None
    policy = DiffusionPolicy.from_specs(env, items="joint")
    now, after = policy(seen(env)), seen(env, seed=1)
    after["reward"], after["terminated"] = torch.ones(E, 1), torch.zeros(E, 1, dtype=torch.bool)
    after["done"] = after["terminated"].clone()
    rollout = now.set("next", after).unsqueeze(1)
    rollout.batch_size = [E, 1]
    rows = step_transitions(rollout, Keys.of(env, items="joint")).reshape(-1)
    loss = LatentDiscreteSACLoss(policy, CriticEnsemble(policy.observation_dim, policy.head.joint))
    losses = loss(rows)
    (losses["loss_actor"] + losses["loss_qvalue"]).backward()
    assert all(torch.isfinite(p.grad).all() for p in policy.parameters())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Keys.of(Specs({"observation": Unbounded((4, 3))}, Categorical(2, (4,))), items="joint"), "no items"),
        (lambda: Keys.of(env_of(), items="together"), "independent or joint, got 'together'"),
        (lambda: DiffusionPolicy.from_specs(env_of(), items="joint", prior=ActionMemory()), "its items are joint"),
        (
            lambda: DiffusionPolicy.from_specs(env_of(mask=False, action=Bounded(-1.0, 1.0, (E, N, 2))), items="joint"),
            "no mask that could leave them out",
        ),
        (lambda: DiffusionPolicy.from_specs(env_of(), denoiser=ItemDenoiser(3, 2, 5)), "reads joint items"),
        (lambda: JointHead(CategoricalHead(choices=9), (4,)).joint, "6561 joint choices of 4 items"),
        (
            lambda: LatentBoundedSACLoss(DiffusionPolicy.from_specs(env_of(), items="joint"), CriticEnsemble(4, 1)),
            "SimplexHead, got a JointHead",
        ),
        (lambda: ItemDenoiser(3, 2, 5, hidden=10, heads=4), "multiple of heads, got 10 and 4"),
    ],
)
def test_mistakes_get_a_sentence(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_several_groups_get_a_policy_each():
    left, right = (Composite(action=Categorical(n, (4, b)), shape=(4, b)) for n, b in ((2, 3), (5, 2)))
    shown = {name: Composite(observation=Unbounded((4, b, 3)), shape=(4, b)) for name, b in (("left", 3), ("right", 2))}
    env = Specs(shown, Composite(left=left, right=right, shape=(4,)))
    with pytest.raises(InputError, match=r"several actions.*make one for each, and TensorDictSequential"):
        DiffusionPolicy.from_specs(env)
    both = TensorDictSequential(*(DiffusionPolicy.from_specs(env, action_key=key) for key in env.action_keys))
    td = both(env.reset())
    assert all(env.full_action_spec[key].is_in(td[key]) for key in env.action_keys)


def test_multi_categorical_items_are_joint_too():
    env = env_of(mask=False, action=MultiCategorical([2, 3], (E, N, 2)))
    policy = DiffusionPolicy.from_specs(env, items="joint")
    check_policy(policy, env)
    td = policy(seen(env))
    assert env.full_action_spec["action"].is_in(td["action"])
    assert (td["action"][~td["valid"]] == 0).all()
    assert policy.head.slots == 2 * N
