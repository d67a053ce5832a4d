"""What all worked problems have in common: soundness, lanes of their own, resets, saved states, knobs, and methods."""

import dataclasses

import pytest
import torch

from diffpolicy import check_problem
from diffpolicy.environments import RandomRule
from diffpolicy.environments.entrants import rules_of
from diffpolicy.errors import InputError
from diffpolicy.experiments import make_method, make_problem
from diffpolicy.methods.on_policy import OnPolicyMethod
from diffpolicy.problems.drawn import DrawnProblem
from diffpolicy.training.fit import fit

DRAWN = {
    "power-allocation": {"channels": 3},
    "split": {"units": 3},
    "provider-selection": {"providers": 4},
    "gang": {"servers": 8},
}
"""Problems whose episodes are drawn whole, and a knob of each that is turned."""
QUICK = {"start_after": 3, "capacity": 100, "batch_size": 8, "hidden": [8]}
ON_POLICY = {"collect": 5, "epochs": 1, "batch_size": 8, "hidden": [8]}
every = pytest.mark.parametrize("name", DRAWN)


def played(env, steps=6, seed=0):
    return env.rollout(steps, RandomRule(env, seed), break_when_any_done=False)


@every
def test_it_is_sound_by_name(name):
    problem = make_problem(name)
    assert isinstance(problem, DrawnProblem)
    assert problem.name == name
    check_problem(problem)


@every
def test_an_episode_depends_on_its_seed_and_number_alone(name):
    problem = make_problem(name)
    policy = rules_of(problem)[next(iter(problem.rules()))](0)

    def shown(env):
        return env.rollout(6, policy, break_when_any_done=False)["next", "observation"]

    whole = shown(problem.make_episodes(0, 3, seed=5))
    assert torch.equal(whole[2:], shown(problem.make_episodes(2, 1, seed=5)))
    assert not torch.equal(whole[:1], whole[1:2])
    assert torch.equal(whole, shown(problem.make_env(3, 5, split="evaluate")))
    assert not torch.equal(whole, shown(problem.make_env(3, 5)))


@every
def test_a_lane_that_is_asked_begins_anew_alone(name):
    env = make_problem(name).make_env(3, seed=1)
    td = played(env)[:, -1]["next"]
    again = env.reset(td.clone().set("_reset", torch.tensor([[False], [True], [False]])))
    for key in ("observation", "done"):
        assert torch.equal(again[key][[0, 2]], td[key][[0, 2]])
    assert not torch.equal(again["observation"][1], td["observation"][1])
    assert env.now.flatten().tolist() == [6, 0, 6]


@every
def test_a_saved_state_goes_on_as_it_would_have(name):
    problem = make_problem(name)
    env, other = problem.make_env(2, seed=3), problem.make_env(2, seed=4)
    last = played(env)[:, -1]["next"]
    other.set_extra_state(env.get_extra_state())
    action = RandomRule(env, 7)(last.clone())["action"]
    first, second = (e.step(last.clone().set("action", action))["next"] for e in (env, other))
    assert torch.equal(first["observation"], second["observation"])
    assert torch.equal(first["reward"], second["reward"])
    assert torch.equal(env.reset()["observation"], other.reset()["observation"])


@every
def test_a_knob_turns_and_others_are_refused(name):
    problem = make_problem(name)
    key, value = next(iter(DRAWN[name].items()))
    assert key in problem.knobs()
    turned = problem.vary(key, value)
    assert turned.options[key] == value
    assert turned.digest() != problem.digest()
    with pytest.raises(InputError, match=f"problem {name} has no 'nonsense' to vary"):
        problem.vary("nonsense", 1)
    with pytest.raises(InputError, match=key):
        problem.vary(key, -1)


@every
def test_its_methods_train_it(name):
    problem = make_problem(name)
    problem.steps = 5  # of an episode, so that it is quick
    for preset in problem.methods:
        method = make_method(preset)
        fields = ON_POLICY if isinstance(method, OnPolicyMethod) else QUICK
        module = dataclasses.replace(method, **fields).build(problem, environments=2)
        assert [row["episode"] for row in fit(module, episodes=2).history] == [2]
