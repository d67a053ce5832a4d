"""Problems out of any environment: batches, seeds, rules, transitions, ends."""

import functools
import re

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Binary, Bounded, Categorical, Composite, MultiCategorical, OneHot, Unbounded
from torchrl.envs import EnvBase

from diffpolicy.edge import OffloadingEnv, task_transitions
from diffpolicy.environments import Cost, EnvProblem, Lanes, RandomRule, gym_problem, step_transitions
from diffpolicy.environments.checks import check_env
from diffpolicy.environments.seeds import episode_seed
from diffpolicy.environments.transitions import COUNTED
from diffpolicy.errors import InputError
from diffpolicy.evaluation import evaluate
from diffpolicy.policies.keys import Keys
from test_keys import Specs
from toys import GuessEnv, small


class Countdown(EnvBase):
    """One lane: ends after 1 to 4 steps, as its seed decides; reward 1 a step; observes a random number."""

    def __init__(self):
        super().__init__()
        self.draws = torch.Generator()
        self.observation_spec = Composite(observation=Unbounded((1,)))
        self.action_spec = Categorical(2, ())
        self.reward_spec = Unbounded((1,))

    def _now(self, over):
        number = torch.rand(1, generator=self.draws)
        return TensorDict(observation=number, done=torch.tensor([over]), terminated=torch.tensor([over]))

    def _reset(self, tensordict=None, **_):
        self.left = int(torch.randint(1, 5, (), generator=self.draws))
        return self._now(False)

    def _step(self, tensordict):
        self.left -= 1
        assert self.left >= 0, "stepped past the end"
        return self._now(self.left == 0).set("reward", torch.ones(1))

    def _set_seed(self, seed):
        self.draws.manual_seed(seed)


def with_done(spec):
    env = GuessEnv(4)
    env.full_done_spec = spec
    return env


def guess(batch, seed):
    env = GuessEnv(batch)
    env.set_seed(seed)
    return env


def test_a_factory_is_given_what_it_names():
    seen = []

    def make(batch, seed, split="train"):
        seen.append((batch, seed, split))
        return guess(batch, seed)

    problem = EnvProblem(make, steps=5)
    assert problem.make_env(4, 7).batch_size == (4,)
    assert seen == [(4, 7, "train")]
    assert problem.make_episodes(2, 3, 7).batch_size == (3,)
    assert seen[1:] == [(1, episode_seed(7, k), "evaluate") for k in (2, 3, 4)]


def test_single_lanes_are_put_side_by_side_and_seeded_apart():
    problem = EnvProblem(Countdown)
    env = problem.make_env(6, 1)
    assert isinstance(env, Lanes)
    first = env.reset()["observation"].flatten()
    assert len(set(first.tolist())) == 6
    assert torch.equal(first, problem.make_env(6, 1).reset()["observation"].flatten())
    assert torch.equal(first[:2], problem.make_env(2, 1).reset()["observation"].flatten())


def test_an_episode_does_not_depend_on_its_neighbours():
    problem = EnvProblem(guess, steps=5)
    rule = RandomRule(problem.make_env())
    whole = problem.make_episodes(0, 6, 3).rollout(5, rule, break_when_any_done=False)["observation"]
    for k in (0, 4):
        alone = problem.make_episodes(k, 1, 3).rollout(5, rule, break_when_any_done=False)["observation"]
        assert torch.equal(whole[k], alone[0])


def test_a_lane_that_has_ended_waits_for_its_reset():
    env = EnvProblem(Countdown).make_env(8, 0)
    rule = RandomRule(env)
    root, rewards = env.reset(), torch.zeros(8, 1)
    for _ in range(6):
        step = env.step(rule(root))
        rewards += step["next", "reward"]
        root = env.step_mdp(step)
    assert root["done"].all()
    assert set(rewards.flatten().tolist()) <= {1.0, 2.0, 3.0, 4.0}
    again = env.rollout(20, rule, break_when_any_done=False)
    assert int(again["next", "done"].sum(1).min()) >= 4


