"""Saving: what is loaded is what was saved, or one sentence says why not."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import types
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from diffpolicy import DiffusionPolicy, FeedforwardPolicy, GreedyValuePolicy, InputError, Policy, _files
from diffpolicy.networks import MLPDenoiser, SetDenoiser
from diffpolicy.policies import files
from diffpolicy.policies.class_names import file_name

FILES = ["policy.json", "policy.safetensors"]


def tiny(seed=0, kind=FeedforwardPolicy, **options):
    return kind(choices=3, observation_dim=2, seed=seed, **options)


def seed_of(folder):
    """The seed of the policy in a folder, once it is seen that its tensors are that seed's too."""
    policy = Policy.load(folder)
    fresh = type(policy)._from_config(policy.config())
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), fresh.parameters(), strict=True))
    return policy.seed


# Both files, as one


@pytest.mark.parametrize("moment", ["description", "tensors", "last"])
def test_a_saver_that_dies_between_its_files_leaves_the_old_policy_or_the_new_one(moment, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    tiny(1).save(tmp_path)
    write, replace = _files.write, Path.replace
    if moment == "last":
        monkeypatch.setattr(Path, "replace", lambda a, b: die() if b.name == "policy.json" else replace(a, b))
    else:
        at = {"description": "next", "tensors": "safetensors"}[moment]
        die_at = lambda path, save: die() if Path(path).suffix == f".{at}" else write(path, save)  # noqa: E731
        monkeypatch.setattr(_files, "write", die_at)
    with pytest.raises(Killed):
        tiny(2).save(tmp_path)
    monkeypatch.undo()
    assert seed_of(tmp_path) == (2 if moment == "last" else 1)
    tiny(3).save(tmp_path)
    assert seed_of(tmp_path) == 3
    assert sorted(os.listdir(tmp_path)) == FILES


def test_a_whole_pair_that_waits_is_not_lost_when_the_next_saver_dies_too(tmp_path, monkeypatch):
    tiny(1).save(tmp_path)
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda a, b: 1 / 0 if b.name == "policy.json" else replace(a, b))
    with pytest.raises(ZeroDivisionError):
        tiny(2).save(tmp_path)
    monkeypatch.undo()
    write = _files.write
    monkeypatch.setattr(_files, "write", lambda path, save: 1 / 0 if "safetensors" in str(path) else write(path, save))
    with pytest.raises(ZeroDivisionError):
        tiny(3).save(tmp_path)
    assert seed_of(tmp_path) == 2


def saver(folder):
    """A process that saves one policy after another until it is killed; forked, since an import takes seconds."""
    child = os.fork()
    if child == 0:
        try:
            while True:
                for policy in POLICIES:
                    policy.save(folder)
        finally:
            os._exit(1)
    return child


POLICIES = [tiny(seed) for seed in range(20)]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_savers_never_leave_a_mixed_pair(tmp_path):
    tiny(0).save(tmp_path)
    for k in range(60):
        children = [saver(tmp_path) for _ in range(2)]
        try:
            for _ in range(5):
                assert seed_of(tmp_path) in range(20)  # while they write
            time.sleep(0.001 * (k % 17))
        finally:
            for child in children:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        assert seed_of(tmp_path) in range(20)
    tiny(21).save(tmp_path)
    assert seed_of(tmp_path) == 21
    assert sorted(os.listdir(tmp_path)) == FILES


def test_two_writers_of_a_folder_do_not_mix(tmp_path):
    tiny(0).save(tmp_path)
    failures = []

    def work(first):
        try:
            for seed in range(first, first + 10):
                tiny(seed).save(tmp_path)
                seed_of(tmp_path)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(os.listdir(tmp_path)) == FILES


def test_tensors_of_another_saving_are_refused(tmp_path):
    tiny(1).save(tmp_path / "a")
    tiny(2).save(tmp_path / "b")
    (tmp_path / "b" / "policy.safetensors").replace(tmp_path / "a" / "policy.safetensors")
    with pytest.raises(InputError, match=r"policy\.safetensors is not the file that policy\.json was written with"):
        Policy.load(tmp_path / "a")


