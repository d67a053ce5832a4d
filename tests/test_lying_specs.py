"""Environments whose values are not what their specs say: refused, or told of, by one sentence before any training."""

import warnings
from functools import partial

import numpy as np
import pytest
import torch
from torchrl.data import Bounded, Categorical, Composite, Unbounded
from torchrl.envs import ActionMask, SerialEnv, TransformedEnv

from diffpolicy import EnvProblem, InputError, check_problem
from diffpolicy.environments import gym_problem
from diffpolicy.environments.lanes import Lanes, called
from diffpolicy.experiments import evaluate
from diffpolicy.problems import Clinic
from diffpolicy.problems.clinic import longest_queue


class FlatReward(Clinic):
    """Its reward is `[E]`, and its spec says `[E, 1]`."""

    def _step(self, tensordict):
        now = super()._step(tensordict)
        return now.set("reward", now["reward"].squeeze(-1))


class FlatEnd(Clinic):
    """Its ends are `[E]`."""

    def _now(self):
        now = super()._now()
        return now.update({name: now[name].squeeze(-1) for name in ("done", "truncated", "terminated")})


class OneLane(Clinic):
    """Of one lane a call; its reward is `[]` where its spec says `[1]`."""

    def __init__(self, seed=0):
        super().__init__(1, seed)

    def _step(self, tensordict):
        now = super()._step(tensordict)
        return now.set("reward", now["reward"].squeeze(-1))


@pytest.mark.parametrize(
    ("flat", "right"), [(FlatReward, Clinic), (FlatEnd, Clinic), (OneLane, lambda seed: Clinic(1, seed))]
)
def test_a_reward_or_an_end_that_lacks_a_dimension_of_one_entry_is_the_same_and_not_refused(flat, right):
    check_problem(EnvProblem(flat, steps=50))
    mine, its = (
        evaluate(EnvProblem(make, steps=50), {"longest": longest_queue}, episodes=4).results["longest"].costs
        for make in (flat, right)
    )
    assert mine == its


class Wards(Clinic):
    """A clinic with a choice in each of a few wards, and a reward of each. Args: turned: wards before lanes."""

    def __init__(self, batch, seed=0, wards=3, turned=False):
        super().__init__(batch, seed, masked=False)
        self.wards, self.turned = wards, turned
        self.action_spec = Categorical(3, (batch, wards))
        self.reward_spec = Composite(reward=Unbounded((batch, wards, 1)), shape=(batch,))

    def _step(self, tensordict):
        action = tensordict["action"]
        now = super()._step(tensordict.clone().set("action", action[:, 0]))
        reward = action.float()
        if self.turned:
            now.batch_size, reward = [], reward.T.clone()
        return now.set("reward", reward)


@pytest.mark.parametrize("wards", [2, 3])
def test_rewards_that_torchrl_would_give_to_other_lanes_are_refused(wards):
    def wards_of(batch, seed, turned=False):
        return Wards(batch, seed, wards, turned)

    check_problem(EnvProblem(wards_of, steps=50))
    lanes = 5 - wards  # other than the wards, so that it can be told
    said = rf"'reward' of a step of Wards must have shape \[{lanes}, {wards}, 1\], got \[{wards}, {lanes}\]"
    with pytest.raises(InputError, match=said):
        check_problem(EnvProblem(partial(wards_of, turned=True), steps=50))


class OtherActions(Clinic):
    """From its second reset on it has one choice more."""

    resets = 0

    def _reset(self, tensordict=None, **_):
        self.resets += 1
        if self.resets > 1:
            self.action_spec = Categorical(4, self.batch_size)
        return super()._reset(tensordict)


def test_shapes_that_torchrls_own_wrappers_leave_to_it_are_not_refused():
    pytest.importorskip("gymnasium")
    check_problem(gym_problem("CartPole-v1"))


def test_an_action_spec_that_becomes_another_one_is_refused():
    with pytest.raises(InputError, match=r"action_spec of OtherActions has become another one at 'action'"):
        check_problem(EnvProblem(OtherActions, steps=50))


def test_masks_that_torchrl_writes_into_an_action_spec_make_it_no_other_one():
    check_problem(EnvProblem(lambda batch, seed: TransformedEnv(Clinic(batch, seed), ActionMask()), steps=50))


class Kinds(Clinic):
    """Shows the number of a ward. Args: ward: it. wards: of how many."""

    def __init__(self, batch, seed=0, ward=2, wards=3):
        super().__init__(batch, seed)
        self.observation_spec["ward"], self.ward = Categorical(wards, (batch,)), ward

    def _now(self):
        return super()._now().set("ward", torch.full(self.batch_size, self.ward))


