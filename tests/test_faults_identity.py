"""Runs are told apart by content, end where nothing is lost, and are resumed only as what they were."""

import contextlib
import errno
import functools
import json
import logging
import math
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import lightning as L
import pytest
import torch
from tensordict import TensorDict

from diffpolicy import DiffusionPolicy, FeedforwardPolicy, InputError
from diffpolicy._identity import check_same, content_digest, describe, difference
from diffpolicy._signals import Stopped, StopRequests, exit_status, terminated_at_once
from diffpolicy.edge import OffloadingEnv, Scenario, TaskList, make_method
from diffpolicy.edge.training import build, train
from diffpolicy.methods import DiffusionSACMethod, DQNMethod, SACMethod
from diffpolicy.networks import CriticEnsemble, MLPDenoiser
from diffpolicy.objectives import LatentDiscreteSACLoss, PathwiseLoss
from diffpolicy.objectives.pathwise import choice_probabilities
from diffpolicy.training import (
    EvolutionModule,
    ImitationModule,
    OffPolicyModule,
    PackedReplay,
    PathwiseModule,
    RolloutStream,
    checkpoint,
)
from diffpolicy.training.callbacks import EvaluateEvery
from diffpolicy.training.fit import fit
from toys import GuessEnv, guess_transitions, quick_method, same_tensors, small

# One identity, by content


@dataclass(frozen=True)
class Part:
    size: int = 3
    rates: tuple = (1e-3, 2e-3)


def half(x, *, by=2):
    return x / by


def test_a_description_holds_the_content_and_nothing_of_the_process():
    method = make_method("lad-ts")
    first, second = describe(method), describe(make_method("lad-ts"))
    assert first == second
    assert first["class"] == "diffpolicy.methods.diffusion_sac:DiffusionSACMethod"
    assert ":" in first["transitions"]
    assert describe(Part()) == {"class": f"{__name__}:Part", "size": 3, "rates": [1e-3, 2e-3]}


def test_a_partial_is_its_function_and_arguments_however_deep():
    a, b = (functools.partial(functools.partial(half, 1), by=by) for by in (2, 3))
    assert describe(a) == describe(functools.partial(half, 1, by=2))
    assert difference(describe({"f": a}), describe({"f": b})) == ("f.keywords.by", 2, 3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"learning_rates": {"actor": 3e-4, "critic": 1e-3, "alpha": 3e-4}}, "learning_rates"),
        ({"gamma": 0.5}, "gamma 0.95, and this run has 0.5"),
        ({"hidden": [7]}, "hidden"),
        ({"prior": {"type": "GaussianPrior"}}, "prior.type ActionMemory, and this run has GaussianPrior"),
        ({"transitions": functools.partial(half, by=3)}, "transitions"),
    ],
)
def test_the_field_that_differs_is_named_with_both_values(changes, says):
    method = make_method("lad-ts")
    with pytest.raises(InputError, match=f"^checkpoint x was trained with .*{says}"):
        check_same(describe(method), describe(replace(method, **changes)), "checkpoint x")
    check_same(describe(method), describe(replace(method)), "checkpoint x")


def test_a_function_without_a_name_is_told_by_its_code():
    def make(by, more=1):
        def scaled(x, y=more):
            return [x / by + y for _ in range(2)]

        return scaled

    assert describe(make(2)) == describe(make(2)) != describe(make(3))
    assert describe(make(2)) != describe(make(2, 5))
    assert describe(lambda x: x + 1) != describe(lambda x: x + 2)
    assert describe(lambda x: x.a) != describe(lambda x: x.b)


@pytest.mark.parametrize("value", [object(), functools.partial(half, object()), [{"a": object()}]])
def test_what_has_no_name_and_no_content_is_refused(value):
    with pytest.raises(InputError, match=r"^transitions.* could not be resumed"):
        describe(value, "transitions")


