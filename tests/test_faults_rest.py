"""What was left of the faults: names that modules hide, numbers that are none, bounds that files choose."""

import json
import os
import struct
import subprocess
import sys
from importlib import import_module

import pytest
import safetensors.torch
import torch
from tensordict import TensorDict

from diffpolicy import DiffusionPolicy, FeedforwardPolicy, GaussianPrior, InputError
from diffpolicy.diffusion import MaskedProcess, UniformProcess
from diffpolicy.edge import FleetPolicy, OffloadingEnv, OffloadingProblem, Scenario
from diffpolicy.edge.env import request_sources
from diffpolicy.edge.hardware.models.checkpoints import check_source, count_checkpoint
from diffpolicy.edge.resolve import make_policy
from diffpolicy.environments.data_file import read_data
from diffpolicy.experiments.method_names import make_method
from diffpolicy.experiments.plan import Job, Plan
from diffpolicy.experiments.work import finished
from diffpolicy.networks import CriticEnsemble
from diffpolicy.objectives import QVPOLoss, action_critic
from diffpolicy.policies import BestOf, ClassifierFree
from diffpolicy.policies.heads import TokenHead
from diffpolicy.training import PackedReplay
from fuzz_mutations import with_digest
from toys import small

NAMES = """
import sys
for first in ("import diffpolicy.training.fit", "from diffpolicy.training.fit import Fitted", ""):
    for name in [name for name in sys.modules if name.startswith("diffpolicy")]:
        del sys.modules[name]  # as if nothing had been imported yet
    exec(first)
    from diffpolicy.training import fit
    assert callable(fit), (first, fit)
    from diffpolicy.training.fit import fit as same
    assert fit is same, first
"""


def test_a_name_is_its_object_although_its_module_bears_the_name_too():
    subprocess.run([sys.executable, "-c", NAMES], check=True, timeout=120)


def test_every_public_name_is_what_its_module_defines():
    for package in ("diffpolicy", "diffpolicy.training", "diffpolicy.edge", "diffpolicy.edge.hardware"):
        module = import_module(package)
        for name in module.__all__:
            for sub in ("fit", "play", "compare", "profile", "calibrate"):
                if name == sub:
                    assert callable(getattr(module, name)), (package, name)


# Numbers that are none


TOKENS, LEAPS = TokenHead(nvec=(3,), single=True), UniformProcess(2)


def policies():
    return [
        DiffusionPolicy(choices=3, observation_dim=2, steps=2, prior=GaussianPrior()),
        FeedforwardPolicy(choices=3, observation_dim=2),
        *(DiffusionPolicy(choices=3, observation_dim=2, schedule=p, head=TOKENS) for p in (MaskedProcess(2), LEAPS)),
    ]


def test_a_policy_whose_parameters_are_not_finite_is_not_obeyed():
    for policy in policies():
        with torch.no_grad():
            next(policy.parameters()).view(-1)[0] = float("nan")
        policy.eval()
        with pytest.raises(InputError, match=r"not finite.*its parameter"):
            policy(TensorDict(observation=torch.rand(5, 2), batch_size=[5]))


def test_a_critic_that_gives_no_number_and_guidance_without_bounds_choose_nothing():
    seen, critic = TensorDict(observation=torch.rand(5, 2), batch_size=[5]), CriticEnsemble(2, 3)
    with torch.no_grad():
        next(critic.parameters()).fill_(float("nan"))
    with pytest.raises(InputError, match=r"the critic's value is not finite at \[0\]: its parameter"):
        policies()[0].with_guidance(BestOf(critic, draws=4, reads="state"))(seen)
    for options in ({}, {"schedule": MaskedProcess(2), "head": TOKENS}):
        policy = DiffusionPolicy(choices=3, observation_dim=2, condition_drop=0.5, **options)
        with pytest.raises(InputError, match=r"output is not finite at \[0\]"):
            policy.with_guidance(ClassifierFree(1e300))(seen)


