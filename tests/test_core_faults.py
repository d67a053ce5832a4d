"""Mistakes and doubts in the core that are told in a sentence, before any work."""

import warnings

import pytest
import torch

from diffpolicy.environments import EnvProblem
from diffpolicy.environments.entrants import make_policy
from diffpolicy.environments.given_env import GivenEnv
from diffpolicy.environments.random_rule import RandomRule
from diffpolicy.environments.repeating import repeats
from diffpolicy.errors import InputError
from diffpolicy.evaluation import evaluating
from diffpolicy.evaluation.evaluating import evaluate
from diffpolicy.evaluation.playing import Played, play
from diffpolicy.experiments import compare, run, train, work
from diffpolicy.experiments.tables import comparison_json
from diffpolicy.experiments.training import build
from diffpolicy.policies import FeedforwardPolicy
from diffpolicy.problems.clinic import Clinic
from diffpolicy.problems.power_allocation import PowerAllocation
from diffpolicy.training import fit
from diffpolicy.training.replay import PackedReplay
from diffpolicy.training.stream import RolloutStream

PROBLEM = EnvProblem(Clinic, steps=50, cost="waiting")


@pytest.mark.parametrize("call", [lambda: play([], None), lambda: RandomRule([])], ids=["play", "RandomRule"])
def test_what_is_no_environment_is_refused_by_name(call):
    with pytest.raises(InputError, match=r"env must be an environment of TorchRL, got \[\]"):
        call()


def test_no_runs_join_to_none():
    with pytest.raises(InputError, match="parts must hold at least one run, got none"):
        Played.join([])


@pytest.mark.parametrize("wrong", [None, [3]])
def test_callbacks_that_are_none_are_refused_before_any_work(wrong):
    with pytest.raises(InputError, match="callbacks must be a list of Lightning callbacks, got"):
        fit(build(PROBLEM, "dqn", environments=4), episodes=4, callbacks=wrong)
    with pytest.raises(InputError, match="callbacks must be a list of Lightning callbacks, got"):
        train(PROBLEM, "dqn", episodes=4, environments=4, callbacks=wrong)


def test_an_empty_text_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="out must be a path, got ''"):
        train(PROBLEM, "dqn", episodes=4, environments=4, out="")
    assert list(tmp_path.iterdir()) == []


def test_whole_numbers_that_are_typed_as_others_are_kept_whole():
    replay = PackedReplay(5.0, None)
    assert type(replay.capacity) is int
    env = Clinic(2)
    stream = RolloutStream(env, RandomRule(env), episode_steps=50.0, steps=25.0)
    assert (type(stream.steps), type(stream.episode_steps), len(stream)) == (int, int, 2)
    policy = FeedforwardPolicy(choices=3.0, observation_dim=3.0, seed=1.0)
    assert {type(policy.config()[name]) for name in ("choices", "observation_dim", "seed")} == {int}


class Careless(Clinic):
    """Draws what nobody can draw again."""

    drawn = 0

    def _reset(self, tensordict=None, **_):
        Careless.drawn += 1
        return super()._reset(tensordict).set("observation", torch.full((*self.batch_size, 3), float(Careless.drawn)))


def test_json_says_where_episodes_cannot_be_repeated(tmp_path):
    told = evaluate(EnvProblem(Careless, steps=50), ["random"], episodes=2).to_dict()
    assert told["repeatable"] is False
    assert "repeatable" not in evaluate(PROBLEM, ["random"], episodes=2).to_dict()
    for problem, says in ((EnvProblem(Careless, steps=50), {False}), (PROBLEM, set())):
        out = tmp_path / str(len(says))
        found = compare(problem, methods=[], episodes=1, eval_episodes=2, out=out, processes=1)
        assert {value for key, value in comparison_json(found).items() if key == "repeatable"} == says
    assert not repeats(GivenEnv(Clinic(1), 50))


def test_whether_episodes_repeat_is_found_before_the_work_in_environments_that_are_closed(monkeypatch):
    order, closed = [], []
    monkeypatch.setattr(Clinic, "close", lambda self, **_: closed.append(id(self)))
    found, played = evaluating.played_as, evaluating.play_episodes
    monkeypatch.setattr(evaluating, "played_as", lambda *a: (order.append("repeats"), found(*a))[1])
    monkeypatch.setattr(evaluating, "play_episodes", lambda *a: (order.append("work"), played(*a))[1])
    evaluate(PROBLEM, ["random"], episodes=2)
    assert order == ["repeats", "work"]
    assert len(set(closed)) == 2


def test_a_comparison_finds_whether_episodes_repeat_before_hours_of_work(monkeypatch, tmp_path):
    order = []
    found, played = run.played_as, work.play_episodes
    monkeypatch.setattr(run, "played_as", lambda *a: (order.append("repeats"), found(*a))[1])
    monkeypatch.setattr(work, "play_episodes", lambda *a: (order.append("work"), played(*a))[1])
    compare(PROBLEM, methods=[], episodes=1, eval_episodes=2, out=tmp_path, processes=1)
    assert order == ["repeats", "work"]


def test_two_sizes_of_a_problem_have_names_apart_and_a_policy_of_the_other_is_told_of():
    usual, other = PowerAllocation(), PowerAllocation(power=5.0)
    assert (usual.name, other.name) == ("power-allocation", "power-allocation(power=5.0)")
    assert other.vary("power", 3.0).name == usual.name
    policy = FeedforwardPolicy.from_specs(usual.make_env())
    policy.trained |= usual.trained()
    with pytest.warns(UserWarning, match=r"trained on problem power-allocation, .* in power-allocation\(power=5.0\)"):
        other.prepare(policy)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        usual.prepare(policy)


def test_a_policy_of_train_is_told_of_by_the_name_of_its_problem_and_a_number_is_one_however_it_is_typed(tmp_path):
    other = PowerAllocation(power=5)
    run = train(other, "sac", episodes=1, out=tmp_path, changes={"start_after": 5})
    assert run.policy.trained["problem"] == PowerAllocation(power=5.0).name == "power-allocation(power=5.0)"
    assert other.digest() == PowerAllocation(power=5.0).digest()
    with pytest.warns(UserWarning, match=r"trained on problem power-allocation\(power=5.0\), .* in power-allocation, "):
        make_policy(tmp_path, PowerAllocation())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_policy(tmp_path, PowerAllocation(power=5.0))
