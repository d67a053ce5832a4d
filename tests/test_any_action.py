"""From the spec of an action to training: shares of a whole, one-hot choices, each with masks."""

import dataclasses
import json
from functools import partial

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Binary, Bounded, Categorical, Composite, MultiOneHot, OneHot, Unbounded
from torchrl.envs import EnvBase

from diffpolicy import ActionMemory, DiffusionPolicy, FeedforwardPolicy, InputError, with_recurrent_state
from diffpolicy.environments import EnvProblem, RandomRule, check_policy, check_problem, step_transitions
from diffpolicy.experiments import make_method
from diffpolicy.networks import CriticEnsemble
from diffpolicy.objectives import LatentBoundedSACLoss, LatentDiscreteSACLoss
from diffpolicy.policies import GreedyValuePolicy
from diffpolicy.policies.heads import (
    BoundedHead,
    CategoricalHead,
    CompositeHead,
    MultiCategoricalHead,
    SimplexHead,
    TokenHead,
    head_from_dict,
)
from diffpolicy.policies.keys import Keys
from diffpolicy.training import fit

WIDTH = {"shares": 4, "free": 4, "one-hot": 3, "one-hots": 5}

ONE = CategoricalHead(choices=2, one_hot=True)
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
    policy = trained("shares", "d2sac", 11, **FAST).policy.eval()
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


# Several keys of one group


class Sent(Served):
    """A server of three, one of them closed, and how much to send there: as much as is observed, to the first open one.

    Args: agents: B of a group, or None. continuous: whether the second key is a number.
    """

    def __init__(self, batch, agents=None, continuous=True, seed=0):
        EnvBase.__init__(self, batch_size=[batch])
        self.group, self.lead = (("agents",), (batch, agents)) if agents else ((), (batch,))

        def grouped(inside):
            inside = Composite(inside, shape=self.lead)
            return Composite(agents=inside, shape=(batch,)) if agents else inside

        mask = Binary(3, (*self.lead, 3), dtype=torch.bool)
        self.observation_spec = grouped({"observation": Unbounded((*self.lead, 4)), "server_mask": mask})
        share = Bounded(0.0, 1.0, (*self.lead, 1)) if continuous else Categorical(2, self.lead)
        self.action_spec = grouped({"server": Categorical(3, self.lead), "share": share})
        self.reward_spec = grouped({"reward": Unbounded((*self.lead, 1))})
        ends = {name: Binary(1, (batch, 1), dtype=torch.bool) for name in ("done", "terminated", "truncated")}
        self.done_spec = Composite(ends, shape=(batch,))
        self.draws = torch.Generator().manual_seed(seed)

    def _now(self, over):
        self.wanted = torch.rand(*self.lead, generator=self.draws)
        closed = torch.randint(3, self.lead, generator=self.draws)
        self.open = closed.unsqueeze(-1) != torch.arange(3)
        seen = {"observation": torch.cat([self.wanted.unsqueeze(-1), self.open.float()], -1), "server_mask": self.open}
        shown = {"agents": TensorDict(seen, self.lead)} if self.group else seen
        end = torch.full((*self.batch_size, 1), over)
        ends = {"done": end, "terminated": end.clone(), "truncated": torch.zeros_like(end)}
        return TensorDict({**shown, **ends}, batch_size=self.batch_size)

    def reward(self, td):
        server, share = (td[(*self.group, key)] for key in ("server", "share"))
        assert self.open.gather(-1, server.unsqueeze(-1)).all()
        off = (share.float().reshape(self.lead) - self.wanted).abs()
        return (server == self.open.byte().argmax(-1)).float() - off

    def _step(self, tensordict):
        reward = self.reward(tensordict).unsqueeze(-1)
        return self._now(True).set((*self.group, "reward"), reward)


MIXED = CompositeHead(
    (CategoricalHead(choices=3), BoundedHead(low=(0.0, 0.0), high=(1.0, 2.0)), ONE), (True, False, True)
)


