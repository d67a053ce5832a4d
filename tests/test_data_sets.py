"""Learning from a data set on disk: what is read, what is refused in one sentence, and that it learns and resumes."""

import dataclasses
import io
import json
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from tensordict import TensorDict
from torchrl.data import Bounded, Composite, Unbounded
from torchrl.envs import EnvBase

from diffpolicy import FeedforwardPolicy, InputError, _limits
from diffpolicy.edge import OffloadingEnv
from diffpolicy.environments import EnvProblem, RandomRule, read_data, rows_of
from diffpolicy.evaluation import evaluate
from diffpolicy.experiments import make_method, train
from diffpolicy.methods.imitation import imitation_loss
from diffpolicy.policies.specs import keys_of
from diffpolicy.problems import Clinic
from diffpolicy.training import OfflineModule, fit
from test_keys import Specs
from toys import GuessEnv, same_tensors, small


def longest(td):
    return td.set("action", td["observation"].argmax(-1))


CLINIC = EnvProblem(Clinic, steps=50, rules={"longest": longest})


def decisions(count=2000, seed=1):
    """Of the rule of the longest queue, in the clinic's own play."""
    env = Clinic(8, seed=seed)
    rollout = env.rollout(count // 8, lambda td: longest(td), break_when_any_done=False)
    return rollout.reshape(-1)


def written(kind, tmp_path, rows):
    """A file of rows. Args: kind: what it ends in; `memmap`: a folder."""
    path = tmp_path / f"data{'' if kind == 'memmap' else kind}"
    if kind == "memmap":
        rows.memmap(path)
        return path
    names = {"observation": rows["observation"], "action": rows["action"], "mask": rows["action_mask"]}
    names |= {"reward": rows["next", "reward"], "terminated": rows["next", "terminated"]}
    names |= {"next.observation": rows["next", "observation"], "next_mask": rows["next", "action_mask"]}
    if kind == ".npz":
        np.savez(path, **{key: value.numpy() for key, value in names.items()})
    elif kind == ".safetensors":
        safetensors.torch.save_file({key: value.contiguous() for key, value in names.items()}, path)
    else:
        head = [f"observation_{k}" for k in range(3)] + ["action"] + [f"mask_{k}" for k in range(3)] + ["propensity"]
        mask = rows["action_mask"].int().tolist()
        columns = zip(rows["observation"].tolist(), rows["action"].tolist(), mask, strict=True)
        lines = [[*seen, action, *may, 1.0] for seen, action, may in columns]
        path.write_text("\n".join(",".join(map(str, line)) for line in [head, *lines]))
    return path


@pytest.mark.parametrize("kind", ["memmap", ".npz", ".safetensors", ".csv"])
def test_each_form_holds_the_same_rows(kind, tmp_path):
    rows, env = decisions(80), Clinic(1)
    policy = FeedforwardPolicy.from_specs(env)
    found = rows_of(policy, read_data(written(kind, tmp_path, rows)), keys_of(policy, env), values=kind != ".csv")
    assert found.batch_size == (80,)
    assert torch.equal(found["action"], rows["action"])
    assert torch.equal(found["action_mask"], rows["action_mask"])
    assert torch.allclose(found["observation"], rows["observation"])
    if kind != ".csv":
        assert torch.equal(found["reward"], rows["next", "reward"].squeeze(-1))
        assert torch.allclose(found["next", "observation"], rows["next", "observation"])


def test_imitation_of_two_thousand_decisions_agrees_with_the_rule_on_other_states(tmp_path):
    path = written(".npz", tmp_path, decisions())
    changes = {"hidden": [64], "batch_size": 64, "learning_rates": {"actor": 1e-2}}
    policy = train(CLINIC, "bc", data=path, episodes=6, changes=changes).policy.eval()
    held_out = decisions(seed=9)
    with torch.no_grad():
        decided = policy(held_out.select("observation", "action_mask"))["action"]
    assert (decided == longest(held_out.clone())["action"]).float().mean() > 0.95


class Aim(EnvBase):
    """One step: the reward is minus the square of the action's distance from what is shown."""

    def __init__(self, batch, seed=0):
        super().__init__(batch_size=[batch])
        self.observation_spec = Composite(observation=Unbounded((batch, 1)), shape=(batch,))
        self.action_spec, self.reward_spec = Bounded(-1.0, 1.0, (batch, 1)), Unbounded((batch, 1))
        self._set_seed(seed)

    def _now(self, over):
        seen = 0.8 * (2 * torch.rand(*self.batch_size, 1, generator=self.draws) - 1)
        ends = torch.full((*self.batch_size, 1), over)
        return TensorDict({"observation": seen, "done": ends, "terminated": ends.clone()}, self.batch_size)

    def _reset(self, tensordict=None, **_):
        return self._now(over=False)

    def _step(self, td):
        return self._now(over=True).set("reward", -(td["action"] - td["observation"]).square())

    def _set_seed(self, seed):
        self.draws = torch.Generator().manual_seed(seed or 0)


def test_offline_flow_q_learning_is_better_than_who_played():
    """Who played knew the aim but for noise of 0.5, so that the mean of what he did is known, and so is its cost."""
    draws = torch.Generator().manual_seed(0)
    seen = 0.8 * (2 * torch.rand(2000, 1, generator=draws) - 1)
    action = (seen + 0.5 * torch.randn(2000, 1, generator=draws)).clamp(-1, 1)
    reward = -(action - seen).square()
    nxt = {"observation": seen, "terminated": torch.ones(2000, 1, dtype=torch.bool)}
    data = TensorDict({"observation": seen, "action": action, "reward": reward, "next": nxt}, [2000])
    rates = {"actor": 1e-3, "critic": 1e-2, "flow": 3e-3}
    changes = {"hidden": [32], "batch_size": 128, "learning_rates": rates, "reward_scale": 1.0, "steps": 4}
    problem = EnvProblem(Aim, steps=1)
    run = train(problem, "fql", data=data, episodes=12, changes=changes)
    cost = evaluate(problem, {"fql": run.policy}, episodes=64).results["fql"].costs.mean
    assert cost < 0.5 * float(-reward.mean())


@pytest.mark.parametrize("name", ["bc", "bc-plain"])
def test_it_resumes_bitwise_and_on_no_other_data(name, tmp_path):
    data = decisions(200)
    shared = {"changes": {"hidden": [8], "batch_size": 32}, "data": data}
    whole = train(CLINIC, name, episodes=4, out=tmp_path / "whole", **shared)
    train(CLINIC, name, episodes=2, out=tmp_path / "half", **shared)
    resumed = train(CLINIC, name, episodes=4, out=tmp_path / "half", resume=tmp_path / "half", **shared)
    assert resumed.history == whole.history
    assert same_tensors(resumed.policy, whole.policy)
    other = data.clone()
    other["observation"][0] += 1
    with pytest.raises(InputError, match="data"):
        train(CLINIC, name, episodes=5, out=tmp_path / "half", resume=tmp_path / "half", **{**shared, "data": other})


def test_agents_learn_from_rows_of_all_of_them():
    env = GuessEnv(4, 2, mask=True)
    problem = EnvProblem(lambda batch, seed: GuessEnv(batch, 2, mask=True), steps=5)
    rollout = env.rollout(5, RandomRule(env), break_when_any_done=False)
    method = dataclasses.replace(make_method("bc"), hidden=[8], batch_size=8)
    module = method.build_from(problem, rollout.reshape(-1))
    assert module.__dict__["rows"].batch_size == (2, 20)
    with pytest.raises(InputError, match="and the problem has 2 agents"):
        method.build_from(problem, GuessEnv(4, 3, mask=True).rollout(5).reshape(-1))


def test_steps_after_a_lanes_end_are_not_learned(tmp_path):
    rows, counted = decisions(40).exclude("terminated"), torch.arange(40) % 5 < 3
    rows["counted"] = counted
    for key in ("observation", "action", ("next", "reward"), ("next", "observation")):  # whatever stands there
        rows[key][~counted] = 99 if key == "action" else float("nan")
    rows["action_mask"][~counted] = False
    rows.memmap(tmp_path / "folder")
    names = {".".join((key,) if isinstance(key, str) else key): rows[key] for key in rows.keys(True, True)}
    np.savez(tmp_path / "file.npz", **{key: value.numpy() for key, value in names.items()})
    env = Clinic(1)
    policy = FeedforwardPolicy.from_specs(env)
    for data in (rows, read_data(tmp_path / "folder"), read_data(tmp_path / "file.npz")):
        found = rows_of(policy, data, keys_of(policy, env), values=True)
        assert found.batch_size == (24,)
        assert torch.equal(found["action"], rows["action"][counted])
        assert torch.equal(found["reward"], rows["next", "reward"][counted].squeeze(-1))
        assert "valid" not in found.keys()
    rows["counted"] = torch.zeros(40, dtype=torch.bool)
    with pytest.raises(InputError, match="holds no existing row: all are false under 'valid' or 'counted'"):
        rows_of(policy, rows, keys_of(policy, env), values=True)


@pytest.mark.parametrize("shared", [False, True])
def test_tasks_that_do_not_exist_are_not_learned(shared):
    env = OffloadingEnv(small(3, 5, 4), [1], dtype=torch.float32)
    data = env.rollout(4, RandomRule(env)).reshape(-1)
    valid = data["agents", "valid"]
    assert not valid.all()

    def learned(data):
        policy = FeedforwardPolicy.from_specs(env, share_parameters=shared, normalize=True, hidden=[4])
        rows = rows_of(policy, data, keys_of(policy, env), values=False)
        module = OfflineModule(policy, imitation_loss(policy), rows, learning_rates={"actor": 0.1}, batch_size=8)
        fit(module, episodes=2)
        return rows, module

    rows, module = learned(data)
    if shared:
        assert rows.batch_size == (int(valid.sum()),)
    else:
        assert torch.equal(rows["valid"].sum(-1), valid.transpose(0, 1).flatten(1).sum(-1))
    other = data.clone()
    other["agents", "action"][~valid] = -7
    other["agents", "observation"][~valid] = float("nan")
    _, again = learned(other)
    assert again.history == module.history
    assert same_tensors(again.policy, module.policy)
    joint = FeedforwardPolicy.from_specs(env, items="joint", share_parameters=shared)
    with pytest.raises(InputError, match="cannot be learned from where items are joint and may be missing"):
        rows_of(joint, data, keys_of(joint, env), values=False)
    data["agents", "valid"][:, 1] = False
    if not shared:
        with pytest.raises(InputError, match="holds no existing row for agent 1"):
            learned(data)


def test_a_module_made_by_hand_resumes_on_no_other_rows(tmp_path):
    def module(shift):
        policy = FeedforwardPolicy.from_specs(Clinic(1, masked=False))
        seen = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
        rows = TensorDict({"observation": seen, "action": (seen.argmax(-1) + shift) % 3}, [20])
        return OfflineModule(policy, imitation_loss(policy), rows, learning_rates={"actor": 0.01})

    fit(module(0), episodes=1, out=tmp_path)
    assert fit(module(0), episodes=2, out=tmp_path, resume=tmp_path / "checkpoint.ckpt").episodes == 2
    with pytest.raises(InputError, match="data"):
        fit(module(1), episodes=3, out=tmp_path, resume=tmp_path / "checkpoint.ckpt")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"observations": 2}, "holds both 'observation' and 'observations', which mean the same; leave one out"),
        ({"next": 1, "next.observation": 2}, "holds 'next' as an array, and 'next.observation' within it"),
        ({"a..b": 1}, "holds the array 'a..b', whose name has an empty part between dots or slashes"),
        ({"/b": 1}, "holds the array '/b', whose name has an empty part"),
    ],
)
def test_arrays_that_have_no_place_of_their_own_get_a_sentence(arrays, words, tmp_path):
    given = {"observation": 2, "action": 1, **arrays}
    np.savez(tmp_path / "data.npz", **{key: np.zeros((5, 3)[:ndim]) for key, ndim in given.items()})
    with pytest.raises(InputError, match=rf"data.npz {words}"):
        read_data(tmp_path / "data.npz")