def test_a_digest_changes_with_every_part():
    def make():
        return {"a": torch.arange(3.0), "b": [1, "x", None, {"c": True}], "n": float("nan"), "e": torch.empty(0, 2)}

    first = content_digest(make())
    assert content_digest(make()) == first
    others = [make() for _ in range(6)]
    others[0]["a"][0] = 1e-30
    others[1]["b"][0] = 1.0
    others[2]["b"][3]["c"] = 1
    others[3]["d"] = None
    others[4]["a"] = others[4]["a"].double()
    others[5]["e"] = torch.empty(2, 0)
    assert len({first, *map(content_digest, others)}) == 7


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_stops_at_once(number):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with StopRequests() as stop:
        signal.raise_signal(number)
        assert stop.number == number
        with pytest.raises(Stopped) as error:
            signal.raise_signal(signal.SIGINT)
    assert (error.value.number, stop.at_once) == (signal.SIGINT, True)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    assert [exit_status(n) for n in (signal.SIGINT, signal.SIGTERM)] == [130, 143]


def test_other_threads_leave_the_handlers_alone():
    seen = []

    def listen():
        with StopRequests(), terminated_at_once():
            seen.append([signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)])

    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert seen == [before]


def test_sigterm_can_stop_at_once():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped) as error, terminated_at_once():
        signal.raise_signal(signal.SIGTERM)
    assert error.value.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


# Resuming, and what is refused before any work


SCENARIO = small(2, 3, 4)


def toy(seed=0, *, env=None, transitions=guess_transitions, **changes):
    """A module on a problem of its own, made by a method of its own."""
    method = SACMethod(
        transitions=transitions,
        learning_rates={"actor": 1e-3, "critic": 1e-3, "alpha": 1e-3},
        hidden=[4],
        start_after=10,
        capacity=50,
        batch_size=8,
    )
    return replace(method, **changes).build(env or GuessEnv(2), episode_steps=5, seed=seed)


def by_hand(seed=0, **changes):
    """The same without a method."""
    made = toy(seed)
    options = {"learning_rates": {"actor": 1e-3, "critic": 1e-3, "alpha": 1e-3}, "batch_size": 8, "start_after": 10}
    return OffPolicyModule(
        made.policy, made.objective, made.stream, made.replay, made.transitions, **{**options, **changes}
    )


@pytest.fixture(scope="module")
def checkpoint_of_four(tmp_path_factory):
    out = tmp_path_factory.mktemp("four")
    fit(toy(), episodes=4, out=out)
    return out / "checkpoint.ckpt"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: toy(1), "seed 0, and this run has 1"),
        (lambda: toy(learning_rates={"actor": 3e-4, "critic": 1e-3, "alpha": 1e-3}), r"actor 0\.001, .* has 0\.0003"),
        (lambda: toy(gamma=0.5), r"gamma 0\.95, and this run has 0\.5"),
        (lambda: toy(normalize=True), "normalize False"),
        (lambda: toy(transitions=functools.partial(guess_transitions)), "transitions"),
        (lambda: toy(env=GuessEnv(3)), "environments 2, and this run has 3"),
        (lambda: toy(env=GuessEnv(2, choices=4)), r"env\.observation"),
        (
            lambda: DQNMethod(
                transitions=guess_transitions, learning_rates={"critic": 1e-3}, start_after=10, hidden=[4]
            ).build(GuessEnv(2), episode_steps=5),
            "method .*SACMethod, and this run has .*DQNMethod",
        ),
        (by_hand, "SACMethod, and this run has nothing"),
    ],
)
def test_a_run_of_other_content_is_not_resumed(make, says, checkpoint_of_four):
    module = make()
    played = []
    module.stream.rollout = lambda: played.append(1)
    with pytest.raises(InputError, match=rf"four.*checkpoint\.ckpt cannot be resumed: it was trained with .*{says}"):
        fit(module, episodes=8, resume=checkpoint_of_four)
    assert not played


def test_what_is_built_by_hand_is_told_apart_too(tmp_path):
    fit(by_hand(), episodes=2, out=tmp_path)
    assert fit(by_hand(), episodes=4, resume=tmp_path / "checkpoint.ckpt").episodes == 4
    for other in (by_hand(1), by_hand(batch_size=9), by_hand(learning_rates={"actor": 1, "critic": 1, "alpha": 1})):
        with pytest.raises(InputError, match="cannot be resumed: it was trained with"):
            fit(other, episodes=4, resume=tmp_path / "checkpoint.ckpt")


class Gained(MLPDenoiser):
    """Its description, that of the class it derives from, leaves out the gain."""

    def __init__(self, *args, gain=1.0, **options):
        super().__init__(*args, **options)
        self.gain = gain

    def config(self):
        return {"actions": 3, "condition": 3, "steps": 2}

    def forward(self, x, t, cond):
        return self.gain * super().forward(x, t, cond)


