"""Lanes are episodes of their own, and what an environment gave stays as it was: found out by behaviour."""

import warnings

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Binary, Bounded, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from diffpolicy import FeedforwardPolicy, InputError, check_problem
from diffpolicy.environments import EnvProblem, RandomRule, step_transitions
from diffpolicy.environments.lane_checks import begins_all, follows_first
from diffpolicy.evaluation import play
from diffpolicy.policies.keys import Keys
from diffpolicy.training import RolloutStream
from toys import GuessEnv


class Walk(EnvBase):
    """A step by one's action, and by chance; a lane ends where it is 3 away. Everything below has a fault of it."""

    def __init__(self, batch=4, seed=0):
        super().__init__(batch_size=[batch])
        self.draws, self.each = torch.Generator().manual_seed(seed), (batch, 1)
        self.observation_spec = Composite(observation=Unbounded((batch, 1)), shape=(batch,))
        self.action_spec = Categorical(3, (batch,))
        self.reward_spec = Unbounded((batch, 1))
        flags = {name: Binary(1, (batch, 1), dtype=torch.bool) for name in ("done", "terminated")}
        self.done_spec = Composite(flags, shape=(batch,))
        self.at = torch.zeros(self.each)

    def started(self):
        return torch.rand(self.each, generator=self.draws)

    def shown(self):
        over = self.over()
        return TensorDict(observation=self.at.clone(), done=over, terminated=over.clone(), batch_size=self.batch_size)

    def over(self):
        return self.at.abs() >= 3

    def chosen(self, td):
        return td["action"].unsqueeze(-1) - 1

    def moved(self, td):
        return self.at + self.chosen(td) + 0.1 * torch.randn(self.each, generator=self.draws)

    def _reset(self, tensordict=None, **_):
        again = None if tensordict is None else tensordict.get("_reset", None)
        fresh = self.started()
        self.at = fresh if again is None else torch.where(again, fresh, self.at)
        return self.shown()

    def _step(self, td):
        self.at = self.moved(td)
        return self.shown().set("reward", -self.at.abs())

    def _set_seed(self, seed):
        self.draws.manual_seed(seed or 0)


class Forgetful(Walk):
    def _reset(self, tensordict=None, **_):
        return super()._reset()


class ForgetfulStill(Forgetful):
    """The same without chance."""

    def started(self):
        return torch.zeros(self.each)

    def moved(self, td):
        return self.at + self.chosen(td)


class ForgetfulGlobal(Forgetful):
    """The same with the global generator."""

    def started(self):
        return torch.rand(self.each)

    def moved(self, td):
        return self.at + self.chosen(td) + 0.1 * torch.randn(self.each)


class Counted(Walk):
    """All lanes end after four steps, together; one clock for all."""

    def _reset(self, tensordict=None, **_):
        self.clock = 0
        return Walk._reset(self)

    def _step(self, td):
        self.clock += 1
        return super()._step(td)

    def over(self):
        return torch.full(self.each, self.clock >= 4)


class FirstAction(Walk):
    def chosen(self, td):
        return td["action"][:1].unsqueeze(-1).expand(self.each) - 1


class OneForAll(Walk):
    def over(self):
        return super().over().any().expand(self.each).clone()


class InPlace(Walk):
    """Shows the state itself, and goes on changing it."""

    def shown(self):
        return super().shown().set("observation", self.at)

    def moved(self, td):
        return self.at.copy_(super().moved(td))


class OneReward(Walk):
    """Writes every reward into the same storage."""

    def _step(self, td):
        result = super()._step(td)
        if not hasattr(self, "reward"):
            self.reward = torch.zeros(self.each)
        return result.set("reward", self.reward.copy_(result["reward"]))


class Takes(Walk):
    """Works on the action that it was given."""

    def chosen(self, td):
        return td["action"].remainder_(2).unsqueeze(-1) - 1


class NoisySensor(Walk):
    """Sound: what it shows of a lane is drawn anew whenever it is asked."""

    def shown(self):
        seen = self.at + torch.rand(self.each, generator=self.draws)
        return super().shown().set("observation", seen)


class Poisson(Walk):
    """Sound: how much is drawn in a step depends on where each lane is."""

    def moved(self, td):
        return self.at + self.chosen(td) + torch.poisson(20 * self.at.abs() + 1, generator=self.draws) / 20


class Steering(Walk):
    """Sound, of a bounded action."""

    def __init__(self, batch=4, seed=0):
        super().__init__(batch, seed)
        self.action_spec = Bounded(-1.0, 1.0, (batch, 1))

    def chosen(self, td):
        return td["action"]


SOUND = [Walk, NoisySensor, Poisson, Steering, OneForAll, lambda batch: GuessEnv(batch, 2, mask=True)]
FORGETFUL = [Forgetful, ForgetfulStill, ForgetfulGlobal, Counted]