def test_a_composite_law_is_the_product_of_its_parts():
    x0 = torch.randn(7, MIXED.width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = MIXED.read_mask(torch.tensor([True, False, True, True, False]).expand(7, 5))
    assert MIXED.mask_width == 5
    law = MIXED.law(x0, mask)
    numbers = MIXED.draws(torch.Size([7]), torch.Generator().manual_seed(1))
    action = MIXED.sample(law, numbers)
    assert action.shape == (7, *MIXED.event)
    server, share, kind = MIXED.apart(action)
    assert (server.dtype, share.dtype, kind.dtype) == (torch.int64, torch.float64, torch.bool)
    assert (server != 1).all()
    assert not kind[:, 1].any()
    assert torch.equal(MIXED.together((server, share, kind)), action)
    own = zip(MIXED.parts, law.split([3, 4, 2], -1), (server, share, kind), strict=True)
    assert torch.allclose(MIXED.log_prob(law, action), sum(part.log_prob(x, a) for part, x, a in own))
    assert MIXED.spread(law, numbers).shape == (7,)
    assert head_from_dict(json.loads(json.dumps(MIXED.to_dict()))) == MIXED
    assert torch.equal(MIXED.sample(law, None), MIXED.mode(law))
    closed = MIXED.read_mask(torch.tensor([False, False, False, True, False]).expand(7, 5))
    assert not MIXED.allows(closed).any()
    assert (MIXED.apart(MIXED.refuse(action, closed))[0] == -1).all()


def test_composites_of_choices_are_enumerated_and_of_vectors_pathwise():
    choices = CompositeHead((CategoricalHead(choices=3), MultiCategoricalHead(nvec=(2, 2))), (False, True))
    x0 = torch.randn(5, choices.width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = choices.read_mask(torch.tensor([True, False, True, True]).expand(5, 4))
    law = choices.law(x0, mask)
    joint = choices.joint_log_prob(law)
    assert joint.shape == (5, choices.joint) == (5, 12)
    assert torch.equal(joint.exp() > 0, choices.joint_mask(mask))
    assert torch.allclose(-(joint.exp() * joint).sum(-1), choices.entropy(law))
    action = choices.sample(law, choices.draws(torch.Size([5]), torch.Generator().manual_seed(1)))
    taken = joint.gather(-1, choices.joint_index(action).unsqueeze(-1)).squeeze(-1)
    assert torch.allclose(taken, choices.log_prob(law, action))
    vectors = CompositeHead((BoundedHead(low=(0.0,), high=(2.0,)), SimplexHead(choices=3)))
    draws = torch.Generator().manual_seed(2)
    law = vectors.law(0.2 * torch.randn(5, vectors.width, generator=draws, dtype=torch.float64))
    action, log_prob = vectors.with_log_prob(law, torch.randn(5, 4, generator=draws, dtype=torch.float64))
    assert torch.allclose(log_prob, vectors.log_prob(law, action))
    assert vectors.freedom(law).tolist() == [3] * 5
    assert vectors.features(action).shape == (5, vectors.feature_width)


@pytest.mark.parametrize("agents", [None, 2])
def test_several_keys_are_decided_recorded_remembered_and_saved(agents, tmp_path):
    env = Sent(6, agents)
    policy = DiffusionPolicy.from_specs(env, prior=ActionMemory(), seed=1)
    assert policy.action_keys == [(*env.group, key) for key in ("server", "share")] if agents else ["server", "share"]
    policy.record = True
    played = with_recurrent_state(env, policy)
    check_policy(policy, played)
    td = policy(played.reset())
    assert all(env.full_action_spec[key].is_in(td[key]) for key in policy.action_keys)
    recorded = td[policy.beside("action_log_prob")]
    found = policy.get_dist(td).log_prob(Keys.of(env).decided(td))
    assert torch.allclose(found, recorded, atol=1e-4)
    again = DiffusionPolicy.load(policy.save(tmp_path))
    for name in ("action_keys", "head", "in_keys"):
        assert getattr(again, name) == getattr(policy, name)
    check_policy(again, played)
    rows = step_transitions(played.rollout(1, policy), Keys.of(env))
    assert rows["action"].shape[-1] == 2
    assert rows["action_mask"].shape[-1] == 3


def test_a_chain_learns_several_keys_at_once():
    changes = {"collect": 512, "batch_size": 128, "hidden": [32, 32], "gamma": 0.0, "steps": 2, "epochs": 6}
    rates = {"learning_rates": {"actor": 1e-2, "critic": 1e-2}}
    method = dataclasses.replace(make_method("diffusion-ppo"), **changes, **rates)
    module = method.build(EnvProblem(Sent, steps=1), environments=512)
    fit(module, episodes=512 * 7)
    env = Sent(2000, seed=1)
    with torch.no_grad():
        reward = env.reward(module.policy.eval()(env.reset())).mean().item()
    assert reward > 0.6  # of at most 1; at random 0.17


def test_choices_of_several_keys_train_off_policy():
    problem = EnvProblem(partial(Sent, continuous=False), steps=1)
    check_problem(problem)
    method = dataclasses.replace(make_method("sac"), hidden=[8], start_after=16, capacity=100)
    module = method.build(problem, environments=32)
    fit(module, episodes=64)
    assert module.policy.head.joint == 6


def test_a_row_with_a_part_that_chose_nothing_moves_no_critic():
    torch.manual_seed(0)
    policy = FeedforwardPolicy.from_specs(Sent(2, continuous=False))
    loss = LatentDiscreteSACLoss(policy, CriticEnsemble(policy.observation_dim, 6))
    observation = torch.randn(4, policy.observation_dim)
    mask = torch.ones(4, policy.head.mask_width, dtype=torch.bool)
    rows = {"observation": observation, "action_mask": mask}
    given = {**rows, "action": torch.tensor([[0, 1], [1, -1], [-1, 0], [2, 1]]), "reward": torch.ones(4), "next": rows}
    some = TensorDict(given, [4])
    alone = loss(some[[0, 3]])["loss_qvalue"].item()
    assert loss(some)["loss_qvalue"].item() == pytest.approx(alone / 2, rel=1e-5)  # a mean over rows, as of values
    assert loss(some[1:3])["loss_qvalue"].item() == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DiffusionPolicy.from_specs(Sent(2), head=CategoricalHead()), "CategoricalHead decides categorical"),
        (lambda: DiffusionPolicy.from_specs(Sent(2), head=CompositeHead((CategoricalHead(),))), "of 1 parts cannot"),
        (lambda: DiffusionPolicy.from_specs(Sent(2), mask_key="server_mask"), "have a mask each"),
        (
            lambda: DiffusionPolicy.from_specs(Sent(2), head=CompositeHead((CategoricalHead("argmax"), BoundedHead()))),
            "must all draw",
        ),
        (lambda: CompositeHead((TokenHead(),)), "takes heads whose x_0 holds"),
        (
            lambda: make_method("sac").build(EnvProblem(Sent, steps=1)),
            "SACMethod cannot train a policy with a CompositeHead",
        ),
        (lambda: GreedyValuePolicy.from_specs(Sent(2)), "need a categorical action, and this head is a CompositeHead"),
        (
            lambda: check_policy(DiffusionPolicy.from_specs(Sent(2), action_key="share", mask_key=None), Sent(2, 3)),
            "decides 'share'",
        ),
    ],
)
def test_mistakes_of_several_keys_get_a_sentence(make, words):
    with pytest.raises(InputError, match=words):
        make()


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


def test_entropy_and_temperature_of_shares_leave_out_rows_that_allow_nothing():
    policy = FeedforwardPolicy.from_specs(Served(1, "shares"), head="simplex")
    loss = LatentBoundedSACLoss(policy, CriticEnsemble(4 + 4, 1))
    mask = torch.ones(8, 4, dtype=torch.bool)
    rows = {"observation": torch.randn(8, 4), "action_mask": mask}
    given = {**rows, "action": torch.full((8, 4), 0.25), "reward": torch.zeros(8), "next": rows}

    def of(given):
        policy.generator.manual_seed(1)
        found = loss(TensorDict(given, [8]))
        return found["entropy"].item(), found["loss_alpha"].item()

    whole = of(given)
    mask[3] = False
    assert of(given) == pytest.approx(whole, abs=1.0)  # nats of one row more or less
    mask[:] = False
    assert of(given) == (0, 0)
    loss.target_entropy = -7.0
    assert of(given)[1] == 0
