"""What readers and stores do with numbers and files that are too large, and with values of another type."""

import json
import math
import time
import warnings

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from diffpolicy import GreedyValuePolicy, InputError, _yaml
from diffpolicy import _validate as check
from diffpolicy._identity import check_same
from diffpolicy._seeds import derived
from diffpolicy.edge import OffloadingProblem, Scenario
from diffpolicy.environments.seeds import episode_seed
from diffpolicy.experiments.method_names import make_method
from diffpolicy.experiments.plan import Plan, jobs_of
from diffpolicy.experiments.work import recorded, unfinished
from diffpolicy.methods.files import parse_method
from diffpolicy.objectives import AgentsDQNLoss
from diffpolicy.training import PackedReplay
from diffpolicy.training.stream import pass_seed

# The replay keeps float32


def rows(value, dtype=torch.float64, valid=None):
    x = torch.zeros(4, 2, dtype=dtype)
    x[1, 1] = value
    extra = {} if valid is None else {"valid": torch.tensor(valid)}
    return TensorDict({"observation": x, "action": torch.zeros(4, dtype=torch.int64), **extra}, [4])


@pytest.mark.parametrize("value", [1e300, -1e39])
@pytest.mark.parametrize("later", [False, True])
def test_a_number_that_float32_cannot_hold_is_refused_and_nothing_is_kept(value, later):
    replay = PackedReplay(10, None)
    if later:
        replay.extend(rows(1.0))
    with pytest.raises(InputError, match=rf"'observation' holds {value:g}".replace("+", r"\+")):
        replay.extend(rows(value))
    assert len(replay) == (4 if later else 0)
    replay.extend(rows(3e38))


def test_a_number_of_a_row_that_is_not_taken_means_nothing():
    replay = PackedReplay(10, None)
    replay.extend(rows(1e300, valid=[True, False, True, True]))
    assert len(replay) == 3
    assert replay.sample(50)["observation"].isfinite().all()


# A method's YAML