def test_draws_that_are_weighed_have_a_bound_and_a_device_is_no_data_set():
    with pytest.raises(InputError, match="draws must be at most 100000"):
        BestOf(CriticEnsemble(2, 3), draws=10**11)
    policy = policies()[1]
    for name in ("samples", "next_samples"):
        with pytest.raises(InputError, match=f"{name} must be at most 100000"):
            QVPOLoss(policy, action_critic(policy), **{name: 10**11})
    with pytest.raises(InputError, match="is a device"):
        read_data(os.devnull)


def test_a_policy_file_whose_tensors_are_not_finite_is_refused_by_name(tmp_path):
    folder = policies()[0].save(tmp_path / "p")
    tensors = safetensors.torch.load_file(folder / "policy.safetensors")
    name = next(k for k, v in tensors.items() if v.is_floating_point())
    tensors[name].view(-1)[0] = float("inf")
    data = safetensors.torch.save(tensors)
    (folder / "policy.safetensors").write_bytes(data)
    described = (folder / "policy.json").read_bytes()
    (folder / "policy.json").write_bytes(with_digest(described, "tensors_sha256", data))
    with pytest.raises(InputError, match=f"tensor '{name}' holds inf at"):
        DiffusionPolicy.load(folder)


def test_rows_that_do_not_exist_may_be_anything():
    policy = DiffusionPolicy(choices=3, observation_dim=2, steps=2, agents=2, action_key=("agents", "action"),
        observation_keys=[("agents", "observation")], valid_key=("agents", "valid"), prior=GaussianPrior())  # fmt: skip
    valid = torch.tensor([[[True, True], [False, False]]])
    seen = torch.rand(1, 2, 2, 2).masked_fill(~valid.unsqueeze(-1), float("nan"))
    td = TensorDict(agents=TensorDict(observation=seen, valid=valid, batch_size=[1]), batch_size=[1])
    assert policy(td)["agents", "action"].shape == (1, 2, 2)


@pytest.mark.parametrize("name", ["opt-ts", "price", "slot-greedy", "pretrained:live"])
def test_rules_and_fleet_policies_refuse_an_observation_that_is_not_finite(name):
    scenario = small(2, 3, 3)
    policy = make_policy(name, scenario)
    env = OffloadingEnv(scenario, 1, information="live")
    td = env.reset()
    policy(td.clone())
    td["queue_gcycles"][0, 1] = float("nan")
    with pytest.raises(InputError, match=r"'queue_gcycles' holds nan at \[0, 1\]"):
        policy(td)


def test_a_fleet_policy_whose_parameters_are_not_finite_is_not_obeyed():
    scenario = small(2, 3, 3)
    policy = FleetPolicy().for_scenario(scenario)
    with torch.no_grad():
        next(policy.parameters()).fill_(float("nan"))
    with pytest.raises(InputError, match="parameters are not"):
        policy(OffloadingEnv(scenario, 1, information="live").reset())


@pytest.mark.parametrize("widths", [[None], ["2"], [True], [0], 2, [2.5]])
def test_widths_of_observations_are_whole_numbers(widths):
    with pytest.raises(InputError, match="observation_widths"):
        DiffusionPolicy(choices=3, observation_dim=2, observation_widths=widths)


# Whole numbers in the replay


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_the_replay_keeps_whole_numbers_exactly_or_refuses_them(dtype):
    replay = PackedReplay(8, None)
    for value in (2**24, -(2**24)):
        replay.extend(TensorDict(x=torch.full((4,), value, dtype=dtype), batch_size=[4]))
    assert set(replay.sample(64)["x"].tolist()) <= {2**24, -(2**24)}
    for value in (2**24 + 1, -(2**24) - 1):
        with pytest.raises(InputError, match=r"'x' holds -?16,777,217"):
            replay.extend(TensorDict(x=torch.tensor([0, value], dtype=dtype), batch_size=[2]))


# Bounds