def test_rules_are_functions_of_a_seed():
    def longest(td):
        return td.set("action", td["observation"].argmax(-1))

    class Seeded:
        def __init__(self, seed):
            self.seed = seed

        def __call__(self, td):
            return td

    problem = EnvProblem(guess, steps=5, rules={"longest": longest, "seeded": Seeded})
    assert list(problem.rules()) == ["longest", "seeded"]
    assert problem.rules()["longest"](3) is longest
    assert problem.rules()["seeded"](3).seed == 3
    assert list(EnvProblem(guess, steps=5).rules()) == ["random"]


@pytest.mark.parametrize(
    "spec",
    [Categorical(5, (4,)), OneHot(5, (4, 5)), MultiCategorical([3, 2], (4, 2)), Bounded(-2.0, 3.0, (4, 2))],
    ids=lambda spec: type(spec).__name__,
)
def test_the_random_rule_draws_what_the_spec_allows_and_owns_its_generator(spec):
    env = Specs({"observation": Unbounded((4, 3))}, spec)
    before = torch.get_rng_state()
    RandomRule(env)(TensorDict(batch_size=[4]))
    assert torch.equal(before, torch.get_rng_state())
    drawn = torch.stack([RandomRule(env, s)(env.reset())["action"] for s in range(40)])
    assert all(env.full_action_spec["action"].is_in(each) for each in drawn)
    assert drawn.float().std() > 0.1
    assert torch.equal(drawn[3], RandomRule(env, 3)(env.reset())["action"])


def test_the_random_rule_respects_masks():
    env = GuessEnv(64, 2, mask=True)
    td = RandomRule(env)(env.reset())
    mask = td["agents", "action_mask"]
    assert mask.gather(-1, td["agents", "action"].unsqueeze(-1)).all()


def test_the_random_rule_refuses_what_allows_nothing_where_a_choice_is_awaited():
    env = GuessEnv(4, 2, mask=True)
    td = env.reset()
    td["agents", "action_mask"][2, 1] = False
    with pytest.raises(InputError, match=r"the mask \('agents', 'action_mask'\) allows no choice at \[2, 1\]"):
        RandomRule(env)(td.clone())
    over = td.clone()
    over["done"][2] = True
    assert RandomRule(env)(over)["agents", "action"].shape == (4, 2)
    rule = RandomRule(env)
    rule.specs = [(key, spec, mask, ("agents", "valid")) for key, spec, mask, _ in rule.specs]
    exists = torch.ones(4, 2, dtype=torch.bool)
    exists[2, 1] = False
    assert rule(td.set(("agents", "valid"), exists))["agents", "action"].shape == (4, 2)


def test_where_values_cannot_be_read_the_random_rule_chooses_minus_one(monkeypatch):
    env = GuessEnv(4, 2, mask=True)
    td = env.reset()
    td["agents", "action_mask"][2, 1] = False
    monkeypatch.setattr("diffpolicy.environments.random_rule.readable", lambda x: False)
    action = RandomRule(env)(td)["agents", "action"]
    assert action[2, 1] == -1
    assert (action == -1).sum() == 1


def test_steps_become_transitions():
    env = GuessEnv(4, 3, mask=True)
    rollout = env.rollout(5, RandomRule(env))
    rows = step_transitions(rollout, Keys.of(env))
    assert rows.batch_size == (4, 3, 5)
    assert torch.equal(rows["reward"], rollout["next", "agents", "reward"].squeeze(-1).transpose(1, 2))
    assert torch.equal(rows["next", "observation"], rollout["next", "agents", "observation"].transpose(1, 2))
    assert torch.equal(rows["action_mask"], rollout["agents", "action_mask"].transpose(1, 2))
    assert rows["next", "action_mask"].shape == (4, 3, 5, 3)
    assert not rows["next", "terminated"].any()
    assert rows["next", "done"][..., -1].all()


