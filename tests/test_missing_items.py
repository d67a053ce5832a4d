"""Items that may be missing: what is seen of one that does not exist means nothing, and neither does a value of it."""

import dataclasses

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Binary, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from diffpolicy.diffusion import FlowProcess
from diffpolicy.environments import EnvProblem, rows_of, step_transitions
from diffpolicy.experiments import make_method
from diffpolicy.networks import CriticEnsemble
from diffpolicy.objectives import (
    AgentsDQNLoss,
    FQLLoss,
    LatentBoundedSACLoss,
    LatentDiscreteSACLoss,
    QVPOLoss,
    action_critic,
)
from diffpolicy.policies import DiffusionPolicy, FeedforwardPolicy, GreedyValuePolicy
from diffpolicy.policies.heads import BoundedHead, VectorHead
from diffpolicy.policies.keys import Keys
from diffpolicy.policies.rows import Rows
from diffpolicy.training import fit
from diffpolicy.training.advantages import in_sequence

NAN = float("nan")


class Leaving(EnvBase):
    """Three items a lane, of which each leaves for good after as many steps as its number; reward 1 for choice 0."""

    batch_locked = True

    def __init__(self, batch=4, blank=0.0):
        super().__init__(batch_size=[batch])
        items, self.blank = (batch, 3), blank
        self.observation_spec = Composite(
            observation=Unbounded((*items, 2)), valid=Binary(shape=items, dtype=torch.bool), shape=(batch,)
        )
        self.action_spec = Composite(action=Categorical(2, items), shape=(batch,))
        self.reward_spec = Composite(reward=Unbounded((*items, 1)), shape=(batch,))
        self.now = 0

    def _shown(self):
        valid = (torch.arange(3) >= self.now).expand(*self.batch_size, 3).clone()
        seen = torch.full((*self.batch_size, 3, 2), float(self.now)).masked_fill(~valid.unsqueeze(-1), self.blank)
        return {"observation": seen, "valid": valid}

    def _reset(self, tensordict=None, **_):
        self.now = 0
        return TensorDict(
            {**self._shown(), "done": torch.zeros(*self.batch_size, 1, dtype=torch.bool)}, self.batch_size
        )

    def _step(self, tensordict):
        reward = (tensordict["action"] == 0).float().unsqueeze(-1)
        self.now += 1
        over = torch.full((*self.batch_size, 1), self.now == 3)
        return TensorDict({**self._shown(), "reward": reward, "done": over}, self.batch_size)

    def _set_seed(self, seed):
        pass


def test_transitions_tell_which_items_are_there_no_more():
    env = Leaving()
    rows = step_transitions(env.rollout(3, auto_reset=True), Keys.of(env))
    assert torch.equal(rows["valid"][0], torch.ones(3, 3).triu().bool())
    assert torch.equal(rows["next", "valid"][0], torch.ones(3, 3).triu(1).bool())


def bounded(head, **options):
    return DiffusionPolicy(choices=head.width, observation_dim=2, head=head, **options)


def discrete_sac():
    policy = FeedforwardPolicy(choices=3, observation_dim=2)
    return LatentDiscreteSACLoss(policy, CriticEnsemble(2, 3))


def bounded_sac():
    policy = FeedforwardPolicy(choices=2, observation_dim=2, head=BoundedHead(low=(0.0,), high=(1.0,)))
    return LatentBoundedSACLoss(policy, CriticEnsemble(3, 1))


def fql():
    head, process = VectorHead(low=(0.0,), high=(1.0,)), FlowProcess(4)
    policy = bounded(head, schedule=process, sampler="one-step", prediction="x0")
    flow = bounded(head, schedule=process, sampler="flow-euler", prediction="velocity")
    return FQLLoss(policy, action_critic(policy), flow)


def qvpo():
    policy = FeedforwardPolicy(choices=3, observation_dim=2)
    return QVPOLoss(policy, action_critic(policy), samples=4)