def test_a_file_of_an_earlier_version_has_no_digest_and_loads(tmp_path):
    tiny(1).save(tmp_path)
    data = json.loads((tmp_path / "policy.json").read_text())
    assert len(data.pop("tensors_sha256")) == 64
    (tmp_path / "policy.json").write_text(json.dumps(data))
    assert seed_of(tmp_path) == 1


def test_a_reader_meets_a_whole_pair_over_a_file_without_a_digest(tmp_path, monkeypatch):
    test_a_file_of_an_earlier_version_has_no_digest_and_loads(tmp_path)
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda a, b: 1 / 0 if b.name == "policy.json" else replace(a, b))
    with pytest.raises(ZeroDivisionError):
        tiny(2).save(tmp_path)
    assert seed_of(tmp_path) == 2


@pytest.mark.parametrize("value", [{1: 2}, {"x": torch.zeros(2)}, {"x": [object()]}, {"x": {"y": {1, 2}}}])
def test_what_json_cannot_hold_is_refused_before_anything_is_written(value, tmp_path):
    policy = tiny()
    policy.trained = value
    with pytest.raises(InputError, match=r"trained.* no file can hold|trained.*which no file can hold"):
        policy.save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


# What a path names


@pytest.mark.parametrize("path", ["typo", "typo/policy.json", "", "notes.txt", "empty", "nul\0", "\ud800", "a/b/c"])
def test_a_path_that_names_no_policy_does_not_take_another(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny().save(".")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as error:
        Policy.load(path)
    assert path.strip("\0\ud800") in str(error.value)
    for known in (".", "policy.json", "./policy.safetensors", Path("policy.json")):
        assert isinstance(Policy.load(known), FeedforwardPolicy)


@pytest.mark.parametrize("family", [FeedforwardPolicy, GreedyValuePolicy])
def test_loading_by_another_family_names_both(family, tmp_path):
    tiny(kind=DiffusionPolicy).save(tmp_path)
    with pytest.raises(InputError, match=f"is a DiffusionPolicy, not a {family.__name__}"):
        family.load(tmp_path)


def test_a_pipe_in_place_of_a_file_does_not_hang(tmp_path):
    tiny().save(tmp_path)
    (tmp_path / "policy.safetensors").unlink()
    os.mkfifo(tmp_path / "policy.safetensors")
    with pytest.raises(InputError, match="pipe"):
        files.read(tmp_path)


# Denoisers of your own


class Plain(nn.Module):
    """A denoiser that says nothing of itself. Args: tanh: what no shape tells."""

    def __init__(self, width=3, condition=2, tanh=True):
        super().__init__()
        self.layer, self.tanh = nn.Linear(width + condition, width), tanh

    def forward(self, x, i, cond):
        y = self.layer(torch.cat([x, cond], -1))
        return y.tanh() if self.tanh else y


class Configured(Plain):
    def config(self):
        return {"tanh": self.tanh}

    def __init__(self, tanh=True):
        super().__init__(tanh=tanh)


class Told(Configured):
    def __init__(self, tanh, gain):
        super().__init__(tanh)
        self.gain = gain

    def forward(self, x, i, cond):
        return self.gain * super().forward(x, i, cond)

    def to_dict(self):
        return {"tanh": self.tanh, "gain": self.gain}

    @classmethod
    def from_dict(cls, data):
        return cls(data["tanh"], data["gain"])


class Scaled(MLPDenoiser):
    """A subclass with a constructor of its own, whose inherited `to_dict` does not tell the scale."""

    def __init__(self, *widths, scale=1.0, **options):
        super().__init__(*widths, **options)
        self.scale = scale


def logits_of(policy, agents=None):
    generator = torch.Generator().manual_seed(0)
    lead = (5,) if agents is None else (agents, 5)
    noise = torch.randn(policy.draws, *lead, 3, generator=generator)
    with torch.no_grad():
        return policy.logits(torch.randn(*lead, 2, generator=generator), None, None, noise)


OWN = {
    "mlp": lambda: MLPDenoiser(3, 2, 5, output="tanh", act="mish", hidden=(7,), time=8),
    "mlp of more steps": lambda: MLPDenoiser(3, 2, 9, output="softmax"),
    "set": lambda: SetDenoiser(3, 2, 5, hidden=6),
    "config": lambda: Configured(tanh=False),
    "to_dict": lambda: Told(tanh=False, gain=0.5),
}


@pytest.mark.parametrize("agents", [None, 2])
@pytest.mark.parametrize("name", OWN)
def test_a_denoiser_of_ones_own_comes_back_as_it_was(name, agents, tmp_path):
    policy = tiny(kind=DiffusionPolicy, denoiser=OWN[name](), agents=agents).eval()
    policy.save(tmp_path)
    loaded = Policy.load(tmp_path)
    assert torch.equal(logits_of(policy, agents), logits_of(loaded, agents))
    assert type(loaded.denoiser) is type(policy.denoiser)
    again = DiffusionPolicy.load(tmp_path, denoiser=OWN[name]())
    assert torch.equal(logits_of(policy, agents), logits_of(again, agents))
    before = (tmp_path / "policy.json").read_bytes()
    loaded.save(tmp_path)
    assert (tmp_path / "policy.json").read_bytes() == before


@pytest.mark.parametrize("make", [Plain, lambda: Scaled(3, 2, 5, scale=2.0)])
def test_a_denoiser_that_no_file_describes_must_be_given_again(make, tmp_path):
    policy = tiny(kind=DiffusionPolicy, denoiser=make()).eval()
    policy.save(tmp_path)
    with pytest.raises(InputError, match=rf"{type(policy.denoiser).__name__}.*load\(path, denoiser="):
        Policy.load(tmp_path)
    assert torch.equal(logits_of(policy), logits_of(Policy.load(tmp_path, denoiser=make())))
    for other in (nn.Linear(3, 3), Configured(), MLPDenoiser(3, 2, 5), {"act": "mish"}, None):
        with pytest.raises(InputError, match=type(policy.denoiser).__name__):
            Policy.load(tmp_path, denoiser=other)


def test_a_given_denoiser_of_the_same_shape_and_other_options_is_refused(tmp_path):
    for agents in (None, 2):
        tiny(kind=DiffusionPolicy, denoiser=Plain(), agents=agents).save(tmp_path)
        Policy.load(tmp_path, denoiser=Plain())
        with pytest.raises(InputError, match=r"denoiser Plain makes other numbers.*load\(path, denoiser="):
            Policy.load(tmp_path, denoiser=Plain(tanh=False))


def test_a_given_denoiser_that_draws_by_itself_loads(tmp_path):
    class Draws(Plain):
        def forward(self, x, i, cond):
            return torch.randn(x.shape)

    tiny(kind=DiffusionPolicy, denoiser=Draws().train()).save(tmp_path)
    loaded = Policy.load(tmp_path, denoiser=Draws())
    assert isinstance(loaded.denoiser, Draws)


def test_a_given_denoiser_of_another_shape_or_with_other_options_is_refused(tmp_path):
    tiny(kind=DiffusionPolicy, denoiser=Plain()).save(tmp_path / "a")
    with pytest.raises(InputError, match=r"denoiser\.layer\.weight"):
        Policy.load(tmp_path / "a", denoiser=Plain(condition=3))
    tiny(kind=DiffusionPolicy, denoiser={"act": "mish"}).save(tmp_path / "b")
    for other in (MLPDenoiser(3, 2, 5), MLPDenoiser(3, 2, 5, act="mish", output="tanh"), {"act": "relu"}):
        with pytest.raises(InputError, match="mish"):
            Policy.load(tmp_path / "b", denoiser=other)
    assert Policy.load(tmp_path / "b", denoiser=MLPDenoiser(3, 2, 5, act="mish")).denoiser.act_name == "mish"


@pytest.mark.parametrize(
    ("denoiser", "says"),
    [
        (lambda: MLPDenoiser(4, 2, 5), "4 actions"),
        (lambda: MLPDenoiser(3, 3, 5), "3 condition"),
        (lambda: MLPDenoiser(3, 2, 4), "4 steps"),
        (lambda: MLPDenoiser(3, 2, 5, agents=3), "for 3 agents"),
    ],
)
def test_a_denoiser_of_other_widths_is_refused_when_the_policy_is_made(denoiser, says):
    with pytest.raises(InputError, match=says):
        tiny(kind=DiffusionPolicy, denoiser=denoiser(), agents=2)


@pytest.mark.parametrize("told", [{"x": torch.zeros(1)}, {"kind": "y"}, [1]])
def test_a_denoiser_that_describes_itself_in_no_json_is_refused_when_it_is_saved(told, tmp_path):
    class Odd(Configured):
        def config(self):
            return told

    Odd.__qualname__ = "Odd"
    policy = tiny(kind=DiffusionPolicy, denoiser=Odd())
    with pytest.raises(InputError, match=r"Odd\.config\(\)"):
        policy.save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


class MakesIts(DiffusionPolicy):
    """Makes its denoiser itself."""

    def __init__(self, **options):
        super().__init__(denoiser=MLPDenoiser(3, 2, 5, output="tanh"), **options)


class MakesPlain(DiffusionPolicy):
    def __init__(self, **options):
        super().__init__(denoiser=Plain(), **options)


@pytest.mark.parametrize("kind", [MakesIts, MakesPlain])
def test_a_subclass_that_makes_its_denoiser_itself_loads(kind, tmp_path):
    policy = tiny(kind=kind).eval()
    policy.save(tmp_path)
    assert torch.equal(logits_of(policy), logits_of(Policy.load(tmp_path)))


@pytest.mark.parametrize("name", [*OWN, "all agents", "options"])
def test_each_agent_has_a_denoiser_of_its_own(name):
    denoiser = {"all agents": lambda: MLPDenoiser(3, 2, 6, agents=2), "options": lambda: {"act": "mish"}} | OWN
    policy = tiny(kind=DiffusionPolicy, denoiser=denoiser[name](), agents=2).eval()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    whole = logits_of(policy, 2)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(policy.draws, 2, 5, 3, generator=generator)
    observation = torch.randn(2, 5, 2, generator=generator)
    for agent in range(2):
        one = policy.for_agent(agent)
        assert one.agents is None
        with torch.no_grad():
            mine = one.logits(observation[agent], None, None, noise[:, agent])
        assert torch.allclose(mine, whole[agent], atol=1e-6)
    before = whole.clone()
    loss = policy.logits(observation, None, None, noise)[0].sum()
    loss.backward()
    with torch.no_grad():  # a step of agent 0's loss
        for parameter in policy.parameters():
            parameter.sub_(0 if parameter.grad is None else parameter.grad)
        after = policy.logits(observation, None, None, noise)
    assert torch.equal(after[1], before[1])
    assert not torch.equal(after[0], before[0])


@pytest.mark.parametrize(
    ("name", "told"),
    [("agents_side_by_side", nullcontext()), ("stack", pytest.warns(match="OfAll.agents_side_by_side now"))],
)
def test_one_agent_of_ones_own_denoiser_of_all_is_refused_in_a_sentence(name, told):
    class OfAll(Plain):
        def forward(self, x, i, cond):
            return x

    setattr(OfAll, name, 2)
    with told:
        policy = tiny(kind=DiffusionPolicy, denoiser=OfAll(), agents=2)
    assert policy(TensorDict({"observation": torch.zeros(2, 2)}, [])).get("action").shape == (2,)
    with pytest.raises(InputError, match=r"OfAll.*for_agent"):
        policy.for_agent(0)


class Needy(FeedforwardPolicy):
    """Takes an option that its `config` does not tell."""

    def __init__(self, *, scale=1.0, usual=3, **options):
        super().__init__(**options)
        self.times, self.usual = scale, usual


def test_an_option_that_no_file_holds_must_be_given_again(tmp_path):
    policy = tiny(kind=Needy, scale=2.0)
    policy.save(tmp_path)
    with pytest.raises(InputError, match=r"scale.*load\(path, scale=\.\.\.\)"):
        Policy.load(tmp_path)
    with pytest.raises(InputError, match="scale"):
        tiny(kind=Needy, agents=2, scale=2.0).for_agent(0)
    assert Policy.load(tmp_path, scale=2.0).times == 2.0


def test_precision_comes_back(tmp_path):
    policy = tiny(kind=DiffusionPolicy, normalize=True).double()
    policy.save(tmp_path)
    loaded = Policy.load(tmp_path)
    assert all(
        torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(policy.parameters(), loaded.parameters(), strict=True)
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [("action_key", []), ("action_key", [3]), ("mask_key", ""), ("observation_keys", [[]]), ("observation_keys", 3),
     ("information", 7), ("normalize", "yes"), ("condition_dim", 2.5), ("condition_dim", 0), ("epsilon", None)],
)  # fmt: skip
def test_keys_that_are_none_are_refused_when_a_policy_is_loaded(key, value, tmp_path):
    tiny(kind=GreedyValuePolicy).save(tmp_path)
    data = json.loads((tmp_path / "policy.json").read_text())
    data["config"][key] = value
    (tmp_path / "policy.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=key if value is not None else "config"):
        Policy.load(tmp_path)


# Names of classes

SCRIPT = """
import sys
from diffpolicy import FeedforwardPolicy, Policy

class Mine(FeedforwardPolicy):
    pass

if __name__ == "__main__":
    Mine(choices=3, observation_dim=2).save(sys.argv[1])
    assert type(Policy.load(sys.argv[1])) is Mine
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["script", "module"])
def test_a_class_of_a_script_is_called_as_another_script_imports_it(way, tmp_path):
    (tmp_path / "own_things.py").write_text(SCRIPT)
    argv = ["own_things.py"] if way == "script" else ["-m", "own_things"]
    subprocess.run([sys.executable, *argv, "saved"], cwd=tmp_path, check=True)
    data = json.loads((tmp_path / "saved" / "policy.json").read_text())
    assert data["class"] == "own_things:Mine"
    assert data["class_file"] == "own_things.py"


def test_a_running_script_lends_its_classes_the_name_by_which_it_is_imported(monkeypatch):
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    kind = type("OfTheScript", (FeedforwardPolicy,), {"__module__": "__main__"})
    assert file_name(kind) == "__main__:OfTheScript"  # an interactive session has no file
    main.__file__ = "/somewhere/own_things.py"
    assert file_name(kind) == "own_things:OfTheScript"
    main.__spec__ = SimpleNamespace(name="package.own_things")
    assert file_name(kind) == "package.own_things:OfTheScript"


def local_class():
    class Local(FeedforwardPolicy):
        pass

    return Local


def renamed(folder, name):
    data = json.loads((folder / "policy.json").read_text())
    (folder / "policy.json").write_text(json.dumps({**data, "class": name}))


class Mine(FeedforwardPolicy):
    """As a script might define it."""


@pytest.mark.parametrize("name", ["__main__:Mine", "another_script:Mine"])
def test_the_class_itself_loads_what_a_script_saved(name, tmp_path):
    tiny(kind=Mine).save(tmp_path)
    renamed(tmp_path, name)
    assert type(Mine.load(tmp_path)) is Mine
    with pytest.raises(InputError, match=r"Mine.*(import Mine first|Mine\.load)"):
        Policy.load(tmp_path)
    with pytest.raises(InputError, match="Mine"):
        Needy.load(tmp_path)


def test_a_class_made_in_a_function_is_loaded_by_itself(tmp_path):
    kind = local_class()
    tiny(kind=kind).save(tmp_path)
    assert type(Policy.load(tmp_path)) is kind
    other = local_class()  # the same name
    with pytest.raises(InputError, match="several classes"):
        Policy.load(tmp_path)
    assert type(kind.load(tmp_path)) is kind
    assert type(other.load(tmp_path)) is other
    renamed(tmp_path, "gone:make.<locals>.Gone")
    with pytest.raises(InputError, match=r"made inside a function of gone.*Gone\.load"):
        Policy.load(tmp_path)


# Whatever a file holds


NUMBERS = [0, -1, 1, 2, 3.5, 1e9, 10**9, 2**70, -(2**70), 1e308, float("nan"), float("inf")]
LISTS = [[], [200_000, 2500], [1] * 50, {}, {"kind": 3}, {"kind": "MLPDenoiser"}, {"a": {}}]
HOSTILE = [None, True, False, "", "x", "\ud800", "a\0b", *NUMBERS, *LISTS]


def places(value, path=()):
    """Paths of all entries of a JSON value."""
    yield path
    for key, entry in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(entry, (*path, key))


def mutated(data, draw):
    """A copy of a JSON object with one entry replaced, left out or added."""
    data = json.loads(json.dumps(data))
    *path, last = draw.choice([p for p in places(data) if p])
    parent = data
    for key in path:
        parent = parent[key]
    how = draw.random()
    if how < 0.7:
        parent[last] = draw.choice(HOSTILE)
    elif how < 0.85:
        del parent[last]
    elif isinstance(parent, dict):
        parent[draw.choice(["colour", "given", "kind", "stack"])] = draw.choice(HOSTILE)
    return data


def saved_kinds(folder):
    kinds = {
        "mlp": tiny(kind=DiffusionPolicy, agents=2, normalize=True),
        "own": tiny(kind=DiffusionPolicy, denoiser=Told(True, 0.5), agents=2),
        "given": tiny(kind=DiffusionPolicy, denoiser=Plain()),
        "sets": tiny(kind=DiffusionPolicy, denoiser=SetDenoiser(3, 2, 5)),
        "values": tiny(kind=GreedyValuePolicy, mask_key=("a", "b"), action_key=("a", "c")),
    }
    return [policy.save(folder / name) for name, policy in kinds.items()]


def loads_or_refuses(folder):
    try:
        Policy.load(folder)
    except InputError:
        return False
    return True


def test_a_mutated_description_is_refused_or_loads(tmp_path):
    draw = random.Random(0)
    kept = 0
    for folder in saved_kinds(tmp_path):
        data = json.loads((folder / "policy.json").read_text())
        for _ in range(60):
            (folder / "policy.json").write_text(json.dumps(mutated(data, draw)))
            kept += loads_or_refuses(folder)
    assert kept < 150


def test_garbled_tensors_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("diffpolicy._pairs.PAUSES_S", (0.0,))
    draw = random.Random(0)
    for folder in saved_kinds(tmp_path):
        path = folder / "policy.safetensors"
        good = path.read_bytes()
        for _ in range(60):
            bad = bytearray(good)
            for _ in range(draw.randint(1, 4)):
                bad[draw.randrange(min(len(bad), 400))] = draw.randrange(256)
            bad = bad[: draw.choice([len(bad), draw.randrange(len(bad))])]
            path.write_bytes(bad)
            assert bytes(bad) == good or not loads_or_refuses(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("denoiser", {"hidden": [200_000, 2500]}),
        ("denoiser", {"time": 10**8}),
        ("denoiser", {"kind": "MLPDenoiser", "actions": 10**6, "condition": 10**6, "steps": 5, "hidden": [10**6]}),
        ("denoiser", {"kind": "SetDenoiser", "latents": 10**6, "features": 10**6, "steps": 10**6}),
        ("steps", 10**9),
        ("agents", 10**6),
        ("choices", 10**6),
        ("condition_dim", 10**6),
    ],
)
def test_counts_are_refused_before_memory_is_taken(key, value, tmp_path):
    resource = pytest.importorskip("resource")
    tiny(kind=DiffusionPolicy, agents=1).save(tmp_path)
    data = json.loads((tmp_path / "policy.json").read_text())
    data["config"][key] = value
    (tmp_path / "policy.json").write_text(json.dumps(data))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(InputError):
        Policy.load(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    "options",
    [{"hidden": []}, {"hidden": [True]}, {"hidden": 5}, {"time": 2.5}, {"time": "x"}, {"act": ["relu"]}, {"output": {}},
     {"hidden": [10**7]}],
)  # fmt: skip
def test_options_of_a_denoiser_are_checked_by_name(options):
    with pytest.raises(InputError, match=next(iter(options)).replace("act", "activation")):
        tiny(kind=DiffusionPolicy, denoiser=options)
