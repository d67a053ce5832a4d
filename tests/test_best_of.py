"""Acting by the best of several draws, as QVPO does: in training, in a folder, and by the option of a command."""

import dataclasses
import json

import pytest

from diffpolicy import DiffusionPolicy, InputError
from diffpolicy.environments import EnvProblem
from diffpolicy.experiments import make_method, train
from diffpolicy.policies import BestOf
from diffpolicy.policies.steered import steered
from toys import GuessEnv, same_tensors

QUICK = {"start_after": 5, "capacity": 100, "batch_size": 8, "hidden": [8], "best_of": 4}
PROBLEM = EnvProblem(lambda batch, seed: GuessEnv(batch), steps=5)


def test_it_plays_by_its_critic_while_it_is_trained_and_from_its_folder(tmp_path):
    run = train(PROBLEM, "qvpo", episodes=4, changes=QUICK, out=tmp_path / "run")
    assert isinstance(run.policy.guidance, BestOf)
    again = DiffusionPolicy.load(tmp_path / "run")
    assert again.guidance.draws == 4
    assert same_tensors(again.guidance.critic, run.policy.guidance.critic)
    resumed = tmp_path / "half"
    train(PROBLEM, "qvpo", episodes=2, changes=QUICK, out=resumed)
    other = train(PROBLEM, "qvpo", episodes=4, changes=QUICK, out=resumed, resume=resumed)
    assert other.history == run.history
    assert same_tensors(other.policy, run.policy)


def test_the_critic_is_the_one_that_learns():
    module = dataclasses.replace(make_method("qvpo"), **QUICK).build(PROBLEM, seed=1)
    assert module.policy.guidance.critic is module.objective.critic
    assert module.policy.generator is module.objective.policy.generator
    assert module.objective.policy.guidance is None
    assert module.policy.denoiser is module.objective.policy.denoiser


def test_a_command_guides_otherwise(tmp_path, cli):
    folder = str(tmp_path / "run")
    train("clinic", "qvpo", episodes=1, changes={**QUICK, "updates": 1, "rollout_steps": 10}, out=folder)
    shared = ["evaluate", folder, "--problem", "clinic", "--eval-episodes", "1", "--json"]
    found = json.loads(cli(*shared, "--guidance", "best-of:16").out)
    assert found["policies"][folder]["mean_cost"] > 0
    assert found["policies"][folder]["guidance"] == "best-of:16"
    two = ["evaluate", folder, "random", "--problem", "clinic", "--eval-episodes", "1", "--guidance", "best-of:16"]
    told = cli(*two).out.splitlines()
    assert [line for line in told if "[guidance best-of:16]" in line] == [line for line in told if folder in line]
    alone = cli("evaluate", "random", "longest-queue", "--problem", "clinic", "--guidance", "best-of:16").err
    assert (
        "--guidance best-of:16 steers chains of diffusion policies, and none of random, longest-queue has one" in alone
    )
    assert steered(DiffusionPolicy.load(folder), "best-of", 9).guidance.draws == 9
    assert "makes choices; use BestOf" in cli(*shared, "--guidance", "q-gradient:0.5").err
    assert "condition_drop above 0" in cli(*shared, "--guidance", "classifier-free:1").err
    for told in ("best-of:1.5", "best-of", "luck:3"):
        assert f"got {told}" in cli(*shared, "--guidance", told).err
    copied = {**QUICK, "condition_drop": 0.2}
    del copied["best_of"]
    train(PROBLEM, "bc", episodes=1, changes=copied, out=tmp_path / "bc")
    assert steered(DiffusionPolicy.load(tmp_path / "bc"), "classifier-free", 1.5).guidance.weight == 1.5
    plain = DiffusionPolicy.from_specs(GuessEnv(2))
    with pytest.raises(InputError, match="none was saved; train it with best_of above 1"):
        steered(plain, "best-of", 3)
    rule = object()
    assert steered(rule, "best-of", 3) is rule


def test_mistakes_get_a_sentence():
    with pytest.raises(InputError, match="best_of must be 1 without a chain, got 4"):
        dataclasses.replace(make_method("qvpo-plain"), best_of=4)
    with pytest.raises(InputError, match="best_of must be 1 under ema"):
        dataclasses.replace(make_method("qvpo"), best_of=4, ema=0.9)
