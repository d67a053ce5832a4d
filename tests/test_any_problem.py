"""A user's own problem by the command line, and an objective and a method of one's own from outside the package."""

import csv
import importlib.metadata
import json

import pytest

from diffpolicy import EnvProblem
from diffpolicy.experiments import evaluate, make_problem, train, workers
from toys import GuessEnv, same_tensors

MINE = """
from diffpolicy import EnvProblem
from toys import GuessEnv

def make(batch, seed):
    env = GuessEnv(batch)
    env.set_seed(seed)
    return env

def largest(td):
    return td.set("action", td["observation"].argmax(-1))

problem = EnvProblem(make, steps=5, rules={"largest": largest}, name="guess")
"""
OWN = '''
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Mapping

import torch
from tensordict import TensorDict
from torchrl.objectives.common import LossModule

from diffpolicy.methods import OffPolicyMethod
from diffpolicy.policies import FeedforwardPolicy


class RewardWeighted(LossModule):
    """- r log pi(a|s): imitates what paid."""

    def __init__(self, policy):
        super().__init__()
        self.policy = policy
        self.in_keys, self.out_keys = ["observation", "action", "reward"], ["loss_policy"]

    def parameter_groups(self):
        return {"policy": self.policy.parameters()}

    def update_targets(self):
        pass

    def forward(self, td):
        law = self.policy.law(td["observation"], mask=td.get("action_mask", None))
        log = law.log_softmax(-1).gather(-1, td["action"].long().unsqueeze(-1)).squeeze(-1)
        return TensorDict(loss_policy=-(td["reward"] * log).mean(-1).sum())


@dataclass(frozen=True, kw_only=True)
class Weighted(OffPolicyMethod):
    learning_rates: Mapping[str, float] = field(default_factory=lambda: {"policy": 0.01})
    own_policy = FeedforwardPolicy

    def make_objective(self, policy, seed):
        return RewardWeighted(policy)


own = Weighted(start_after=5, capacity=100, batch_size=16)
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return "mine:problem"


def test_evaluate_plays_it_beside_random(cli, mine, tmp_path):
    words = ("evaluate", "largest", "random", "--problem", mine, "--episodes", 4)
    result = cli(*words, "--out", tmp_path / "out")
    assert result.status == 0, result.err
    assert "guess: 4 identical episodes, ratio to largest" in result.out
    with (tmp_path / "out" / "evaluation.csv").open() as file:
        rows = {row["policy"]: float(row["mean_cost"]) for row in csv.DictReader(file)}
    assert rows["largest"] == -5 < rows["random"]
    data = json.loads(cli(*words, "--json").out)
    assert {"problem", "cost", "policies", "version", "seed"} <= data.keys()
    assert {"mean_cost", "ci95", "ratio", "difference"} <= data["policies"]["random"].keys()


def test_compare_trains_and_plays_it(cli, mine, tmp_path):
    (tmp_path / "quick.yaml").write_text(
        "class_path: diffpolicy.methods.SACMethod\n"
        "init_args: {start_after: 5, capacity: 100, batch_size: 8, hidden: [8], "
        "learning_rates: {actor: 0.01, critic: 0.01, alpha: 0.0}}\n"
    )
    words = ("--methods", "quick.yaml", "--episodes", 2, "--eval-episodes", 2, "--processes", 1)
    result = cli("compare", "--problem", mine, *words, "--out", tmp_path / "out")
    assert result.status == 0, result.err
    with (tmp_path / "out" / "comparison.csv").open() as file:
        assert {row["method"] for row in csv.DictReader(file)} == {"quick.yaml", "largest"}
    assert (tmp_path / "out" / "learning_curves.png").is_file()
    first = (tmp_path / "out" / "comparison.csv").read_text().splitlines()
    again = cli("compare", "--problem", mine, *words, "--out", tmp_path / "out", "--resume")
    assert again.status == 0, again.err
    assert "taken" in again.err  # what was trained is not trained once more
    second = (tmp_path / "out" / "comparison.csv").read_text().splitlines()
    assert [line.split(",")[:8] for line in second] == [line.split(",")[:8] for line in first]


def test_compare_trains_in_lanes_and_in_this_process_alone(cli, mine, tmp_path, monkeypatch, no_pictures):
    def started():
        raise AssertionError("another process was started")

    monkeypatch.setattr(workers, "_start", started)
    words = ("--methods", "sac", "--episodes", 4, "--eval-episodes", 2, "--processes", 1, "--out", tmp_path / "out")
    assert cli("compare", "--problem", mine, *words, "--environments", 2).status == 0
    with (tmp_path / "out" / "comparison.csv").open() as file:
        assert next(row["episodes"] for row in csv.DictReader(file) if row["method"] == "sac") == "4"
    with (tmp_path / "out" / "learning_curves.csv").open() as file:
        assert [row["episode"] for row in csv.DictReader(file) if row["method"] == "sac"] == ["2", "4"]
    again = cli("compare", "--problem", mine, *words, "--resume", "--environments", 4)
    assert again.status == 0, again.err
    assert "taken from" not in again.err  # other lanes are another training
    assert "sac, seed 0 is trained again" in again.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["evaluate", "longest", "--problem", "mine:problem"], "'longest' is neither a rule (largest, random)"),
        (["evaluate", "random", "--problem", "nowhere:problem"], "nowhere"),
        (
            ["evaluate", "random", "--problem", "mine:problem", "--tasks", "5"],
            "--tasks works only with the offloading problem",
        ),
        (["train", "d2sac", "--problem", "mine:nothing"], "nothing"),
    ],
)
def test_a_mistake_is_one_sentence(refused, mine, words, says):
    refused(*words, says=[says])


def test_an_entry_point_is_a_problem(cli, mine, monkeypatch):
    point = importlib.metadata.EntryPoint("ward", mine, "diffpolicy.problems")
    found = importlib.metadata.entry_points
    monkeypatch.setattr(
        importlib.metadata,
        "entry_points",
        lambda group: [point] if group == "diffpolicy.problems" else found(group=group),
    )
    assert "ward" in cli("list", "problems").out.split()
    assert make_problem("ward").name == "guess"
    result = cli("evaluate", "random", "--problem", "ward", "--episodes", 2, "--json")
    assert set(json.loads(result.out)["policies"]) == {"random"}


def test_a_gymnasium_id_is_a_problem(cli):
    pytest.importorskip("gymnasium")
    data = json.loads(cli("evaluate", "random", "--problem", "gym:CartPole-v1", "--episodes", 2, "--json").out)
    assert -500 <= data["policies"]["random"]["mean_cost"] < 0


def test_a_method_and_an_objective_of_ones_own_train_save_and_resume(cli, mine, tmp_path):
    objective = OWN[OWN.index("class RewardWeighted") : OWN.index("@dataclass")]
    method = OWN[OWN.index("@dataclass") :]
    assert len(objective.splitlines()) <= 60
    assert len(method.splitlines()) <= 30
    whole = cli("train", "own:own", "--problem", mine, "--episodes", 6, "--out", tmp_path / "whole")
    assert whole.status == 0, whole.err
    assert evaluate(mine, [tmp_path / "whole", "random"], episodes=2).results
    whole = train(mine, "own:own", episodes=6, out=tmp_path / "again")
    train(mine, "own:own", episodes=3, out=tmp_path / "half")
    half = train(mine, "own:own", episodes=6, out=tmp_path / "half", resume=tmp_path / "half")
    assert same_tensors(whole.policy, half.policy)
    assert whole.history == half.history


@pytest.mark.parametrize("agents", [None, 2])
def test_a_method_of_ones_own_trains_any_problem_of_choices(mine, agents):
    problem = EnvProblem(lambda batch, seed: GuessEnv(batch, agents, mask=True), steps=5)
    fitted = train(problem, "own:own", episodes=4, environments=2)
    assert [row["episode"] for row in fitted.history] == [2, 4]