def test_an_array_of_objects_is_not_unpickled_and_that_is_said(tmp_path):
    np.savez(tmp_path / "data.npz", observation=np.array([None] * 1000, dtype=object), action=np.zeros(1000, int))
    with pytest.raises(InputError, match=r"array 'observation' must hold numbers, .* objects, which are not unpickled"):
        read_data(tmp_path / "data.npz")


def test_an_array_beyond_all_bounds_is_not_read(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "data.npz", observation=np.zeros((50, 3)), action=np.zeros(50, int))
    monkeypatch.setattr(_limits, "REPLAYED", 100)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(InputError, match=r"array 'observation' must have at most 100 numbers, got \[50, 3\]"):
        read_data(tmp_path / "data.npz")


def test_what_a_file_says_of_its_size_is_compared_with_the_file_and_with_memory_before_it_is_taken(
    tmp_path, monkeypatch
):
    """NumPy takes all memory that a header asks for before it looks whether the numbers are there."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (2**33,)})
    with zipfile.ZipFile(tmp_path / "told.npz", "w") as packed:
        packed.writestr("observation.npy", file.getvalue() + bytes(80))
    np.savez_compressed(tmp_path / "packed.npz", observation=np.zeros((50, 3)), action=np.zeros(50, int))
    safetensors.torch.save_file({"observation": torch.zeros(50, 3)}, tmp_path / "data.safetensors")
    decisions().memmap(tmp_path / "folder")
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(InputError, match=r"array 'observation' cannot be read: it holds less than the \[8589934592\]"):
        read_data(tmp_path / "told.npz")
    monkeypatch.setattr("diffpolicy._memory.free_bytes", lambda: 100)
    for name in ("packed.npz", "data.safetensors", "folder"):
        with pytest.raises(InputError, match=rf"{name}.* would take 0.0 GiB of memory, and 0.0 GiB are free"):
            read_data(tmp_path / name)


def test_complex_numbers_other_flags_and_two_rewards_get_a_sentence(tmp_path):
    np.savez(tmp_path / "data.npz", observation=np.zeros((5, 3), np.complex64), action=np.zeros(5, int))
    with pytest.raises(InputError, match="holds complex numbers in 'observation'"):
        read_data(tmp_path / "data.npz")
    env = Clinic(1)
    policy = FeedforwardPolicy.from_specs(env)
    ended = ("next", "terminated")
    twice = decisions(80).set("reward", torch.zeros(80, 1)).set(("next", "reward"), torch.zeros(80, 1))
    rows_of(policy, twice, keys_of(policy, env), values=True)
    twice["next", "reward"][3] = -2
    for data, words in (
        (broken("observation", lambda x: x.to(torch.complex64)), "holds complex numbers in 'observation'"),
        (broken(ended, lambda x: x + 1.5), r"holds 1.5 in row 0 of 'next.terminated', which must be 0 or 1"),
        (broken(ended, lambda x: x * float("nan")), r"holds nan in row 0 of 'next.terminated', which must be 0 or 1"),
        (decisions(80).set("counted", torch.full((80,), 2)), "holds 2 in row 0 of 'counted', which must be 0 or 1"),
        (twice, "holds 0 in row 3 of 'reward' and -2 in 'next.reward', and a row has one reward"),
    ):
        with pytest.raises(InputError, match=words):
            rows_of(policy, data, keys_of(policy, env), values=True)


def broken(key, change):
    rows = decisions(80)
    rows[key] = change(rows[key])
    return rows


def put(value, *at):
    def change(x):
        x = x.clone()
        x[at] = value
        return x

    return change


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (lambda: broken("observation", lambda x: x[:, :2]), "holds 2 numbers of each observation, and the policy .* 3"),
        (lambda: broken("observation", put(float("nan"), 7, 1)), "holds nan in row 7 of 'observation'"),
        (lambda: broken("action", put(3, 5)), "the action 3 in row 5, which is no choice of the policy"),
        (lambda: broken("action", lambda x: x + 0.5), "which is no whole number, and the policy makes choices"),
        (lambda: broken("action", lambda x: torch.stack([x, x], -1)), r"actions \[2\] of each decision, and .* \[\]"),
        (lambda: decisions(80).exclude("action_mask"), "has no 'action_mask'; it has"),
        (lambda: broken("action_mask", put(False, 4)), "in row 4, where the mask allows nothing"),
        (lambda: broken("action_mask", lambda x: x[:, :2]), r"holds masks \[2\] of each decision, and .* \[3\]"),
        (lambda: decisions(80).exclude("action"), "has no 'action'; it has"),
    ],
)
def test_mistakes_get_a_sentence(rows, words):
    with pytest.raises(InputError, match=words):
        make_method("bc").build_from(CLINIC, rows())


def test_so_do_forbidden_actions_bounds_rewards_files_and_methods(tmp_path, cli):
    rows = decisions(80)
    row = int((rows["action_mask"].sum(-1) > 1).nonzero()[0])
    rows["action_mask"][row, rows["action"][row]] = False
    with pytest.raises(InputError, match=f"in row {row}, which the mask forbids"):
        make_method("bc").build_from(CLINIC, rows)
    vector = Specs({"observation": Unbounded((4, 3))}, Bounded(0.0, 4.0, (4, 2)))
    policy = FeedforwardPolicy.from_specs(vector)
    data = TensorDict({"observation": torch.zeros(3, 3), "action": torch.tensor([[0.0, 4.0], [1.0, 5.0], [0, 0]])}, [3])
    with pytest.raises(InputError, match=r"\[1.0, 5.0\] in row 1, outside of the bounds \[0.0, 0.0\] to \[4.0, 4.0\]"):
        rows_of(policy, data, keys_of(policy, vector), values=False)
    data["action"] = data["action"].clamp_max(4)
    with pytest.raises(InputError, match="has no 'observation' of what came next; it has"):
        rows_of(policy, data, keys_of(policy, vector), values=True)
    with pytest.raises(InputError, match="method d2sac: a DiffusionSACMethod learns from play"):
        train(CLINIC, "d2sac", data=data, episodes=1)
    with pytest.raises(InputError, match="environments must be 1 when learning from a data set"):
        train(CLINIC, "bc", data=decisions(8), episodes=1, environments=2)
    with pytest.raises(InputError, match="teacher must be null where a data set says"):
        train(CLINIC, "bc", data=decisions(8), episodes=1, changes={"teacher": "longest"})
    (tmp_path / "bad.npz").write_bytes(b"PK nothing")
    (tmp_path / "bad.pt").touch()
    wrong = {"none.npz": "does not exist", "bad.npz": "cannot be read", "bad.pt": "must be a folder"}
    for name, words in wrong.items():
        with pytest.raises(InputError, match=words):
            read_data(tmp_path / name)
    path = written(".npz", tmp_path, decisions(80))
    quick = ["--set", "hidden=[8]", "--episodes", "2", "--out", str(tmp_path / "run"), "--json"]
    told = json.loads(cli("train", "bc", "--problem", "clinic", "--data", str(path), *quick).out)
    assert told["passes"] == 2
    assert set(told["last"]) == {"loss_actor"}
