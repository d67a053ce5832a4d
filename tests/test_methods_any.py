"""Presets of methods that serve any problem, and the names of problems and methods."""

import dataclasses

import pytest

from diffpolicy import DiffusionPolicy
from diffpolicy.environments import EnvProblem, Problem
from diffpolicy.errors import InputError
from diffpolicy.experiments import make_method, make_problem
from diffpolicy.experiments.names import PRESETS
from diffpolicy.methods import DiffusionSACMethod, SACMethod
from diffpolicy.training.fit import fit
from toys import GuessEnv

FREE = tuple(name for name, package in PRESETS.items() if package == "diffpolicy.methods")
QUICK = {"start_after": 5, "capacity": 100, "batch_size": 8, "hidden": [8]}


def guess(batch, seed):
    env = GuessEnv(batch)
    env.set_seed(seed)
    return env


def quick(name, **changes):
    return dataclasses.replace(make_method(name), **{**QUICK, **changes})


@pytest.mark.parametrize("agents", [None, 2])
@pytest.mark.parametrize("name", FREE)
def test_every_preset_trains_a_problem_of_ones_own(name, agents):
    problem = EnvProblem(lambda batch, seed: GuessEnv(batch, agents, mask=True), steps=5)
    module = quick(name).build(problem, environments=2)
    fitted = fit(module, episodes=4)
    assert [row["episode"] for row in fitted.history] == [2, 4]
    assert fitted.history[-1]["cost"] <= 0
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
    with pytest.raises(InputError, match="policy must be a ChoicePolicy"):
        SACMethod(learning_rates={}, policy=3)


def test_problems_by_name(tmp_path, monkeypatch):
    (tmp_path / "problems_for_test.py").write_text(
        "from diffpolicy.environments import EnvProblem\n"
        "from toys import GuessEnv\n"
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
