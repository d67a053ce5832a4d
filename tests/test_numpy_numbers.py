"""NumPy's scalars, which sweeps of one's own come in, are numbers; what is kept of them is Python's own."""

import json

import numpy as np
import pytest

from diffpolicy import DiffusionPolicy, EnvProblem, InputError
from diffpolicy import _validate as check
from diffpolicy.experiments import build, evaluate, make_method, train
from diffpolicy.experiments.changes import changed
from diffpolicy.problems import Clinic
from diffpolicy.problems.clinic import problem


@pytest.mark.parametrize("number", [np.float16(3), np.float32(3), np.float64(3), np.int8(3), np.uint16(3), np.int64(3)])
def test_numpys_numbers_are_kept_as_pythons(number):
    real, whole = check.number(number, "alpha"), check.integer(number, "steps")
    assert (type(real), real, type(whole), whole) == (float, 3.0, int, 3)


@pytest.mark.filterwarnings("error")  # NumPy's own, of what its infinities are divided by
@pytest.mark.parametrize(
    "no_number", [np.bool_(True), np.array([3.0]), np.float32("nan"), np.float32("inf"), float("-inf"), "3", None, 1j]
)
def test_what_is_no_number_is_still_refused(no_number):
    for rule in (check.number, check.integer):
        with pytest.raises(InputError, match="alpha must be a"):
            rule(no_number, "alpha")
    with pytest.raises(InputError, match=r"a whole number, got np\.float32"):
        check.integer(np.float32(2.5), "steps")


def test_a_method_of_numpys_numbers_is_the_one_of_pythons():
    ours, numpys = (
        changed(
            make_method("d2sac"), {"alpha": real(0.25), "steps": whole(3), "hidden": [whole(8)], "gamma": real(0.5)}
        )
        for real, whole in ((float, int), (np.float32, np.int64))
    )
    assert numpys == ours
    assert {type(getattr(numpys, name)) for name in ("alpha", "gamma")} == {float}


def test_a_problem_a_policy_a_seed_and_a_run_take_them(tmp_path):
    steps, seed = np.int64(5), np.uint32(1)
    mine = EnvProblem(Clinic, steps=steps, name="short", version="1")
    policy = DiffusionPolicy.from_specs(Clinic(2), steps=np.int32(3))
    policy.save(tmp_path / "policy")
    assert json.dumps(policy.config()) == json.dumps(DiffusionPolicy.from_specs(Clinic(2), steps=3).config())
    changes = {"start_after": np.int64(8), "batch_size": np.int64(8)}
    run = train(
        mine, "d2sac", episodes=np.int64(4), environments=np.int64(4), seed=seed, changes=changes, out=tmp_path / "run"
    )
    again = train(mine, "d2sac", episodes=4, environments=4, seed=1, changes={"start_after": 8, "batch_size": 8})
    assert run.updates == again.updates > 0
    assert all((a == b).all() for a, b in zip(run.policy.parameters(), again.policy.parameters(), strict=True))
    assert evaluate(mine, ["random"], episodes=np.int64(2), seed=seed).seed == 1


@pytest.mark.parametrize("seed", ["one", 1.5, -1, None])
def test_a_seed_that_is_none_is_refused_by_name(seed):
    for work in (
        lambda: train(problem, "d2sac", episodes=1, seed=seed),
        lambda: build(problem, "d2sac", seed=seed),
        lambda: evaluate(problem, ["random"], episodes=1, seed=seed),
    ):
        with pytest.raises(InputError, match="seed must be"):
            work()
