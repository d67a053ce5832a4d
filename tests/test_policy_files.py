"""Policy files: what is saved comes back, and what does not fit is refused with the file's name."""

import json
import pickletools
import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffpolicy import (
    ActionMemory,
    CategoricalHead,
    DiffusionPolicy,
    FeedforwardPolicy,
    GaussianPrior,
    GreedyValuePolicy,
    InputError,
    Policy,
    with_recurrent_state,
)
from diffpolicy.edge import OffloadingEnv, make_policy, play_episodes
from diffpolicy.training import RolloutStream
from toys import GuessEnv, small

SCENARIO = small(3, 5, 4)
MAKE = {
    "gaussian": lambda env: DiffusionPolicy.from_specs(env, prior=GaussianPrior(), schedule="cosine", steps=7),
    "memory": lambda env: DiffusionPolicy.from_specs(
        env, prior=ActionMemory("slot-task", "probabilities", "uniform", "episode"), head=CategoricalHead("argmax")
    ),
    "options": lambda env: DiffusionPolicy.from_specs(
        env,
        sampler="ddim",
        sampler_steps=2,
        denoiser={"hidden": [7, 9], "act": "mish", "output": "tanh", "time": 8},
        share_parameters=True,
    ),
    "categorical": lambda env: FeedforwardPolicy.from_specs(env, hidden=[7], act="tanh", mask_key=None),
    "values": lambda env: GreedyValuePolicy.from_specs(env, hidden=[7], epsilon=0.2),
}


def make(name, seed=3):
    policy = MAKE[name](OffloadingEnv(SCENARIO, [1]))
    policy.generator.manual_seed(seed)
    if name == "memory":
        policy.remembered = torch.rand(4, 3, 5, 3, generator=torch.Generator().manual_seed(0))
    policy.trained["method"] = "by hand"
    return policy


@pytest.mark.parametrize("name", MAKE)
def test_a_loaded_policy_decides_the_same(name, tmp_path):
    policy = make(name)
    assert policy.save(tmp_path / "deep" / "folder") == tmp_path / "deep" / "folder"
    loaded = Policy.load(tmp_path / "deep" / "folder")
    loaded.generator.manual_seed(3)
    assert type(loaded) is type(policy)
    assert loaded.config() == policy.config()
    assert loaded.trained == {"method": "by hand"}
    assert not loaded.training
    assert (play_episodes(SCENARIO, policy, 2).cost == play_episodes(SCENARIO, loaded, 2).cost).all()
    mine, theirs = policy.tensors(), loaded.tensors()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[k], theirs[k]) for k in mine)


@pytest.mark.parametrize("agents", [None, 2])
def test_keys_of_any_depth_come_back(agents, tmp_path):
    env = GuessEnv(4, agents, mask=True)
    DiffusionPolicy.from_specs(env, prior=ActionMemory()).save(tmp_path)
    loaded = DiffusionPolicy.load(tmp_path)
    lead = () if agents is None else ("agents",)
    for key, name in [(loaded.action_key, "action"), (loaded.mask_key, "action_mask")]:
        assert key == ((*lead, name) if lead else name)
    loaded.check_env(env)


@pytest.mark.parametrize("key", ["task", "slot-task"])
@pytest.mark.parametrize("agents", [None, 2])
def test_the_memory_of_any_environment_comes_back(agents, key, tmp_path):
    env = GuessEnv(4, agents)
    policy = DiffusionPolicy.from_specs(env, prior=ActionMemory(key=key))
    stream = RolloutStream(env, policy, episode_steps=5)
    list(stream)
    stream.remember()
    policy.save(tmp_path)
    loaded = DiffusionPolicy.load(tmp_path)
    assert torch.equal(loaded.remembered, policy.remembered)
    root = with_recurrent_state(env, loaded).reset()
    latent = root["latent"] if agents is None else root["agents", "latent"]
    assert torch.equal(latent, policy.remembered[0].expand_as(latent))


def test_a_folder_and_either_of_its_files_name_the_policy(tmp_path):
    make("categorical").save(tmp_path)
    for path in (tmp_path, tmp_path / "policy.json", tmp_path / "policy.safetensors", str(tmp_path)):
        assert isinstance(FeedforwardPolicy.load(path), FeedforwardPolicy)
        assert isinstance(make_policy(path, SCENARIO), FeedforwardPolicy)


