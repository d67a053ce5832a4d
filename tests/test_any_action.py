"""From the spec of an action to training: shares of a whole, one-hot choices, each with masks."""

import dataclasses
from functools import partial

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Binary, Bounded, Composite, MultiOneHot, OneHot, Unbounded
from torchrl.envs import EnvBase

from diffpolicy import DiffusionPolicy, FeedforwardPolicy, InputError
from diffpolicy.environments import EnvProblem, RandomRule, check_policy, check_problem
from diffpolicy.experiments import make_method
from diffpolicy.networks import CriticEnsemble
from diffpolicy.objectives import LatentBoundedSACLoss
from diffpolicy.policies.heads import SimplexHead
from diffpolicy.training import fit

WIDTH = {"shares": 4, "free": 4, "one-hot": 3, "one-hots": 5}

RATES = {"actor": 1e-2, "critic": 2e-2, "alpha": 0.0}
FAST = {"reward_scale": 1.0, "alpha": 0.02, "steps": 2, "learning_rates": RATES}


class Served(EnvBase):
    """One step: as much as possible is to go to what is observed as the largest among what is allowed.

    Args: kind: of `WIDTH`. masked: whether a mask forbids some of it.
    """

    batch_locked = True

    def __init__(self, batch, kind, masked=True, seed=0):
        super().__init__(batch_size=[batch])
        self.kind, self.masked, n = kind, masked, WIDTH[kind]
        mask = {"action_mask": Binary(n, (batch, n), dtype=torch.bool)} if masked else {}
        self.observation_spec = Composite(observation=Unbounded((batch, n)), **mask, shape=(batch,))
        make = {
            "shares": lambda shape: Bounded(0.0, 1.0, shape),
            "free": Unbounded,
            "one-hot": lambda shape: OneHot(n, shape),
            "one-hots": lambda shape: MultiOneHot([3, 2], shape),
        }
        self.action_spec = make[kind]((batch, n))
        self.reward_spec = Unbounded((batch, 1))
        ends = {name: Binary(1, (batch, 1), dtype=torch.bool) for name in ("done", "terminated", "truncated")}
        self.done_spec = Composite(ends, shape=(batch,))
        self.draws = torch.Generator().manual_seed(seed)

    def _now(self, over):
        n = WIDTH[self.kind]
        self.seen = torch.randn(*self.batch_size, n, generator=self.draws)
        mask = torch.rand(*self.batch_size, n, generator=self.draws) < 0.7
        mask[:, 0] = mask[:, -1] = True
        self.allowed = mask if self.masked else torch.ones_like(mask)
        end = torch.full((*self.batch_size, 1), over)
        shown = {"action_mask": mask} if self.masked else {}
        ends = {"done": end, "terminated": end.clone(), "truncated": torch.zeros_like(end)}
        return TensorDict({"observation": self.seen.clone(), **shown, **ends}, batch_size=self.batch_size)

    def _reset(self, tensordict=None, **_):
        return self._now(False)

    def _step(self, tensordict):
        action = tensordict["action"].float()
        if self.kind in ("shares", "one-hot"):
            assert (action[~self.allowed] == 0).all()
        reward = (action * self.seen).sum(-1, keepdim=True)
        return self._now(True).set("reward", reward)

    def _set_seed(self, seed):
        self.draws.manual_seed(seed or 0)


def trained(kind, method, passes, lanes=64, **changes):
    changes = {"head": "simplex"} | changes if kind in ("shares", "free") else changes
    quick = {"hidden": [32, 32], "start_after": 64, "batch_size": 256, "updates": 8, "gamma": 0.0}
    method = dataclasses.replace(make_method(method), **{**quick, **changes})
    module = method.build(EnvProblem(partial(Served, kind=kind), steps=1), environments=lanes)
    fit(module, episodes=passes * lanes)
    return module


@pytest.mark.parametrize("kind", ["one-hot", "one-hots"])
def test_one_hot_actions_train_with_masks(kind):
    check_problem(EnvProblem(partial(Served, kind=kind), steps=1))
    module = trained(kind, "sac", 3)
    env = Served(500, kind, seed=1)
    td = module.policy.eval()(env.reset())
    assert env.action_spec.is_in(td["action"])
    check_policy(module.policy, env)
    assert not (td["action"] & ~td["action_mask"]).any()


def test_a_chain_learns_to_share_among_what_is_allowed():
    policy = trained("shares", "d2sac", 15, **FAST).policy.eval()
    env = Served(2000, "shares", seed=1)
    with torch.no_grad():
        td = policy(env.reset())
    best = td["observation"].masked_fill(~td["action_mask"], -torch.inf).amax(-1)
    even = td["action_mask"].float() / td["action_mask"].sum(-1, keepdim=True)
    reached, spread = ((share * td["observation"]).sum(-1) for share in (td["action"], even))
    assert float((reached - spread).mean() / (best - spread).mean()) > 0.6


def test_shares_are_saved_and_checked(tmp_path):
    env = Served(8, "free")
    with pytest.raises(InputError, match="say head='simplex'"):
        DiffusionPolicy.from_specs(env)
    policy = DiffusionPolicy.from_specs(env, head="simplex")
    check_policy(policy, env)
    again = DiffusionPolicy.load(policy.save(tmp_path))
    assert again.head == policy.head == SimplexHead(choices=4)
    td = env.reset()
    with pytest.raises(InputError, match="allows no choice"):
        policy(td.clone().set("action_mask", torch.zeros(8, 4, dtype=torch.bool)))
    with pytest.raises(InputError, match="decides bounded or unbounded actions, and 'action' is one-hot"):
        check_policy(policy, Served(8, "one-hot"))


def test_the_random_rule_gives_nothing_to_what_is_forbidden():
    env = Served(100, "shares")
    td = RandomRule(env)(env.reset())
    assert (td["action"][~td["action_mask"]] == 0).all()


def test_the_loss_of_shares_counts_no_row_that_allows_nothing():
    policy = FeedforwardPolicy.from_specs(Served(1, "shares"), head="simplex")
    loss = LatentBoundedSACLoss(policy, CriticEnsemble(4 + 4, 1))
    mask = torch.tensor([[True, True, False, True]]).expand(6, 4).clone()
    rows = {"observation": torch.randn(6, 4), "action_mask": mask}
    given = {**rows, "action": torch.full((6, 4), 0.25), "reward": torch.zeros(6), "next": rows}
    full = loss(TensorDict(given, [6]))
    assert all(torch.isfinite(value).all() for value in full.values())
    mask[:] = False
    none = loss(TensorDict(given, [6]))
    assert float(none["loss_actor"].detach()) == 0