def stream(env, **options):
    return RolloutStream(env, RandomRule(env), **{"episode_steps": None, **options})


def passes(env, number=1, **options):
    playing = stream(env, **options)
    return [list(playing) for _ in range(number)]


@pytest.mark.parametrize("kind", SOUND)
def test_lanes_of_their_own_meet_no_word(kind):
    before = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_problem(EnvProblem(lambda batch: kind(batch), steps=20))
    assert torch.equal(before, torch.get_rng_state())


class Deaf(Walk):
    """Draws by the seed that it was made with, and `set_seed` does nothing."""

    def _set_seed(self, seed):
        pass


def test_a_set_seed_that_does_nothing_is_warned_of():
    with pytest.warns(UserWarning, match="something different after each set_seed"):
        check_problem(EnvProblem(Deaf, steps=20))


@pytest.mark.parametrize("kind", FORGETFUL)
def test_a_reset_that_begins_all_lanes_is_told_of(kind):
    with pytest.warns(UserWarning, match=rf"_reset of {kind.__name__} resets all lanes .*tensordict\['_reset'\]"):
        check_problem(EnvProblem(lambda batch: kind(batch), steps=20))
    assert begins_all(lambda: kind(3))


@pytest.mark.parametrize("kind", [Forgetful, ForgetfulStill, ForgetfulGlobal])
def test_a_reset_that_begins_all_lanes_is_refused_where_they_end_apart(kind):
    words = f"_reset of {kind.__name__} resets all lanes .* here its lanes end at different times"
    with pytest.raises(InputError, match=words):
        passes(kind(8))
    with pytest.raises(InputError, match=words):
        play(kind(8), RandomRule(kind(8)), 60)


@pytest.mark.parametrize("kind", [Walk, NoisySensor, Poisson])
def test_lanes_that_begin_apart_are_played_as_before(kind):
    """What the check does at the first end is not seen in what is played."""
    env, rule = kind(8), RandomRule(kind(8))
    env.set_seed(5)
    wanted = env.rollout(12, rule, break_when_any_done=False)["next", "observation"]
    assert play(kind(8), RandomRule(kind(8))).cost.shape[0] > 8
    env = kind(8)
    env.set_seed(5)
    playing = stream(env, episode_steps=12, steps=12)
    playing.saves, playing.root = True, env.reset()
    assert torch.equal(playing.rollout()["next", "observation"], wanted)


def test_a_clock_for_all_lanes_is_right_where_all_end_together():
    assert len(passes(Counted(4), 2)[1]) == 4


def test_a_step_that_follows_the_first_action_is_refused():
    with pytest.raises(InputError, match="lane 1 of FirstAction does what the action of lane 0 says"):
        check_problem(EnvProblem(FirstAction, steps=20))
    assert follows_first(lambda: FirstAction(5))
    assert not follows_first(lambda: Steering(5))


def test_lanes_of_which_one_ends_all_are_told_of():
    with pytest.warns(UserWarning, match=r"4 lanes of OneForAll have always ended together, after \["):
        passes(OneForAll(4), 6)


@pytest.mark.parametrize(("kind", "key"), [(InPlace, "observation"), (OneReward, "reward")])
def test_storage_that_is_used_again_is_refused(kind, key):
    words = f"what {kind.__name__} gave as .*'{key}'.* was changed by a later step"
    with pytest.raises(InputError, match=words):
        check_problem(EnvProblem(kind, steps=20))
    with pytest.raises(InputError, match=words):
        passes(kind(4))


def test_an_action_that_is_worked_on_is_refused():
    with pytest.raises(InputError, match="a step of Takes changed the 'action' that it was given"):
        check_problem(EnvProblem(Takes, steps=20))
    with pytest.raises(InputError, match="a step of Takes changed the 'action' that it was given"):
        passes(Takes(4))


class Over(Walk):
    """Some episodes are over when they begin."""

    def started(self):
        return 4 * torch.rand(self.each, generator=self.draws)


def test_an_episode_that_is_over_when_it_begins_is_one_sentence():
    for work in (lambda: passes(Over(8), 3), lambda: play(Over(8), RandomRule(Over(8)))):
        with pytest.raises(InputError, match="_reset of Over began an episode that is over already"):
            work()


def test_what_is_learned_of_a_lane_does_not_depend_on_the_others_ends():
    """The fault itself: transitions from where a lane was to where another episode began."""
    env = Walk(8)
    for part in passes(env)[0]:
        rows = step_transitions(part, Keys.of(env))
        leaps = (rows["next", "observation"] - rows["observation"]).abs().squeeze(-1)
        assert leaps[rows["valid"]].max() < 2


def test_a_policy_is_trained_on_lanes_that_begin_apart():
    env = Walk(8)
    policy = FeedforwardPolicy.from_specs(env)
    assert sum(part.numel() for part in RolloutStream(env, policy, episode_steps=10)) == 80