def test_no_pickle_is_written(tmp_path):
    make("memory").save(tmp_path)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["policy.json", "policy.safetensors"]
    for path in tmp_path.iterdir():
        with pytest.raises(ValueError, match=r".+"):
            list(pickletools.genops(path.read_bytes()))
    json.loads((tmp_path / "policy.json").read_text())
    assert "remembered" in load_file(tmp_path / "policy.safetensors")


def test_a_pickle_in_place_of_the_tensors_is_not_loaded(tmp_path):
    make("categorical").save(tmp_path)
    torch.save({"network.layers.0.weight": torch.zeros(3)}, tmp_path / "policy.safetensors")
    with pytest.raises(InputError, match=r"policy\.safetensors"):
        Policy.load(tmp_path)


@pytest.mark.parametrize("name", MAKE)
def test_saved_twice_gives_the_same_bytes(name, tmp_path):
    policy = make(name)
    policy.save(tmp_path / "a")
    policy.save(tmp_path / "b")
    Policy.load(tmp_path / "a").save(tmp_path / "c")
    for file in ("policy.json", "policy.safetensors"):
        first = (tmp_path / "a" / file).read_bytes()
        assert first == (tmp_path / "b" / file).read_bytes()
        assert first == (tmp_path / "c" / file).read_bytes()


@pytest.mark.slow
def test_saving_in_another_process_gives_the_same_bytes(tmp_path):
    code = (
        "from diffpolicy import ActionMemory, DiffusionPolicy\n"
        "policy = DiffusionPolicy(choices=3, observation_dim=4, agents=2, prior=ActionMemory(), seed=5)\n"
        f"policy.save({str(tmp_path)!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"})
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    DiffusionPolicy(choices=3, observation_dim=4, agents=2, prior=ActionMemory(), seed=5).save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first


def test_saving_over_an_old_policy_leaves_nothing_of_it(tmp_path):
    make("memory").save(tmp_path)
    make("categorical").save(tmp_path)
    assert isinstance(Policy.load(tmp_path), FeedforwardPolicy)


def test_the_default_sampler_is_part_of_the_file(tmp_path):
    make("gaussian").with_sampler("ddim", 3).save(tmp_path)
    loaded = DiffusionPolicy.load(tmp_path)
    assert (loaded.sampler, loaded.sampler_steps) == ("ddim", 3)


def test_a_policy_trained_through_its_chain_still_knows_it(tmp_path):
    policy = make("gaussian")
    policy.trained["through_chain"] = True
    policy.save(tmp_path)
    with pytest.warns(UserWarning, match="another policy"):
        DiffusionPolicy.load(tmp_path).with_sampler("ddim")


# What is refused


def edited(folder, **changes):
    path = folder / "policy.json"
    data = json.loads(path.read_text())
    for key, value in changes.items():
        if value is None:
            data.pop(key)
        else:
            data[key] = value
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "diffpolicy.policy/2"}, r"'diffpolicy\.policy/2'"),
        ({"schema": None}, "schema"),
        ({"class": "Nonsense"}, "'Nonsense'"),
        ({"class": None}, "class"),
        ({"class": "GreedyValuePolicy"}, "config"),
        ({"config": None}, "config"),
        ({"config": {}}, "config"),
        ({"config": []}, "config"),
        ({"config": "abc"}, "config"),
        ({"trained": "abc"}, "trained"),
    ],
)
def test_a_wrong_entry_is_refused_with_the_file(changes, message, tmp_path):
    make("memory").save(tmp_path)
    edited(tmp_path, **changes)
    with pytest.raises(InputError, match=rf"{re.escape(str(tmp_path))}.*{message}"):
        Policy.load(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("steps", 0),
        ("steps", "five"),
        ("steps", 2.5),
        ("schedule", "quadratic"),
        ("sampler", "euler"),
        ("sampler_steps", 99),
        ("prior", {"type": "Laplace"}),
        ("prior", {"type": "ActionMemory", "key": "planet"}),
        ("prior", {"type": "ActionMemory", "colour": "red"}),
        ("prior", "GaussianPrior"),
        ("head", {"draw": "best"}),
        ("head", None),
        ("denoiser", {"act": "gelu"}),
        ("denoiser", {"depth": 3}),
        ("denoiser", [1]),
        ("choices", -3),
        ("choices", "three"),
        ("choices", 0),
        ("observation_dim", -1),
        ("agents", "two"),
        ("agents", -2),
        ("seed", "zero"),
        ("seed", -(2**70)),
        ("action_key", 7),
        ("colour", "red"),
    ],
)
def test_a_wrong_config_is_refused_with_the_file(key, value, tmp_path):
    make("memory").save(tmp_path)
    config = json.loads((tmp_path / "policy.json").read_text())["config"]
    edited(tmp_path, config={**config, key: value})
    with pytest.raises(InputError, match=re.escape(str(tmp_path))):
        Policy.load(tmp_path)