def test_the_header_of_a_weights_file_is_bounded(tmp_path):
    folder = tmp_path / "unet"
    folder.mkdir()
    for data in (
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        struct.pack("<Q", 30) + b'{"a":{"shape":"xy"}}',
        struct.pack("<Q", 22) + b'{"a":{"shape":[-1,2]}}',
        b"abc",
    ):
        (folder / "model.safetensors").write_bytes(data)
        with pytest.raises(InputError, match="weights file"):
            count_checkpoint(str(tmp_path))
    header = b'{"a":{"shape":[3,2]}}'
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    assert count_checkpoint(str(tmp_path)) == {"unet": 6}


def test_an_empty_name_is_not_the_working_folder(tmp_path, monkeypatch):
    policies()[0].save(tmp_path)
    (tmp_path / "model_index.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    for read in (lambda: make_policy("", small(2, 3, 3)), lambda: make_method(""), lambda: check_source(""),
                 lambda: Scenario.load("")):  # fmt: skip
        with pytest.raises(InputError, match="''"):
            read()


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf"), 1e300])
def test_the_time_of_a_comparison_is_bounded(seconds, tmp_path):
    with pytest.raises(InputError, match="seconds"):
        Plan(OffloadingProblem(small(2, 3, 3)), ["lad-ts"], tmp_path, seconds=seconds)


@pytest.mark.parametrize(
    "damage",
    [
        {"finished": None},
        {"train_seconds": "x"},
        {"train_seconds": True},
        {"history": {}},
        {"history": [1]},
        {"history": [{"episode": 1.0, "delay_s": "x"}]},
        {"history": [{"episode": 1.0}]},
        "finished",
        "history",
        "train_seconds",
    ],
)
def test_a_damaged_outcome_file_says_nothing(damage, tmp_path):
    job = Job("lad-ts", OffloadingProblem(small(2, 3, 3)), 1, 0, 0, trained=True, episodes=1, out=tmp_path)
    data = {
        "job": job.identity(),
        "finished": True,
        "train_seconds": 1.0,
        "history": [{"episode": 1.0, "delay_s": 1.0}],
    }
    data = {k: v for k, v in data.items() if k != damage} if isinstance(damage, str) else data | damage
    (tmp_path / "outcome.json").write_text(json.dumps(data))
    assert finished(job) is None


def test_the_requests_that_a_source_keeps_are_bounded_by_their_numbers(monkeypatch):
    scenario = Scenario.load("gpu-mix")
    monkeypatch.setattr(request_sources, "KEPT", 3 * (scenario.slots + 1) * 100)
    drawn = []
    env = OffloadingEnv(scenario, 2)
    source = env.source
    draw = type(source.workload).draw
    monkeypatch.setattr(
        type(source.workload),
        "draw",
        lambda self, seed, stream, k, *rest: drawn.append(k) or draw(self, seed, stream, k, *rest),
    )
    for k in range(0, 40, 2):
        source.slot([k, k + 1], [0, 0])
        source.slot([k, k + 1], [1, 1])
    assert drawn == list(range(40))  # what is played is never drawn twice
    assert len(source._drawn) < 20


def test_a_method_s_message_is_one_line_of_bounded_length(tmp_path):
    path = tmp_path / "method.yaml"
    for value in ("[" + "a, " * 5000 + "b]", '"' + "x\\n" * 5000 + '"', "9" * 400, "1" + "0" * 4000):
        path.write_text(f"class_path: diffpolicy.training.methods.DQNMethod\ninit_args:\n  gamma: {value}\n")
        with pytest.raises(InputError) as refused:
            make_method(str(path))
        assert len(str(refused.value)) < 2000
        assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    "words", [["compare", "--out", ""], ["train", "lad-ts", "--episodes=1", "--out="], ["evaluate", ""]]
)
def test_an_empty_word_writes_nothing_into_the_working_folder(words, tmp_path, monkeypatch, capsys):
    from diffpolicy.cli.main import main

    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert "''" in capsys.readouterr().err
    assert not os.listdir(tmp_path)