YAML = "class_path: DiffusionSACMethod\ninit_args:\n  learning_rates: {actor: 1e-3, critic: 0.001, alpha: 0.001}\n"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("updates: 1e9", "updates must be a whole number, got '1e9'"),
        ("updates: 1.5", r"updates must be a whole number, got 1\.5"),
        ("hidden: foo", "hidden must be a list .*, got 'foo'"),
        ("hidden: [a]", r"hidden must be a list whose entries are each a whole number, got \['a'\]"),
        ("gamma: x", "gamma must be a number, got 'x'"),
        ("masks: 2", "masks must be true or false, or null, got 2"),
        ("schedule: 3", "schedule must be a string, got 3"),
        ("sampler_steps: x", "sampler_steps must be a whole number, or null, got 'x'"),
        ("denoiser_output: foo", "denoiser_output must be one of softmax, tanh, linear, got 'foo'"),
        ("prior: 3", "prior must be an object, got 3"),
        ("prior: {}", "prior must have a 'type'"),
        (
            "prior: {type: X}",
            "prior must be one of GaussianPrior, ActionMemory, NetworkPrior, or module:Class, got 'X'",
        ),
        ("prior: {type: GaussianPrior, a: 1}", "prior GaussianPrior has no 'a'"),
        ("prior: {type: ActionMemory, key: a b}", r"ActionMemory\.key must be item or step-item, got 'a b'"),
        ("prior: {type: ActionMemory, key: [1]}", r"ActionMemory\.key must be item or step-item"),
        ("start_after: " + "9" * 6000, "thousands of digits"),
    ],
)
def test_a_value_of_another_type_is_refused_by_file_key_and_value_in_our_words(line, says, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(YAML + f"  {line}\n")
    with pytest.raises(InputError, match=rf"mine\.yaml.*{says}") as error:
        make_method(str(path))
    assert not any(word in str(error.value) for word in ("Parser", "<class", "typing", "set_int", "\n"))


def test_what_a_file_may_say_in_texts_is_still_read():
    method = parse_method(YAML + "  updates: '5'\n  gamma: 9e-1\n  prior: {type: ActionMemory, key: task}\n", "m.yaml")
    assert (method.updates, method.gamma) == (5, 0.9)


@pytest.mark.parametrize("text", ["[%s]", '{"a": {"b": -%s}}'])
def test_a_number_of_thousands_of_digits_is_refused_in_our_words(text, tmp_path):
    path = tmp_path / "x.json"
    path.write_text(text % ("7" * 6000))
    with pytest.raises(InputError, match=r"file .*x\.json holds a number of 600[01] digits, -?7+\.\.\.$"):
        check.read_json(path, "file")
    with pytest.raises(InputError, match=r"x\.yaml is not YAML: a number has thousands of digits$"):
        _yaml.parse("a: " + "7" * 6000, "x.yaml")


# What a comparison takes up again


@pytest.fixture
def job(tmp_path):
    problem = OffloadingProblem(Scenario.load("lad-ts"))
    return jobs_of(Plan(problem, ["sac-ts"], tmp_path, episodes=2, seconds=None, resume=True), time.monotonic())[0]


def test_an_outcome_of_many_passes_is_taken_up(job):
    row = {"episode": 123456, job.problem.cost.column: 3.0123456789012345, "critic_loss": 0.1234567890123456789, "x": 1}
    data = {"job": job.identity(), "finished": True, "train_seconds": 1.0, "history": [row] * 200_000}
    job.out.mkdir(parents=True)
    (job.out / "outcome.json").write_text(json.dumps(data))
    assert (job.out / "outcome.json").stat().st_size > 16 * 2**20
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(recorded(job)["history"]) == 200_000


def test_what_cannot_be_taken_up_is_never_trained_again_without_a_word(job):
    job.out.mkdir(parents=True)
    assert recorded(job) is None
    for text in ("{", json.dumps({"job": job.identity(), "finished": "yes"})):
        (job.out / "outcome.json").write_text(text)
        with pytest.warns(UserWarning, match=r"outcome\.json.*sac-ts, seed 0 is trained again"):
            assert recorded(job) is None
    (job.out / "checkpoint.ckpt").write_bytes(b"PK")
    with pytest.warns(UserWarning, match=r"checkpoint\.ckpt.*sac-ts, seed 0 is trained from the beginning"):
        assert unfinished(job, None) is None


# Numbers that are none, or none that anything has


@pytest.mark.parametrize("value", [1e-320, 1e-13, 1e13, 1e308])
@pytest.mark.parametrize("key", ["capacity_gcycles_per_s", "rate_mbit_per_s", "slot_s"])
def test_a_scenarios_value_under_which_no_delay_is_a_number_is_refused_by_key_and_value(key, value):
    data = Scenario.load("lad-ts").to_dict()
    (data if key == "slot_s" else data["servers"][1])[key] = value
    named = key if key == "slot_s" else rf"servers\[1\]\.{key}"
    with pytest.raises(InputError, match=rf"{named} must be at (least 1e-12|most 1e\+12), got "):
        Scenario.from_dict(data)


def test_a_run_with_a_hyperparameter_that_is_no_number_is_the_same_run():
    check_same({"a": math.nan, "b": [1, math.nan]}, json.loads('{"a": NaN, "b": [1, NaN]}'), "it")
    for other in (1.0, None, "nan"):
        with pytest.raises(InputError, match="a nan"):
            check_same({"a": math.nan}, {"a": other}, "it")


def test_one_derivation_of_seeds_gives_what_each_part_had():
    sequence = np.random.SeedSequence(7, spawn_key=(1, 5))
    assert pass_seed(7, 5) == derived(7, 1, 5) == int(sequence.generate_state(1)[0])
    assert episode_seed(7, 1, 5) == int(sequence.generate_state(1)[0]) % 2**31
    assert derived(7, 1, 5, bits=64) == int(sequence.generate_state(1, np.uint64)[0])


# What an update of DQN looks at


def test_dqn_checks_rows_once_for_each_shape(monkeypatch):
    policy = GreedyValuePolicy(choices=3, observation_dim=2)
    loss = AgentsDQNLoss(policy)
    seen = []
    monkeypatch.setattr(loss, "check_rows", lambda td: seen.append(td.batch_size))

    def batch(n):
        return TensorDict(
            observation=torch.zeros(n, 2),
            action=torch.zeros(n, dtype=torch.int64),
            reward=torch.zeros(n),
            next=TensorDict(observation=torch.zeros(n, 2), batch_size=[n]),
            batch_size=[n],
        )

    for n in (4, 4, 5, 5, 4):
        loss(batch(n))
    assert seen == [torch.Size([n]) for n in (4, 5, 4)]
    masked = batch(4)
    masked["next", "action_mask"] = torch.tensor([True, False, True]).expand(4, 3)
    loss(masked)
    assert len(seen) == 4


def test_rows_that_lose_a_key_between_updates_are_still_refused():
    loss = AgentsDQNLoss(GreedyValuePolicy(choices=3, observation_dim=2))
    td = TensorDict(
        observation=torch.zeros(4, 2),
        action=torch.zeros(4, dtype=torch.int64),
        reward=torch.zeros(4),
        next=TensorDict(observation=torch.zeros(4, 2), batch_size=[4]),
        batch_size=[4],
    )
    loss(td)
    with pytest.raises(InputError, match="'observation'"):
        loss(td.exclude(("next", "observation")))