def test_a_tensor_of_another_shape_is_refused_with_its_name_and_both_shapes(tmp_path):
    make("categorical").save(tmp_path)
    tensors = load_file(tmp_path / "policy.safetensors")
    name = next(k for k in tensors if tensors[k].ndim == 3)
    shape = list(tensors[name].shape)
    tensors[name] = tensors[name][:, 1:].contiguous()
    save_file(tensors, tmp_path / "policy.safetensors")
    with pytest.raises(InputError) as error:
        Policy.load(tmp_path)
    for part in (str(tmp_path), name, str(shape), str([shape[0], shape[1] - 1, shape[2]])):
        assert part in str(error.value)


def test_a_missing_and_an_unknown_tensor_are_refused_with_their_names(tmp_path):
    make("categorical").save(tmp_path)
    tensors = load_file(tmp_path / "policy.safetensors")
    name, value = next(iter(tensors.items()))
    save_file({**tensors, "stray": value.clone()}, tmp_path / "policy.safetensors")
    with pytest.raises(InputError, match="stray"):
        Policy.load(tmp_path)
    save_file({k: v for k, v in tensors.items() if k != name}, tmp_path / "policy.safetensors")
    with pytest.raises(InputError, match=name):
        Policy.load(tmp_path)


def test_a_memory_of_another_shape_is_refused_before_it_is_played(tmp_path):
    make("memory").save(tmp_path)
    tensors = load_file(tmp_path / "policy.safetensors")
    tensors["remembered"] = torch.zeros(4, 3, 5, 2)
    save_file(tensors, tmp_path / "policy.safetensors")
    with pytest.raises(InputError, match="remembered"):
        play_episodes(SCENARIO, Policy.load(tmp_path), 1)


@pytest.mark.parametrize("content", [b"", b"\x00\x01", b"\xff" * 100, b"{}"])
def test_a_corrupt_tensor_file_is_refused(content, tmp_path):
    make("categorical").save(tmp_path)
    (tmp_path / "policy.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"policy\.safetensors"):
        Policy.load(tmp_path)


def test_a_cut_tensor_file_is_refused(tmp_path):
    make("categorical").save(tmp_path)
    path = tmp_path / "policy.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"policy\.safetensors"):
        Policy.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b"\xff\xfe", b'{"schema": "a", "schema": "b"}'])
def test_a_corrupt_json_file_is_refused(content, tmp_path):
    make("categorical").save(tmp_path)
    (tmp_path / "policy.json").write_bytes(content)
    with pytest.raises(InputError, match=r"policy\.json"):
        Policy.load(tmp_path)


@pytest.mark.parametrize("file", ["policy.json", "policy.safetensors"])
def test_a_missing_file_is_refused(file, tmp_path):
    make("categorical").save(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(InputError, match=file.replace(".", r"\.")):
        Policy.load(tmp_path)


def test_a_policy_of_another_class_is_refused(tmp_path):
    make("categorical").save(tmp_path)
    with pytest.raises(InputError, match="FeedforwardPolicy"):
        DiffusionPolicy.load(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        make("categorical").save(tmp_path / "file")


def test_a_file_that_calls_the_class_by_its_name_of_before_loads(tmp_path):
    make("categorical").save(tmp_path)
    file = tmp_path / "policy.json"
    now = json.loads(file.read_text())
    assert now["class"] == "FeedforwardPolicy"
    file.write_text(json.dumps({**now, "class": "CategoricalPolicy"}))
    assert type(Policy.load(tmp_path)) is FeedforwardPolicy