class Shared(CriticEnsemble):
    """Nothing describes a critic."""

    def __init__(self, share):
        super().__init__(3, 3, generator=torch.Generator().manual_seed(0))
        self.share = share


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda x: own_parts(gain=x), r"policy\.modules\.denoiser\.gain 1\.0, and this run has 2\.0"),
        (lambda x: own_parts(critic=Shared(x)), r"objective\.modules\.critic\.share 1\.0, and this run has 2\.0"),
        (lambda x: toy(policy=own_parts(gain=x).policy), r"policy\.modules\.denoiser\.gain 1\.0, .* has 2\.0"),
    ],
)
def test_what_a_part_of_ones_own_does_not_tell_tells_runs_apart(make, says, tmp_path):
    fit(make(1.0), episodes=2, out=tmp_path)
    path = tmp_path / "checkpoint.ckpt"
    with pytest.raises(InputError, match=f"cannot be resumed: it was trained with .*{says}"):
        fit(make(2.0), episodes=4, resume=path)
    assert fit(make(1.0), episodes=4, resume=path).episodes == 4


def own_parts(gain=1.0, critic=None):
    env = GuessEnv(2)
    seeded = torch.Generator().manual_seed(0)
    policy = DiffusionPolicy.from_specs(env, steps=2, denoiser=Gained(3, 3, 2, gain=gain, generator=seeded), seed=1)
    critic = CriticEnsemble(3, 3, generator=seeded) if critic is None else critic
    return OffPolicyModule(
        policy,
        LatentDiscreteSACLoss(policy, critic),
        RolloutStream(env, policy, episode_steps=5),
        PackedReplay(50, None),
        guess_transitions,
        learning_rates={"actor": 1e-3, "critic": 1e-3, "alpha": 1e-3},
        batch_size=8,
        start_after=10,
    )


def test_fewer_episodes_than_are_done_are_refused(checkpoint_of_four):
    with pytest.raises(InputError, match=r"has 4 episodes already, so episodes must be at least 4, got 2"):
        fit(toy(), episodes=2, resume=checkpoint_of_four)
    assert fit(toy(), episodes=3, resume=checkpoint_of_four).episodes == 4  # two side by side


def test_transitions_that_are_a_partial_train_and_resume(tmp_path):
    fit(toy(transitions=functools.partial(guess_transitions)), episodes=4, out=tmp_path / "whole")
    fit(toy(transitions=functools.partial(guess_transitions)), episodes=2, out=tmp_path / "half")
    path = tmp_path / "half" / "checkpoint.ckpt"
    fit(toy(transitions=functools.partial(guess_transitions)), episodes=4, out=tmp_path / "half", resume=path)
    assert same_csv(tmp_path, "whole", "half")


def same_csv(folder, *names):
    return len({(folder / name / "training.csv").read_bytes() for name in names}) == 1


class Odd:
    """Transitions that no file describes."""

    def __call__(self, rollout):
        return guess_transitions(rollout)


def test_what_cannot_be_described_is_refused_before_training(tmp_path):
    module = toy(transitions=Odd())
    played = []
    module.stream.rollout = lambda: played.append(1)
    with pytest.raises(InputError, match=r"transitions cannot be described .* could not be resumed"):
        fit(module, episodes=2, out=tmp_path / "out")
    assert not played
    assert not (tmp_path / "out").exists()
    assert fit(toy(transitions=Odd()), episodes=2).episodes == 2


def test_a_checkpoint_of_an_earlier_version_says_what_to_do(tmp_path):
    old = {"state_dict": {}, "diffpolicy": {"identity": "lad-ts on a scenario", "compiled": False, "processes": []}}
    torch.save(old, tmp_path / "old.ckpt")
    with pytest.raises(InputError, match=r"old\.ckpt was written by an earlier version .* resume it with that version"):
        fit(toy(), episodes=2, resume=tmp_path / "old.ckpt")


