"""Presets of methods that serve any problem, and the names of problems and methods."""

import dataclasses

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Composite, MultiCategorical
from torchrl.envs.utils import ExplorationType, set_exploration_type

from diffpolicy import DiffusionPolicy
from diffpolicy.environments import EnvProblem, Problem, RandomRule
from diffpolicy.errors import InputError
from diffpolicy.evaluation import play, playing
from diffpolicy.experiments import make_method, make_problem, train
from diffpolicy.experiments.method_names import PRESETS
from diffpolicy.methods import DiffusionSACMethod, OnPolicyMethod, SACMethod
from diffpolicy.policies.heads import CategoricalHead
from diffpolicy.training import OffPolicyModule, stream
from diffpolicy.training.fit import fit
from toys import GuessEnv, same_tensors

FREE = tuple(
    name
    for name, package in PRESETS.items()
    if package == "diffpolicy.methods" and not make_method(name).refuses(CategoricalHead(choices=3))
)
"""Those that decide among choices."""
QUICK = {"start_after": 5, "capacity": 100, "batch_size": 8, "hidden": [8]}
ON_POLICY = {"collect": 10, "epochs": 2, "batch_size": 8, "hidden": [8]}


def guess(batch, seed):
    env = GuessEnv(batch)
    env.set_seed(seed)
    return env


def quick(name, **changes):
    method = make_method(name)
    return dataclasses.replace(method, **{**(ON_POLICY if isinstance(method, OnPolicyMethod) else QUICK), **changes})


@pytest.mark.parametrize("agents", [None, 2])
@pytest.mark.parametrize("name", FREE)
def test_every_preset_trains_a_problem_of_ones_own(name, agents):
    problem = EnvProblem(lambda batch, seed: GuessEnv(batch, agents, mask=True), steps=5)
    module = quick(name).build(problem, environments=2)
    fitted = fit(module, episodes=4)
    assert [row["episode"] for row in fitted.history] == [2, 4]
    assert fitted.history[-1]["cost"] <= 0
    if isinstance(module, OffPolicyModule):
        assert len(module.replay) == 2 * 2 * 5


def test_a_class_of_ones_own_acts():
    class Twice(DiffusionPolicy):
        def embed(self, td):
            return 2 * self.observe(td)

    method = quick("d2sac", policy=Twice)
    module = method.build(EnvProblem(guess, steps=5), environments=2)
    assert type(module.policy) is Twice
    given = Twice.from_specs(GuessEnv(2), steps=2, seed=1)
    module = quick("d2sac", policy=given).build(EnvProblem(guess, steps=5), environments=2, seed=3)
    assert module.policy is not given
    assert len(module.policy.schedule.values) == 3
    fit(module, episodes=2)
    with pytest.raises(InputError, match="policy must be a Policy"):
        SACMethod(learning_rates={}, policy=3)


def test_problems_by_name(tmp_path, monkeypatch):
    (tmp_path / "problems_for_test.py").write_text(
        "from diffpolicy.environments import EnvProblem\n"
        "from toys import GuessEnv, same_tensors\n"
        "def make(batch, seed):\n    return GuessEnv(batch)\n"
        "problem = EnvProblem(make, steps=5)\n"
        "def later():\n    return EnvProblem(make, steps=4)\n"
        "number = 7\n"
    )
    monkeypatch.chdir(tmp_path)
    for name, steps in (("problem", 5), ("make", None), ("later", 4)):
        problem = make_problem(f"problems_for_test:{name}")
        assert isinstance(problem, Problem)
        assert problem.steps == steps
        assert problem.make_env(3, 0).batch_size == (3,)
        assert problem.reference == f"problems_for_test:{name}"
    for name in ("problems_for_test:number", "problems_for_test:none", "nothing", "gym:", "gym:Nothing-v7"):
        with pytest.raises(InputError, match="problem"):
            make_problem(name)


def test_files_name_what_earlier_versions_had():
    from diffpolicy.methods import parse_method

    text = "class_path: diffpolicy.training.methods.DiffusionSACMethod\ninit_args:\n  learning_rates: {actor: 0.0}\n"
    assert type(parse_method(text, "old.yaml")) is DiffusionSACMethod


def test_train_gives_a_policy_and_resumes_bitwise(tmp_path):
    problem = EnvProblem(guess, steps=5, name="guess")
    options = {"environments": 2, "changes": QUICK, "seed": 1}
    whole = train(problem, "d2sac", episodes=8, out=tmp_path / "whole", **options)
    assert whole.policy.trained["problem"] == "guess"
    assert [row["episode"] for row in whole.history] == [2, 4, 6, 8]
    train(problem, "d2sac", episodes=4, out=tmp_path / "half", **options)
    again = train(problem, "d2sac", episodes=8, out=tmp_path / "half", resume=tmp_path / "half", **options)
    assert same_tensors(whole.policy, again.policy)
    assert whole.history == again.history
    other = EnvProblem(guess, steps=5, name="guess", version="2")
    with pytest.raises(InputError, match="trained with problem"):
        train(other, "d2sac", episodes=9, out=tmp_path / "half", resume=tmp_path / "half", **options)
    with pytest.raises(InputError, match="hiden"):
        train(problem, "d2sac", episodes=2, changes={"hiden": [3]})


def test_an_episode_without_steps_goes_on_until_every_lane_has_ended(monkeypatch):
    module = quick("sac").build(EnvProblem(guess), environments=3)
    fitted = fit(module, episodes=3)
    assert len(module.replay) == 3 * 5
    assert fitted.history[0]["episode"] == 3
    monkeypatch.setattr(stream, "ENDLESS", 8)
    endless = quick("sac").build(EnvProblem(lambda batch, seed: GuessEnv(batch, horizon=10**6)), environments=3)
    with pytest.raises(InputError, match=r"GuessEnv has no number of steps, and its lane 0 has not ended after 8"):
        fit(endless, episodes=3)


def test_playing_ends_where_training_does_if_no_episode_ends(monkeypatch):
    monkeypatch.setattr(playing, "ENDLESS", 8)
    env = GuessEnv(2, horizon=8)
    assert len(play(env, RandomRule(env)).cost) == 16
    env = GuessEnv(2, horizon=10)
    assert len(play(env, RandomRule(env), steps=9).cost) == 18
    with pytest.raises(InputError, match=r"lane 0 has not ended after 8; .* at most, such as steps=16"):
        play(env, RandomRule(env))


class Bandit(GuessEnv):
    """Two slots of 3 and 2 choices; reward 1 where both are the right ones of 6 joint choices."""

    def __init__(self, batch, seed):
        super().__init__(batch, horizon=1)
        self.action_spec = Composite(action=MultiCategorical([3, 2], (batch, 2)), shape=(batch,))

    def _step(self, td):
        right = (td["action"] == torch.tensor([2, 1])).all(-1, keepdim=True)
        over = torch.ones_like(right)
        flags = {"done": over, "terminated": over.clone(), "truncated": ~over}
        return TensorDict({**self._observe(), **flags, "reward": right.float()}, batch_size=self.batch_size)


def test_a_bandit_of_several_choices_at_once_is_learned():
    quick_bandit = {"start_after": 50, "updates": 3, "hidden": [32], "capacity": 2000, "batch_size": 64}
    run = train(EnvProblem(Bandit, steps=1), "d2sac", episodes=3200, environments=16, changes=quick_bandit)
    env = Bandit(256, 0)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        played = env.rollout(1, run.policy.eval())
    assert float(played["next", "reward"].mean()) == 1
