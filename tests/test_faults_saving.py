"""Saving: what is loaded is what was saved, or one sentence says why not."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from diffpolicy import CategoricalPolicy, ChoicePolicy, DiffusionPolicy, GreedyValuePolicy, InputError, _files
from diffpolicy.policies import files

FILES = ["policy.json", "policy.safetensors"]


def tiny(seed=0, kind=CategoricalPolicy, **options):
    return kind(choices=3, observation_dim=2, seed=seed, **options)


def seed_of(folder):
    """The seed of the policy in a folder, once it is seen that its tensors are that seed's too."""
    policy = ChoicePolicy.load(folder)
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
        ChoicePolicy.load(tmp_path / "a")


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
        ChoicePolicy.load(path)
    assert path.strip("\0\ud800") in str(error.value)
    for known in (".", "policy.json", "./policy.safetensors", Path("policy.json")):
        assert isinstance(ChoicePolicy.load(known), CategoricalPolicy)


@pytest.mark.parametrize("family", [CategoricalPolicy, GreedyValuePolicy])
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