def test_nothing_of_the_machine_stands_in_a_checkpoint_or_policy(tmp_path):
    method = quick_method("lad-ts", tmp_path)
    (tmp_path / "own.json").write_text(json.dumps(SCENARIO.to_dict()))
    train(method, Scenario.load(tmp_path / "own.json"), episodes=1, out=tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        for place in (tmp_path, Path.home(), Path(__file__).parent, Path.cwd()):
            assert str(place).encode() not in path.read_bytes() or str(place) == "/", path.name


def test_lightnings_loggers_are_left_as_they_were(tmp_path):
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    before = [logger.level for logger in loggers]
    try:
        for logger, level in zip(loggers, (logging.WARNING, logging.DEBUG), strict=True):
            logger.setLevel(level)
        fit(toy(), episodes=2)
        with pytest.raises(InputError):
            fit(toy(), accelerator="nonsense")
        assert [logger.level for logger in loggers] == [logging.WARNING, logging.DEBUG]
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


# Folders


@pytest.mark.parametrize("name", ["checkpoint.ckpt", "training.csv", "policy.json", "policy.safetensors"])
def test_the_folder_of_another_run_is_refused_and_stays_as_it_is(name, tmp_path):
    (tmp_path / name).write_bytes(b"precious")
    for resume in ({}, {"resume": "elsewhere"}):
        if resume:
            fit(toy(), episodes=2, out=tmp_path / "elsewhere")
            resume = {"resume": tmp_path / "elsewhere" / "checkpoint.ckpt"}
        with pytest.raises(InputError, match=f"{tmp_path.name}"):
            fit(toy(), episodes=4, out=tmp_path, **resume)
        assert (tmp_path / name).read_bytes() == b"precious"


def test_files_of_the_users_do_not_matter(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    fit(toy(), episodes=2, out=tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.ckpt", "notes.txt", "training.csv"]


def test_only_the_same_run_goes_on_in_a_folder_and_never_backwards(tmp_path):
    early, late, other = (tmp_path / name for name in ("early", "late", "other"))
    fit(toy(), episodes=2, out=early)
    fit(toy(), episodes=4, out=late)
    fit(toy(1), episodes=2, out=other)
    with pytest.raises(InputError, match=r"late holds 4 episodes of this run already, and .* 2"):
        fit(toy(), episodes=6, out=late, resume=early / "checkpoint.ckpt")
    with pytest.raises(InputError, match=r"other holds another run already, which was trained with seed 1"):
        fit(toy(), episodes=6, out=other, resume=early / "checkpoint.ckpt")
    assert fit(toy(), episodes=4, out=early, resume=late / "checkpoint.ckpt").episodes == 4
    assert fit(toy(), episodes=6, out=late, resume=late / "checkpoint.ckpt").episodes == 6
    assert fit(toy(1), episodes=2, out=late, overwrite=True).episodes == 2


def test_a_full_disk_is_called_one_and_the_last_checkpoint_stays(tmp_path, monkeypatch):
    written = []

    def write_bytes(path, data):
        written.append(path)
        if len(written) == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return path.open("wb").write(data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(InputError, match=r"^cannot write .*checkpoint\.ckpt: No space left on device$"):
        fit(toy(), episodes=20, out=tmp_path, checkpoint_every=1)
    assert checkpoint.read(tmp_path / "checkpoint.ckpt")["run"]["episodes"] == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.ckpt", "training.csv"]
    written[:] = [1, 2, 3]
    module = toy()
    with pytest.raises(InputError, match="No space left on device"):
        fit(module, episodes=20, out=tmp_path / "full")
    assert module.episodes == 0  # tried before the first episode


def test_a_refusal_of_the_environment_keeps_its_words(tmp_path):
    class Refuses(GuessEnv):
        def _step(self, tensordict):
            raise InputError("the clinic is closed")

    with pytest.raises(InputError, match=r"^the clinic is closed$"):
        fit(toy(env=Refuses(2)), episodes=2, out=tmp_path)


# Damaged checkpoints


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "truncated":
        del data[len(data) // 2 :]
    elif how == "zeroed":
        data[:] = bytes(len(data))
    elif how == "empty":
        data.clear()
    elif how == "text":
        data[:] = b"a checkpoint\n"
    elif how == "another pickle":
        data[:] = pickle.dumps({"run": {"schema": "x"}})
    elif how == "another schema":
        torch.save({"run": {"schema": 3}}, path)
        return
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["truncated", "zeroed", "empty", "text", "another pickle", "another schema"])
def test_a_damaged_checkpoint_is_one_sentence(how, checkpoint_of_four, tmp_path):
    path = tmp_path / "bad.ckpt"
    shutil.copy(checkpoint_of_four, path)
    damage(path, how)
    refused(path)


@pytest.mark.parametrize("what", ["nothing", "folder", "pipe", "device"])
def test_what_is_no_file_is_refused_without_waiting(what, tmp_path):
    path = tmp_path / "bad.ckpt"
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    words = {"folder": "is a folder", "pipe": "is a device, a pipe or a socket"}
    refused(path, words.get(what, words["pipe"] if what == "device" else ""))


def refused(path, words=""):
    module = toy()
    with pytest.raises(InputError) as error:
        fit(module, episodes=8, resume=path)
    assert path.name in str(error.value)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert module.episodes == 0


def leaves(value, path=()):
    """Places of everything in nested dictionaries and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, x in items:
        yield (*path, key)
        yield from leaves(x, (*path, key))


def put(data, place, value):
    for key in place[:-1]:
        data = data[key]
    if value is None:
        del data[place[-1]]
    else:
        data[place[-1]] = value


VALUES = (None, -1, 10**30, math.nan, "x", [], {}, torch.zeros(2, 2), torch.full((), math.inf))


def test_no_mutation_of_a_checkpoint_is_more_than_a_sentence(checkpoint_of_four, tmp_path):
    rng = random.Random(0)
    path, whole = tmp_path / "bad.ckpt", checkpoint_of_four.read_bytes()
    same, sentences = 0, []
    for _ in range(160):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 1, 10, 1000))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        path.write_bytes(data)
        try:
            checkpoint.read(path)
            same += 1  # where the file has gaps, nothing that it holds has changed
        except InputError as error:
            sentences.append(str(error))
    assert same < 40
    assert all("bad.ckpt" in sentence and "\n" not in sentence for sentence in sentences)
    for _ in range(40):
        content = torch.load(checkpoint_of_four, weights_only=True)
        put(content, rng.choice([p for p in leaves(content) if p != ("run", "version")]), rng.choice(VALUES))
        torch.save(content, path)
        with pytest.raises(InputError, match=r"bad\.ckpt"):
            checkpoint.read(path)


def test_mutations_that_know_the_digest_are_refused_too(checkpoint_of_four, tmp_path):
    """As if the digest were not there: what Lightning, the module and its parts raise becomes a sentence."""
    rng = random.Random(1)
    path, sentences = tmp_path / "bad.ckpt", []
    for _ in range(24):
        content = torch.load(checkpoint_of_four, weights_only=True)
        places = [p for p in leaves(content) if p[0] not in ("run", "epoch", "global_step") and "history" not in p]
        put(content, rng.choice(places), rng.choice((None, "x", [1], torch.zeros(2, 2))))
        del content["run"]["sha256"]
        content["run"]["sha256"] = content_digest(content)
        torch.save(content, path)
        try:
            fit(toy(), episodes=4, resume=path)
        except InputError as error:
            sentences.append(str(error))
    assert sentences
    assert all("bad.ckpt" in sentence and "\n" not in sentence for sentence in sentences)


# Ends


class Raise(L.Callback):
    """Raises a signal before a step of an episode counted from 0."""

    def __init__(self, episode, *numbers):
        self.episode, self.numbers = episode, numbers

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (self.episode, 3):
            for number in self.numbers:
                signal.raise_signal(number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_pass_and_nothing_is_lost(number, tmp_path):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    fit(toy(), episodes=8, out=tmp_path / "whole")
    fitted = fit(toy(), episodes=8, out=tmp_path / "cut", callbacks=[Raise(1, number)])
    assert (fitted.signal, fitted.interrupted, fitted.episodes) == (number, True, 4)
    path = tmp_path / "cut" / "checkpoint.ckpt"
    fitted = fit(toy(), episodes=8, out=tmp_path / "cut", resume=path)
    assert (fitted.signal, fitted.interrupted) == (None, False)
    assert same_csv(tmp_path, "whole", "cut")
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("last", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_run_at_once_and_the_last_checkpoint_stays(last, tmp_path):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Stopped) as error:
        fit(toy(), episodes=8, out=tmp_path, checkpoint_every=1, callbacks=[Raise(2, signal.SIGINT, last)])
    assert error.value.number == last
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    assert checkpoint.read(tmp_path / "checkpoint.ckpt")["run"]["episodes"] == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.ckpt", "training.csv"]
    assert fit(toy(), episodes=8, resume=tmp_path / "checkpoint.ckpt").episodes == 8


# Environments that cannot save their state, and every module


class Forgetful(GuessEnv):
    """Cannot save its state."""

    get_extra_state = torch.nn.Module.get_extra_state
    set_extra_state = torch.nn.Module.set_extra_state


class Lengths(Forgetful):
    """Each lane ends after a number of steps of its own."""

    def _step(self, tensordict):
        result = super()._step(tensordict)
        over = self.now >= torch.arange(2, 2 + len(self.now)).view(-1, 1)
        return result.set("done", over).set("truncated", over.clone())


def chain(env, seed=0):
    """A policy that remembers its actions, on an environment of its own."""
    method = DiffusionSACMethod(
        transitions=guess_transitions,
        learning_rates={"actor": 1e-3, "critic": 1e-3, "alpha": 1e-3},
        prior={"type": "ActionMemory"},
        hidden=[4],
        steps=2,
        start_after=10,
        capacity=50,
        batch_size=8,
    )
    return method.build(env, episode_steps=5, seed=seed)


def resumes_bitwise(make, folder, episodes, cut):
    """Whether a run that is cut equals one that never stopped: history, and all that is trained."""
    whole, half, rest = make(), make(), make()
    fit(whole, episodes=episodes, out=folder / "whole")
    fit(half, episodes=cut, out=folder / "cut")
    fitted = fit(rest, episodes=episodes, out=folder / "cut", resume=folder / "cut" / "checkpoint.ckpt")
    assert fitted.history == whole.history == rest.history
    assert fitted.episodes == whole.episodes
    assert same_csv(folder, "whole", "cut")
    return same_tensors(whole, rest)


@pytest.mark.parametrize("make", [toy, chain])
@pytest.mark.parametrize("env", [GuessEnv, Forgetful, Lengths])
def test_any_environment_resumes_bitwise(make, env, tmp_path):
    assert resumes_bitwise(lambda: make(env=env(2)), tmp_path, 8, 4)


def test_passes_of_an_environment_without_a_state_differ_and_follow_the_seed():
    def played(seed, world_seed=0):
        torch.manual_seed(world_seed)
        stream = toy(seed, env=Forgetful(2)).stream
        return [torch.cat(list(stream), 1)["observation"] for _ in range(2)]

    first, again, other = played(0), played(0, 1), played(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])


class Pathwise:
    """A rollout of one step of `GuessEnv`: the cost is the chance of a wrong guess."""

    def __init__(self, env):
        self.env = env

    def __call__(self, policy):
        td = self.env.reset()
        p = choice_probabilities(policy, td)
        return TensorDict({"cost": 1 - p.gather(-1, self.env.best().unsqueeze(-1))})


def mean_cost(td):
    return td["cost"].mean()


@pytest.mark.parametrize("env", [GuessEnv, Forgetful])
def test_a_pathwise_run_resumes_bitwise(env, tmp_path):
    def make(seed=0):
        rollout = Pathwise(env(4))
        policy = FeedforwardPolicy.from_specs(rollout.env, seed=seed)
        return PathwiseModule(policy, PathwiseLoss(policy, mean_cost), rollout)

    assert resumes_bitwise(make, tmp_path, 24, 8)
    with pytest.raises(InputError, match=r"policy\.config\.seed 0, and this run has 1"):
        fit(make(1), episodes=24, resume=tmp_path / "cut" / "checkpoint.ckpt")


def test_an_imitation_resumes_bitwise(tmp_path):
    def make(rate=0.02):
        net = torch.nn.Linear(2, 1)
        with torch.no_grad():
            net.weight.fill_(0.1), net.bias.fill_(0)

        def collect(number):
            rows = torch.randn(50, 2, generator=torch.Generator().manual_seed(number))
            return rows, rows.sum(-1, keepdim=True)

        return ImitationModule(
            net,
            collect,
            lambda x, y: (net(x) - y).square().mean(),
            rounds=6,
            updates=5,
            batch_size=8,
            learning_rate=rate,
        )

    assert resumes_bitwise(make, tmp_path, None, 3)
    assert len(checkpoint.read(tmp_path / "cut" / "checkpoint.ckpt")["imitation"]["history"]) == 6
    for other, episodes in ((make(0.1), 6), (make(), 7), (make(), 2)):
        with pytest.raises(InputError, match=r"learning_rate 0\.02|makes 6 in all|at least 6"):
            fit(other, episodes=episodes, resume=tmp_path / "cut" / "checkpoint.ckpt")


def parabola(thetas, generation):
    return ((thetas - 0.3) ** 2).sum(-1)


def test_an_evolution_resumes_bitwise(tmp_path):
    def make():
        net = torch.nn.Linear(3, 1, bias=False)
        torch.nn.init.zeros_(net.weight)
        return EvolutionModule(net, parabola, generations=6, pairs=4)

    assert resumes_bitwise(make, tmp_path, None, 2)
    finished = make()
    before = finished.module.weight.clone()
    fit(finished, resume=tmp_path / "cut" / "checkpoint.ckpt")
    assert not torch.equal(finished.module.weight, before)


def test_evaluating_an_evolution_does_not_disturb_it(tmp_path):
    def make():
        net = torch.nn.Linear(3, 1, bias=False)
        torch.nn.init.zeros_(net.weight)
        return EvolutionModule(net, parabola, generations=6, pairs=4)

    plain, seen = make(), make()
    fit(plain)
    fit(
        seen,
        label="evolution",
        callbacks=[EvaluateEvery(lambda policy: {"norm": float(policy.weight.detach().norm())}, 2)],
    )
    assert same_tensors(plain, seen)
    assert ["norm" in row for row in seen.history] == [False, True] * 3


@pytest.mark.parametrize("options", [{"episodes": 0}, {"episodes": -1}, {"episodes": 2, "max_seconds": math.nan}])
def test_a_length_that_is_none_is_refused(options):
    with pytest.raises(InputError, match=r"must be at least 1, got|must be a number greater than 0, got"):
        fit(toy(), **options)


def test_fit_runs_in_other_threads(tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(fit(toy(), episodes=2, out=tmp_path)))
    thread.start()
    thread.join()
    assert results[0].episodes == 2


def test_the_seed_of_a_policy_is_that_of_its_run(tmp_path):
    method = quick_method("sac-ts", tmp_path)
    train(method, SCENARIO, episodes=1, out=tmp_path / "out", seed=5, module=build(method, SCENARIO, seed=3))
    assert json.loads((tmp_path / "out" / "policy.json").read_text())["trained"]["seed"] == 3
    with pytest.raises(InputError, match=r"trained with seed 3, and this run has 4"):
        train(method, SCENARIO, episodes=2, seed=4, resume=tmp_path / "out" / "checkpoint.ckpt")


class Keep(L.Callback):
    """Saves by itself after each pass."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.folder / "kept" / f"{pl_module.episodes}.ckpt")


def test_checkpoints_of_a_callback_of_the_users_can_be_resumed_from(tmp_path):
    fit(toy(), episodes=4, callbacks=[Keep(tmp_path)])
    path = tmp_path / "kept" / "2.ckpt"
    assert checkpoint.read(path)["run"]["episodes"] == 2
    assert fit(toy(), episodes=4, resume=path).episodes == 4


def doubled(levels):
    """A list that grows to 2^levels entries, but for what it shares."""
    value = ["x"]
    for _ in range(levels):
        value = [value, value]
    return value


def with_itself():
    value = []
    value.append(value)
    return value


BOMBS = {
    "a list that doubles sixty times": lambda: {"run": {"schema": doubled(60)}},
    "a list that doubles within the run": lambda: {"run": {"schema": checkpoint.SCHEMA, "identity": doubled(60)}},
    "a list that holds itself": lambda: {"run": {"schema": checkpoint.SCHEMA, "identity": with_itself()}},
    "a tensor that repeats one number": lambda: {
        "run": {"schema": checkpoint.SCHEMA},
        "state_dict": torch.zeros(1).expand(10**12),
    },
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_checkpoint_does_not_take_long_or_much_memory(name, tmp_path):
    path = tmp_path / "bomb.ckpt"
    torch.save(BOMBS[name](), path)
    refused(path)


def test_a_checkpoint_that_is_packed_tightly_is_refused(checkpoint_of_four, tmp_path):
    path = tmp_path / "packed.ckpt"
    with zipfile.ZipFile(checkpoint_of_four) as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in whole.infolist():
            packed.writestr(entry.filename, whole.read(entry))
    refused(path)


def test_expanded_tensors_are_told_apart():
    a, b = torch.zeros(1).expand(8), torch.ones(1).expand(8)
    assert content_digest(a) == content_digest(torch.zeros(1).expand(8)) != content_digest(b)


# As processes


class Run:
    """`diffpolicy train` in a process of its own, that has written its first checkpoint."""

    def __init__(self, folder, *more):
        words = [
            "train",
            "sac-ts",
            "--stations",
            "2",
            "--tasks",
            "2",
            "--slots",
            "2",
            "--episodes",
            "1000000",
            "--out",
            "run",
        ]
        command = [sys.executable, "-m", "diffpolicy", *words, *more]
        self.out, self.log = folder / "run", folder / "stderr.txt"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=log)
        until(lambda: (self.out / "checkpoint.ckpt").is_file())

    def end(self, *numbers):
        """Sends signals; the exit status, and the last line on stderr."""
        for number in numbers:
            self.process.send_signal(number)
            time.sleep(0.05)
        return self.process.wait(120), self.log.read_text(errors="replace").strip().splitlines()[-1]

    def children(self):
        """Processes beside the first, by their working folder."""
        found = set()
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and (entry / "cwd").resolve() == self.out.parent.resolve():
                    found.add(int(entry.name))
        return found - {self.process.pid}


def until(what, seconds=240):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("numbers", "status"),
    [
        ([signal.SIGTERM], 143),
        ([signal.SIGINT], 130),
        ([signal.SIGINT, signal.SIGINT], 130),
        ([signal.SIGTERM] * 2, 143),
    ],
)
@pytest.mark.parametrize("devices", [1, 2])
def test_a_signal_ends_a_training_with_its_status_and_nobody_is_left(numbers, status, devices, tmp_path):
    run = Run(tmp_path, "--devices", str(devices))
    assert run.end(*numbers)[0] == status
    until(lambda: not run.children(), 10)
    done = checkpoint.read(run.out / "checkpoint.ckpt")["run"]["episodes"]
    assert done >= 50
    if len(numbers) == 1:
        assert run.end()[1].startswith(f"diffpolicy: {'Ctrl-C' if status == 130 else 'SIGTERM'} after {done} episodes")
        assert (run.out / "policy.json").is_file()
    assert {p.name for p in run.out.iterdir()} <= {*checkpoint.OURS}


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them(tmp_path):
    run = Run(tmp_path, "--devices", "2")
    assert len(run.children()) == 1
    run.process.kill()
    run.process.wait()
    until(lambda: not run.children(), 10)
    assert checkpoint.read(run.out / "checkpoint.ckpt")["run"]["episodes"] >= 50


def test_a_functions_set_of_constants_is_the_same_in_any_order():
    def first(x):
        return x in {0, 8}

    def second(x):
        return x in {0, 8}

    other = tuple(frozenset([8, 0]) if isinstance(x, frozenset) else x for x in first.__code__.co_consts)
    second.__code__ = first.__code__.replace(co_consts=other)  # as the order of texts changes from process to process
    second.__qualname__ = first.__qualname__
    assert repr(first.__code__.co_consts) != repr(second.__code__.co_consts)
    assert describe(first) == describe(second)


def test_a_recursive_function_is_described_and_what_holds_itself_is_refused():
    def counted(n):
        return n if n < 1 else counted(n - 1)

    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n != 0 and even(n - 1)

    assert describe(counted) == describe(counted)
    with pytest.raises(InputError, match="holds itself"):
        describe(even, "transitions")


def test_environments_of_other_tasks_are_others(tmp_path):
    def digest(work):
        file = tmp_path / "tasks.csv"
        file.write_text(f"slot,origin,input_mbit,result_mbit,gcycles_per_step,steps\n0,0,1,1,{work},5\n")
        scenario = Scenario.lad_ts()
        return OffloadingEnv(scenario, tasks=TaskList.read(file, scenario)).digest()

    assert digest(1) == digest(1) != digest(9)