def dqn():
    return AgentsDQNLoss(GreedyValuePolicy(choices=3, observation_dim=2))


@pytest.mark.parametrize("make", [discrete_sac, bounded_sac, qvpo, fql, dqn])
def test_an_item_that_is_there_no_more_is_worth_nothing_whatever_is_seen_of_it(make):
    seen, after = torch.rand(2, 6, 2, generator=torch.Generator().manual_seed(0))
    gone = torch.arange(6) % 2 == 0
    action = torch.full((6, 1), 0.3) if make in (bounded_sac, fql) else torch.arange(6) % 3
    given = {"observation": seen, "action": action, "reward": torch.arange(6.0)}

    def gradients(nxt):
        torch.manual_seed(0)
        loss = make()
        written = loss(TensorDict({**given, "next": TensorDict(nxt, [6])}, [6]))
        sum(v for k, v in written.items() if k.startswith("loss")).backward()
        return [p.grad for p in loss.parameters() if p.grad is not None]

    blank = after.masked_fill(gone.unsqueeze(-1), NAN)
    told = gradients({"observation": blank, "valid": ~gone})
    known = gradients({"observation": after, "terminated": gone})
    assert len(told) == len(known) > 0
    for mine, right in zip(told, known, strict=True):
        torch.testing.assert_close(mine, right)
    torch.testing.assert_close(told, gradients({"observation": blank, "terminated": gone, "valid": ~gone}))


@pytest.mark.parametrize(("name", "loss"), [("sac", "loss_qvalue"), ("dqn", "loss")])
def test_what_is_seen_of_items_that_have_left_is_no_part_of_any_target(name, loss):
    problem = EnvProblem(lambda batch: Leaving(batch, blank=1e6), steps=3)
    method = dataclasses.replace(make_method(name), hidden=[8], start_after=10, batch_size=8)
    history = fit(method.build(problem, environments=2), episodes=8).history
    assert history[-1][loss] < 10  # rewards are at most 1


def test_advantages_are_of_the_decisions_that_there_are_whatever_stands_beside_them():
    reward, value, after = torch.rand(3, 2, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    valid = torch.tensor([[1, 0, 1, 1, 0, 1, 0], [0, 0, 1, 0, 1, 1, 1]]).bool()
    no, options = torch.zeros(2, 7, dtype=torch.bool), {"gamma": 0.9, "lmbda": 0.8}
    right = in_sequence(reward, value, after, no, no, valid, **options)
    none = [x.masked_fill(~valid, NAN) for x in (reward, value, after)]
    found = in_sequence(*none, no, no, valid, **options)
    for mine, true in zip(found, right, strict=True):
        assert torch.equal(mine[valid], true[valid])
        assert not mine[~valid].any()


@pytest.mark.parametrize("agent_dim", [None, 0])
@pytest.mark.parametrize("missing", [1, 15])
def test_what_is_put_back_of_an_item_that_does_not_exist_is_zero(agent_dim, missing):
    valid = torch.ones(2, 20, dtype=torch.bool)
    valid[:, :missing] = False
    rows = Rows(valid.shape, agent_dim, valid)
    value = torch.ones(2, 20, 3).masked_fill(~valid.unsqueeze(-1), NAN)
    assert torch.equal(rows.put(rows.take(value)), value.nan_to_num(0.0))


def test_of_a_data_set_an_item_that_has_left_ends_its_row():
    env = Leaving(blank=NAN)
    data = env.rollout(3, lambda td: td.set("action", torch.zeros(4, 3).long())).reshape(-1)
    data["next", "terminated"] = torch.zeros(12, 1).bool()
    policy = FeedforwardPolicy.from_specs(env)
    rows = rows_of(policy, data, Keys.of(env), values=True)
    stays = data["next", "valid"][data["valid"]]
    assert torch.equal(rows["next", "terminated"], ~stays)
    assert torch.equal(rows["next", "observation"][stays], data["next", "observation"][data["valid"]][stays])
    assert bool(rows["next", "observation"].isfinite().all())