def test_a_reward_at_the_root_belongs_to_all_agents():
    env = GuessEnv(4, 3)
    rollout = env.rollout(5, RandomRule(env))
    shared = rollout["next", "agents", "reward"].sum(2)
    rollout["next", "reward"] = shared
    keys = Keys.of(env)
    rows = step_transitions(rollout, type(keys)(**{**vars(keys), "reward": "reward"}))
    assert torch.equal(rows["reward"], shared.squeeze(-1).unsqueeze(1).expand(4, 3, 5))


def test_steps_after_the_end_are_not_valid():
    env = GuessEnv(4)
    rollout = env.rollout(5, RandomRule(env))
    rollout[COUNTED] = torch.arange(5).expand(4, 5) < 3
    assert torch.equal(step_transitions(rollout, Keys.of(env))["valid"], rollout[COUNTED])


def test_items_keep_their_place():
    env = OffloadingEnv(small(3, 5, 8), [2])
    rollout = env.rollout(4, RandomRule(env))
    rows, by_task = step_transitions(rollout, Keys.of(env)), task_transitions(rollout)
    assert rows.batch_size == by_task.batch_size == (2, 3, 4, 5)
    for key in ("observation", "action", "reward"):
        assert torch.equal(rows[key], by_task[key])


def specs_of(width, choices):
    """A lane that shows so many numbers and has so many choices."""
    return Specs({"observation": Unbounded((1, width))}, Categorical(choices, (1,)), batch=(1,))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: EnvProblem(lambda clinics: None), "'clinics'"),
        (lambda: EnvProblem("Clinic"), "'Clinic'"),
        (lambda: EnvProblem(guess, steps=0), "steps"),
        (lambda: EnvProblem(guess, steps=2.5), "2.5"),
        (lambda: EnvProblem(guess, rules={"longest": 3}), "'longest'"),
        (lambda: Cost("cost", per="slot"), "'slot'"),
        (lambda: EnvProblem(lambda batch: GuessEnv(3)).make_env(4), r"\[3\]"),
        (lambda: EnvProblem(lambda: 3).make_env(4), "environment of TorchRL or Gymnasium"),
        (lambda: Cost(""), "label must be a word"),
        (lambda: check_env(3), "must be a TorchRL EnvBase, got 3"),
        (
            lambda: check_env(with_done(Composite(done=Binary(1, (4, 1)), shape=(4,)))),
            "'done' of GuessEnv must be bool",
        ),
        (lambda: check_env(with_done(Composite(over=Binary(1, (4, 1)), shape=(4,)))), "no 'done' at the root"),
        (lambda: Lanes([]), "at least one"),
        (lambda: Lanes([GuessEnv(2)]), r"\[2\]"),
        (
            lambda: Lanes([specs_of(2, 3), specs_of(3, 3)]),
            r"lane 1 shows 'observation' as \[1, 3\] of torch.float32, and in lane 0 \[1, 2\] of torch.float32",
        ),
        (lambda: Lanes([specs_of(2, 3), specs_of(2, 4)]), "lane 1 decides otherwise than lane 0 under 'action'"),
    ],
)
def test_mistakes_get_a_sentence(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_a_problem_is_what_it_contains():
    same = [EnvProblem(guess, steps=5).description() for _ in range(2)]
    assert same[0] == same[1]
    assert EnvProblem(guess, steps=6).description() != same[0]
    assert EnvProblem(functools.partial(guess), steps=5, version="1").description()["version"] == "1"
    assert "source" not in EnvProblem(guess, version="1").description()


@pytest.mark.parametrize(
    ("name", "steps", "kind"),
    [("CartPole-v1", 500, "categorical"), ("FrozenLake-v1", 100, "categorical"), ("Pendulum-v1", 200, "bounded")],
)
def test_gymnasium_ids(name, steps, kind):
    pytest.importorskip("gymnasium")
    problem = gym_problem(name)
    assert (problem.name, problem.steps) == (f"gym:{name}", steps)
    env = problem.make_env(3, 5)
    keys = Keys.of(env)
    assert keys.action.kind == kind
    rollout = env.rollout(30, RandomRule(env), break_when_any_done=False)
    assert step_transitions(rollout, keys).batch_size == (3, 30)
    again = problem.make_env(3, 5)
    assert torch.equal(
        rollout["observation"], again.rollout(30, RandomRule(again), break_when_any_done=False)["observation"]
    )


def test_a_gymnasium_environment_takes_arguments_behind_its_id():
    pytest.importorskip("gymnasium")
    problem = gym_problem("FrozenLake-v1?is_slippery=false,map_name=8x8")
    env = problem.make_env(2, 0)
    assert env.observation_spec["observation"].n == 64
    right = 2
    td = env.reset().set("action", torch.full((2,), right))
    assert env.step(td)["next", "observation"].tolist() == [1, 1]  # where ice is not slippery
    same = gym_problem("FrozenLake-v1", options={"is_slippery": False, "map_name": "8x8"})
    assert same.name == problem.name
    assert same.digest() == problem.digest() != gym_problem("FrozenLake-v1").digest()


@pytest.mark.parametrize(
    "wrong", ["is_slippery", "slippery=true", "is_slippery=true,is_slippery=false", "map_name=9x9"]
)
def test_wrong_arguments_of_a_gymnasium_environment_are_refused(wrong):
    pytest.importorskip("gymnasium")
    with pytest.raises(InputError, match=r"problem gym:FrozenLake-v1\?"):
        gym_problem(f"FrozenLake-v1?{wrong}")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Pendulum-v1?g=NaN", "g must be finite, got nan"),
        ("Pendulum-v1?g=-Infinity", "g must be finite, got -inf"),
        ("Pendulum-v1?g=abc", "cannot be made: "),  # only a step reads it
    ],
)
def test_arguments_that_only_a_step_finds_wrong_are_refused_too(name, words):
    pytest.importorskip("gymnasium")
    with pytest.raises(InputError, match=rf"problem gym:{re.escape(name)}:? {words}"):
        gym_problem(name)
    with pytest.raises(InputError, match="g must be finite, got inf"):
        gym_problem("Pendulum-v1", options={"g": float("inf")})