def test_a_choice_that_is_shown_and_is_none_is_refused():
    check_problem(EnvProblem(Kinds, steps=50))
    with pytest.raises(
        InputError, match=r"'ward' of a reset of Kinds holds 3, and its spec says whole numbers from 0 to 2"
    ):
        check_problem(EnvProblem(lambda batch, seed: Kinds(batch, seed, ward=3), steps=50))
    check_problem(EnvProblem(lambda batch, seed: Kinds(batch, seed, ward=3, wards=-1), steps=50))  # of no known number


class Within(Clinic):
    """Shows up to some thirty patients. Args: most: that its spec says; reward: a bounded one."""

    def __init__(self, batch, seed=0, most=4.0, reward=None):
        super().__init__(batch, seed, masked=False)
        self.observation_spec = Composite(observation=Bounded(0.0, most, (batch, 3)), shape=(batch,))
        self.reward_spec = Unbounded((batch, 1)) if reward is None else Bounded(*reward, (batch, 1))


def test_numbers_out_of_bounds_are_told_of_and_those_within_rounding_are_not():
    with pytest.warns(UserWarning, match=r"'observation' of Within is 4, out of its bounds 0 to 3.5: is its spec"):
        check_problem(EnvProblem(lambda batch, seed: Within(batch, seed, 3.5), steps=50))
    with pytest.warns(UserWarning, match=r"'reward' of Within is -\d+, out of its bounds 0 to 1"):
        check_problem(EnvProblem(lambda batch, seed: Within(batch, seed, 60.0, (0, 1)), steps=50))
    for most in (60.0, float("inf")):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check_problem(EnvProblem(lambda batch, seed, most=most: Within(batch, seed, most), steps=50))


class Learned(Clinic):
    """Shows what a network of its own makes of the queues. Args: leaf: whether it asks for a gradient besides."""

    def __init__(self, batch, seed=0, leaf=False):
        super().__init__(batch, seed)
        object.__setattr__(self, "net", torch.nn.Linear(3, 3).requires_grad_(True))
        torch.nn.init.eye_(self.net.weight)
        torch.nn.init.zeros_(self.net.bias)
        self.leaf = leaf

    def _now(self):
        now = super()._now()
        shown = self.net(now["observation"])
        return now.set("observation", shown.detach().requires_grad_(True) if self.leaf else shown)


def test_what_requires_a_gradient_where_none_is_wanted_is_refused_and_an_environment_with_a_network_is_not():
    check_problem(
        EnvProblem(Learned, steps=50, rules={"first": lambda td: td.set("action", td["action_mask"].int().argmax(-1))})
    )
    with pytest.raises(InputError, match=r"'observation' of a reset of Learned requires a gradient"):
        check_problem(EnvProblem(lambda batch, seed: Learned(batch, seed, leaf=True), steps=50))


class Endless(Clinic):
    """Never ends, one lane a call."""

    def __init__(self, seed=0):
        super().__init__(1, seed)

    def _now(self):
        now = super()._now()
        return now.update({name: torch.zeros_like(now[name]) for name in ("done", "truncated")})


def test_lanes_are_called_by_what_they_are_of(monkeypatch):
    monkeypatch.setattr("diffpolicy.evaluation.playing.ENDLESS", 8)
    with pytest.raises(InputError, match=r"Endless has no number of steps"):
        evaluate(EnvProblem(Endless), ["random"], episodes=2)
    assert called(Lanes([Clinic(1), Clinic(1)])) == "Clinic"
    assert called(SerialEnv(2, partial(Clinic, 1))) == "SerialEnv"


def test_lanes_of_gymnasium_are_called_by_their_class():
    gymnasium = pytest.importorskip("gymnasium")

    class Tills(gymnasium.Env):
        observation_space, action_space = gymnasium.spaces.Box(0, 1, (2,)), gymnasium.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(2, np.float32), {}

    assert called(EnvProblem(Tills, steps=3).make_env(batch=2, seed=0)) == "Tills"


def test_two_sizes_of_one_environment_have_two_names():
    def clinic(batch, seed, minutes=50, note=None):
        return Clinic(batch, seed)

    short, long = (EnvProblem(partial(clinic, minutes=m, note=[1]), steps=m) for m in (5, 10))
    assert (short.name, long.name) == ("clinic(minutes=5)", "clinic(minutes=10)")
    assert "clinic(minutes=5): 2 identical episodes" in evaluate(short, ["random"], episodes=2).table()
    assert EnvProblem(partial(clinic, minutes=np.int64(5)), steps=5).name == "clinic(minutes=5)"
    assert EnvProblem(partial(clinic), steps=5).name == "clinic"
    assert EnvProblem(partial(clinic, minutes=5), steps=5, name="mine").name == "mine"
