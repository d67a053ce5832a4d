"""Training in two processes on the CPU: other episodes each, the same parameters, and resumed bit for bit."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from diffpolicy import FeedforwardPolicy, InputError
from diffpolicy.edge import OffloadingEnv, Stream
from diffpolicy.networks import CriticEnsemble
from diffpolicy.objectives import LatentDiscreteSACLoss
from diffpolicy.training import OffPolicyModule, PackedReplay, RolloutStream, distributed
from toys import GuessEnv, guess_transitions, quick_method, small

SCENARIO = small(3, 5, 6)
SCRIPT = """
import sys
from diffpolicy.edge import Scenario
from diffpolicy.edge.training import build
from diffpolicy.training.fit import fit

method, scenario, out, episodes, *resume = sys.argv[1:]
module = build(method, Scenario.load(scenario))
fitted = fit(module, episodes=int(episodes), devices=2, out=out, resume=resume[0] if resume else None)
rank = module.trainer.global_rank
row = {
    "parameters": [float(p.double().sum()) for p in module.objective.parameters()],
    "replay": float(module.replay.data.double().sum()),
    "norm": module.policy.normalizer.mean.tolist(),
    "episodes": module.episodes,
    "history": module.history,
}
import json, pathlib
pathlib.Path(out, f"rank{rank}.json").write_text(json.dumps(row))
"""


def run(tmp_path, out, episodes, *resume):
    """Both processes' reports."""
    script, scenario = tmp_path / "script.py", tmp_path / "scenario.json"
    script.write_text(SCRIPT)
    scenario.write_text(json.dumps(SCENARIO.to_dict()))
    method = quick_method("lad-ts-plus", tmp_path)
    (tmp_path / out).mkdir()
    words = [sys.executable, script, method, scenario, tmp_path / out, episodes, *resume]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [json.loads((tmp_path / out / f"rank{k}.json").read_text()) for k in range(2)]


@pytest.mark.slow
def test_two_processes_learn_one_policy_from_their_own_episodes_and_resume(tmp_path):
    """Five runs of two processes: each has its own episodes, both the same policy, and a resumed run the same bits."""
    first, second = run(tmp_path, "whole", 8)
    assert first["parameters"] == second["parameters"]
    assert first["norm"] == second["norm"]
    assert first["replay"] != second["replay"]
    assert first["episodes"] == second["episodes"] == 8
    assert first["history"] == second["history"]
    assert "loss_actor" in first["history"][-1]
    run(tmp_path, "half", 4)
    data = torch.load(tmp_path / "half" / "checkpoint.ckpt", weights_only=True)
    assert len(data["diffpolicy"]["processes"]) == 2
    resumed = run(tmp_path, "resumed", 8, tmp_path / "half" / "checkpoint.ckpt")
    assert resumed == [first, second]


def test_processes_share_the_episodes_out():
    def arrivals(env, episodes):
        for _ in range(episodes):
            yield from env.reset()["agents", "input_mbit"]

    alone = OffloadingEnv(SCENARIO, [2], stream=Stream.TRAINING)
    shares = [OffloadingEnv(SCENARIO, [1], stream=Stream.TRAINING) for _ in range(2)]
    for rank, env in enumerate(shares):
        env.shard(rank, 2)
    together = list(arrivals(alone, 3))
    apart = [x for pair in zip(*(arrivals(env, 3) for env in shares), strict=True) for x in pair]
    assert all(torch.equal(a, b) for a, b in zip(together, apart, strict=True))


def test_an_environment_that_cannot_share_its_episodes_is_refused():
    stream = RolloutStream(GuessEnv(), None, episode_steps=5)
    with pytest.raises(InputError, match="GuessEnv"):
        stream.shard(0, 2)


def test_a_process_alone_tells_itself():
    x = torch.arange(3.0)
    assert distributed.processes() == 1
    assert torch.equal(distributed.summed(x), x)
    assert distributed.gathered_objects("x") == ["x"]


@pytest.mark.slow
def test_the_command_line_trains_in_two_processes(tmp_path):
    """`--devices 2` as a user types it; what the two share out is tested here, each importing everything again."""
    words = ["train", "sac-ts", "--stations", "3", "--tasks", "4", "--slots", "4", "--episodes", "4", "--devices", "2"]
    command = [sys.executable, "-m", "diffpolicy", *words, "--out", str(tmp_path / "out"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["episodes"] == 4
    assert Path(tmp_path / "out" / "policy.json").is_file()


def test_no_two_generators_of_a_run_draw_the_same(monkeypatch):
    """Also where a policy and its replay were given one seed, and seeds of two words."""
    first = []
    for seed in (0, 2**32):
        for rank in range(3):
            env = GuessEnv(2)
            policy = FeedforwardPolicy.from_specs(env, seed=seed)
            module = OffPolicyModule(
                policy,
                LatentDiscreteSACLoss(policy, CriticEnsemble(3, 3)),
                RolloutStream(env, policy, episode_steps=5),
                PackedReplay(50, None, seed),
                guess_transitions,
                learning_rates={"actor": 1e-3, "critic": 1e-3, "alpha": 1e-3},
            )
            monkeypatch.setattr(module.stream, "shard", lambda rank, world: None)
            monkeypatch.setattr(module, "_trainer", SimpleNamespace(global_rank=rank, world_size=3))
            module.setup("fit")
            first += [float(torch.rand((), generator=g)) for g in (policy.generator, module.replay.generator)]
    assert len(set(first)) == len(first) == 12