def test_a_limit_of_steps_among_the_arguments_is_the_problems():
    pytest.importorskip("gymnasium")
    assert gym_problem("CartPole-v1?max_episode_steps=50").steps == 50
    assert gym_problem("CartPole-v1?max_episode_steps=50", steps=7).steps == 7


def test_an_unknown_id_is_refused():
    pytest.importorskip("gymnasium")
    with pytest.raises(InputError, match="NoSuchGame"):
        gym_problem("NoSuchGame-v0")


def test_a_problem_is_its_factory_too():
    def shaped(width):
        def make(batch, seed):
            return guess(batch, seed + 0 * width)

        return make

    first, same, other = (EnvProblem(shaped(w), steps=5, name="e").description() for w in (3, 3, 4))
    assert first == same != other
    assert (
        EnvProblem(guess, steps=5, name="e").description() != EnvProblem(BatchedGuess, steps=5, name="e").description()
    )


def test_a_partial_of_a_class_is_asked_for_its_names():
    problem = EnvProblem(functools.partial(BatchedGuess, horizon=3), steps=3)
    assert problem.make_env(4, 7).batch_size == (4,)
    assert problem.make_env(4, 7).horizon == 3


class BatchedGuess(GuessEnv):
    """`GuessEnv` whose arguments are called as a problem calls them."""

    def __init__(self, batch, seed=0, horizon=5):
        super().__init__(batch, horizon=horizon)
        self.set_seed(seed)


@pytest.mark.parametrize(
    ("cost", "told"), [("inf", "too large to be numbers, the first inf"), ("nan", "no numbers, the first nan")]
)
def test_costs_that_are_no_numbers_are_refused(cost, told):
    class Endless(BatchedGuess):
        def _step(self, tensordict):
            step = super()._step(tensordict)
            return step.set("reward", step["reward"] - float(cost))

    problem = EnvProblem(lambda batch, seed: Endless(batch, seed), steps=5)
    with pytest.raises(InputError, match=told):
        evaluate(problem, ["random"], episodes=2)
