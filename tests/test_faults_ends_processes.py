"""Stopping and killing comparisons and fleet trainings, folders with one writer, and files that are never half."""

import json
import multiprocessing
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from diffpolicy import InputError, _files
from diffpolicy._alone import NAME, alone_in
from diffpolicy.edge import OffloadingProblem
from diffpolicy.edge.pricing.training import train
from diffpolicy.edge.pricing.training.player import Recipe
from diffpolicy.edge.pricing.training.train import train_rule
from diffpolicy.errors import WorkError
from diffpolicy.experiments import workers
from diffpolicy.experiments.plan import Plan, jobs_of
from diffpolicy.experiments.run import told
from diffpolicy.experiments.work import finished, recorded, work
from diffpolicy.experiments.workers import run_jobs
from diffpolicy.training.evolution import EvolutionModule
from diffpolicy.training.imitation import ImitationModule
from toys import quick_method, same_tensors, small

WAIT_S = 240
"""For what takes seconds on a machine that does nothing else."""
SCENARIO = small(2, 3, 4)
SMALL = ["--stations", "2", "--tasks", "3", "--slots", "4", "--eval-episodes", "1"]
nobody_windows = pytest.mark.skipif(sys.platform == "win32", reason="signals and locks of POSIX")


def begin(*words, folder):
    """The command in a session of its own, as a shell would start it."""
    return subprocess.Popen(
        [sys.executable, "-m", "diffpolicy", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        start_new_session=True,
    )


def until(condition, process, what):
    end = time.monotonic() + WAIT_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, what
        time.sleep(0.05)


def descendants(pid):
    """Live processes that a process has started, and theirs."""
    found, parents = [], {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    waiting = [pid]
    while waiting:
        mine = parents.get(waiting.pop(), [])
        found += mine
        waiting += mine
    return found


def gone(pids, within_s=30.0):
    """Whether none of the processes runs any more."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        states = []
        for pid in pids:
            try:
                states.append(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0])
            except OSError:
                continue
        if all(state in "ZX" for state in states):
            return True
        time.sleep(0.05)
    return False


def contents(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(Path(folder).rglob("*")) if path.is_file()}


# Comparisons


def endless(folder):
    """A comparison that goes on until it is stopped, once it trains; and all its processes."""
    file = quick_method("sac-ts", folder, start_after=5)
    process = begin("compare", "--methods", file, *SMALL, "--episodes", 10**6, "--out", "out", folder=folder)
    until(lambda: list(folder.glob("out/policies/*/seed-0/training.csv")), process, "no training began")
    return process, descendants(process.pid)


def left_behind(folder):
    """The training's folder, which holds a checkpoint and nothing half-written."""
    (inner,) = folder.glob("out/policies/*/seed-0")
    assert {path.name for path in inner.iterdir()} >= {"checkpoint.ckpt", "training.csv"}
    assert not [path for path in folder.rglob(".*") if path.name != NAME]
    return inner


@nobody_windows
def test_a_comparison_ends_on_sigterm_with_its_processes(tmp_path):
    process, others = endless(tmp_path)
    assert others
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 143, err
    assert out == ""
    assert err.splitlines()[-1] == "diffpolicy: stopped by SIGTERM"
    assert "Traceback" not in err
    assert gone(others, 5.0)
    inner, before = left_behind(tmp_path), contents(tmp_path)
    assert json.loads((inner / "outcome.json").read_text())["finished"] is False
    time.sleep(1.0)
    assert contents(tmp_path) == before


@nobody_windows
@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_a_comparison_with_130(times, tmp_path):
    process, others = endless(tmp_path)
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
        time.sleep(0.1)
    _, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert gone(others, 5.0)
    left_behind(tmp_path)


@nobody_windows
@pytest.mark.slow
def test_nobody_trains_on_when_the_comparison_is_killed(tmp_path):
    process, others = endless(tmp_path)
    process.kill()
    process.communicate(timeout=WAIT_S)  # ends only once nobody holds stdout any more
    assert gone(others)
    inner, before = left_behind(tmp_path), contents(tmp_path)
    time.sleep(1.0)
    assert contents(tmp_path) == before
    assert (tmp_path / "out" / NAME).is_file()
    with alone_in(tmp_path / "out"), alone_in(inner):  # what is left of a lock keeps nobody out
        pass


def test_a_worker_watches_its_parent_before_it_takes_work(monkeypatch):
    """One that has nothing to say would not notice by its pipe that nobody is there any more."""
    seen = []
    monkeypatch.setattr(workers.os, "setpgrp", lambda: None, raising=False)
    monkeypatch.setattr(workers._signals, "end_with", seen.append)
    pipe = SimpleNamespace(recv=lambda: seen.append("work"))
    workers._serve(pipe, 123)
    assert seen == [123, "work"]


def plan(folder, methods, **changes):
    common = {"episodes": 2, "eval_episodes": 1, "seconds": None, "processes": 2}
    return Plan(OffloadingProblem(SCENARIO), methods, folder / "out", **{**common, **changes})


def test_a_failed_job_ends_the_others_and_is_named(tmp_path, monkeypatch):
    """One job fails at once, the other would train for hours."""
    started, start, fork = [], workers._start, multiprocessing.get_context("fork")
    monkeypatch.setattr(workers, "_start", lambda: started.append(start()) or started[-1])
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: fork)  # where nothing is imported again
    endless = quick_method("sac-ts", tmp_path)
    broken = tmp_path / "broken.yaml"
    broken.write_text(Path(quick_method("dqn-ts", tmp_path)).read_text())
    jobs = jobs_of(plan(tmp_path, [endless, str(broken)], episodes=10**6), time.monotonic())[:2]
    broken.write_text("class_path: nowhere.Method\n")
    with pytest.raises(InputError, match=r"broken\.yaml, seed 0 failed: .*nowhere"):
        list(run_jobs([replace(job, resume=False) for job in jobs], 2))
    assert [worker.process.is_alive() for worker in started] == [False, False]


@nobody_windows
def test_a_process_that_is_killed_is_one_sentence(tmp_path, monkeypatch):
    job = jobs_of(plan(tmp_path, [quick_method("sac-ts", tmp_path)], episodes=10**6), time.monotonic())[0]
    start = workers._start

    def killed():
        worker = start()
        worker.process.kill()
        return worker

    monkeypatch.setattr(workers, "_start", killed)
    with pytest.raises(WorkError, match=r"sac-ts\.yaml, seed 0 failed: its process was killed by SIGKILL"):
        list(run_jobs([job], 2))  # with one process it would be done here


@nobody_windows
@pytest.mark.slow
def test_a_process_that_is_killed_as_it_writes_is_one_sentence_and_nothing_half_stays(tmp_path, monkeypatch):
    job = first_job(tmp_path, episodes=10**6)
    shares, to_disk, here, fork = [], _files._to_disk, os.getpid(), multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: fork)  # what is patched is so in the worker too

    def killed(aside):
        to_disk(aside)
        if os.getpid() != here and "checkpoint.ckpt" in aside.name and (job.out / "checkpoint.ckpt").is_file():
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(_files, "_to_disk", killed)
    with pytest.raises(WorkError, match=r"sac-ts\.yaml, seed 0 failed: its process was killed by SIGKILL"):
        list(run_jobs([job], 2, lambda job, share: shares.append(share)))
    assert shares
    assert [path for path in job.out.iterdir() if _files.ASIDE.fullmatch(path.name)]
    assert finished(job) is None
    with alone_in(job.out):
        assert not [path for path in job.out.iterdir() if _files.ASIDE.fullmatch(path.name)]
    assert len(work(first_job(tmp_path, episodes=4, resume=True)).history) == 4


@nobody_windows
@pytest.mark.parametrize("sent", [b"", b"\0\0", b"\0\0\0\x64half"])
def test_what_a_killed_process_has_sent_by_half_is_one_sentence(sent, tmp_path):
    mine, theirs = multiprocessing.Pipe()
    os.write(theirs.fileno(), sent)
    theirs.close()
    process = SimpleNamespace(join=lambda: None, exitcode=-signal.SIGTERM)
    with pytest.raises(WorkError, match=r"seed 0 failed: its process was killed by SIGTERM"):
        workers.Worker(process, mine, first_job(tmp_path)).answer()
    mine.close()


# Going on with a comparison


def first_job(folder, **changes):
    file = folder / "sac-ts.yaml"
    method = str(file) if file.is_file() else quick_method("sac-ts", folder, start_after=5)
    return jobs_of(plan(folder, [method], **changes), time.monotonic())[0]


def test_a_job_whose_identity_changed_is_trained_again_and_says_so_once(tmp_path):
    work(first_job(tmp_path, episodes=4))
    with pytest.warns(UserWarning, match="is trained again") as told:
        assert len(work(first_job(tmp_path, episodes=3, resume=True)).history) == 3
    told = [str(one.message) for one in told if "is trained" in str(one.message)]
    assert len(told) == 1
    assert "outcome.json is not taken: it was trained with episodes 4, and this run has 3; so" in told[0]
    assert "sac-ts.yaml, seed 0 is trained again" in told[0]


def test_a_job_under_a_time_limit_is_taken_when_its_share_was_used_up(tmp_path):
    """The default: no number of episodes, and seconds that a clock has taken something off."""
    limit = {"episodes": None, "seconds": 300.0}
    job = first_job(tmp_path, **limit)
    work(replace(job, seconds=0.01))
    again = first_job(tmp_path, resume=True, **limit)
    assert again.seconds != job.seconds
    assert again.identity() == job.identity()
    taken = work(again)
    assert taken.taken
    assert taken.history == recorded(job)["history"]
    assert finished(first_job(tmp_path, episodes=None, seconds=600.0)) is None


def test_what_is_taken_is_told(tmp_path):
    work(replace(first_job(tmp_path, episodes=None, seconds=75.0), seconds=0.01))
    taken = work(first_job(tmp_path, episodes=None, seconds=75.0, resume=True))
    found = re.fullmatch(r"taken from an earlier run: (.*), seed 0: (\d+) episodes in .* s, (.*); mean .*", told(taken))
    assert found[1].endswith("sac-ts.yaml")
    assert int(found[2]) == len(taken.history)
    assert found[3] == "which was its share of the time (10 s)"


@pytest.mark.parametrize(
    "changes", [{"gamma": 0.5}, {"learning_rates": {"actor": 1e-5, "critic": 1e-3, "alpha": 1e-3}}]
)
def test_another_method_of_the_same_name_is_not_taken(changes, tmp_path):
    work(first_job(tmp_path))
    assert finished(first_job(tmp_path)) is not None
    quick_method("sac-ts", tmp_path, start_after=5, **changes)
    assert finished(first_job(tmp_path)) is None


def test_a_job_that_was_stopped_goes_on_bit_for_bit(tmp_path):
    whole, half = (first_job(folder) for folder in (tmp_path, tmp_path))
    whole = work(replace(whole, out=tmp_path / "whole", episodes=4))
    work(replace(half, out=tmp_path / "half", episodes=2))
    kept = json.loads((tmp_path / "half" / "outcome.json").read_text())
    job = replace(half, out=tmp_path / "half", episodes=4, resume=True)
    kept |= {"job": job.identity(), "finished": False}
    (tmp_path / "half" / "outcome.json").write_text(json.dumps(kept))
    resumed = work(job)
    assert not resumed.taken
    assert resumed.history == whole.history
    assert (resumed.played.cost == whole.played.cost).all()
    assert resumed.train_seconds > kept["train_seconds"]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"job": 1}'])
def test_a_damaged_outcome_says_nothing(damage, tmp_path):
    job = first_job(tmp_path)
    job.out.mkdir(parents=True)
    (job.out / "outcome.json").write_bytes(damage)
    assert finished(job) is None


# Training over fleets

RECIPE = Recipe("live", 1, False, rounds=2, generations=3, pairs=1)


def stop_at(module, monkeypatch, call, number=signal.SIGTERM):
    """Raises a signal in a module's training step of that number."""
    step, count = module.training_step, [0]

    def stopping(self, round_, batch_idx):
        step(self, round_, batch_idx)
        count[0] += 1
        if count[0] == call:
            signal.raise_signal(number)

    monkeypatch.setattr(module, "training_step", stopping)


@nobody_windows
@pytest.mark.parametrize(("module", "call"), [(ImitationModule, 1), (ImitationModule, 2), (EvolutionModule, 2)])
def test_a_fleet_training_that_was_stopped_goes_on_bit_for_bit(module, call, tmp_path, monkeypatch, few_fleets):
    whole = train_rule(RECIPE, hidden=8)
    with monkeypatch.context() as patch:
        stop_at(module, patch, call)
        with pytest.raises(KeyboardInterrupt) as stopped:
            train_rule(RECIPE, hidden=8, out=tmp_path)
    assert stopped.value.number == signal.SIGTERM
    assert same_tensors(train_rule(RECIPE, hidden=8, out=tmp_path, resume=True), whole)


def test_a_fleet_training_resumes_nothing_else(tmp_path, few_fleets):
    with pytest.raises(InputError, match=r"has no checkpoint\.ckpt to resume"):
        train_rule(RECIPE, hidden=8, out=tmp_path, resume=True)
    train_rule(RECIPE, hidden=8, out=tmp_path)
    with pytest.raises(InputError, match="holds another run already"):
        train_rule(RECIPE, hidden=8, out=tmp_path)
    with pytest.raises(InputError, match=r"checkpoint.* cannot be resumed: it was trained with seed 0, .* has 1"):
        train_rule(RECIPE, hidden=8, out=tmp_path, resume=True, seed=1)
    with pytest.raises(InputError, match=r"cannot be resumed: it was trained with recipe\.pairs 1"):
        train_rule(replace(RECIPE, pairs=2), hidden=8, out=tmp_path, resume=True)


@nobody_windows
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_train_fleet_ends_with_a_checkpoint(number, status, tmp_path, monkeypatch, cli, few_fleets):
    monkeypatch.setitem(train.RECIPES, "price", RECIPE)
    stop_at(ImitationModule, monkeypatch, 1, number)
    result = cli("train-fleet", "price", "--out", tmp_path / "out")
    assert result.status == status, result
    told, why = result.err.splitlines()[-2:]
    assert "go on with the same command and --resume" in told
    assert why.startswith("diffpolicy: stopped by ")
    assert "wrote" not in result.out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"checkpoint.ckpt", "training.csv"}


@nobody_windows
@pytest.mark.slow
def test_a_process_of_train_fleet_ends_with_a_checkpoint(tmp_path):
    """As a supervisor does it, to a process of its own, which takes a round of the real recipe: ten seconds."""
    process = begin("train-fleet", "price", "--out", "out", folder=tmp_path)
    until((tmp_path / "out" / "checkpoint.ckpt").is_file, process, "no checkpoint was written")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 143, err
    assert "--resume" in err
    assert "Traceback" not in err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"checkpoint.ckpt", "training.csv"}


# Folders and files


HOLD = """
import sys, time
from diffpolicy._alone import alone_in
with alone_in(sys.argv[1]):
    print("in", flush=True)
    time.sleep(600)
"""


@nobody_windows
def test_a_folder_has_one_writer_and_a_killed_one_keeps_nobody_out(tmp_path, monkeypatch, cli):
    monkeypatch.setattr("diffpolicy._alone.PATIENCE_S", 0.1)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "in\n"
        abandoned = tmp_path / f".checkpoint.ckpt.{_files.machine()}-{holder.pid}-0123456789abcdef.ckpt"
        abandoned.write_text("half")
        with pytest.raises(InputError, match=f"is being written by process {holder.pid};"), alone_in(tmp_path):
            pass
        said = []
        for words in (
            ["train", "sac-ts", "--episodes", 1],
            ["compare", "--methods", "sac-ts", "--episodes", 1],
            ["train-fleet", "live", "--generations", 1, "--rounds", 1],
            ["evaluate", "opt-ts", "--eval-episodes", 1],
        ):
            result = cli(*words, *(SMALL[:6] if words[0] != "train-fleet" else []), "--out", tmp_path)
            assert result.status == 2
            said.append(result.err)
        assert all(f"is being written by process {holder.pid}" in text for text in said)
        assert {path.name for path in tmp_path.iterdir()} == {NAME, abandoned.name}
    finally:
        holder.kill()
        holder.wait()
    with alone_in(tmp_path), alone_in(tmp_path):
        assert not abandoned.exists()
    assert not list(tmp_path.iterdir())


def test_two_threads_do_not_write_to_one_folder(tmp_path):
    said = []

    def enter():
        try:
            with alone_in(tmp_path / "x"):
                pass
        except InputError as error:
            said.append(str(error))

    with alone_in(tmp_path / "x"):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    assert f"process {os.getpid()}" in said[0]


@nobody_windows
def test_writing_neither_sets_the_umask_nor_ignores_it(tmp_path, monkeypatch):
    before = os.umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask of all threads was set"))
        _files.write_text(tmp_path / "a.txt", "text")
    finally:
        monkeypatch.undo()
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


@nobody_windows
def test_what_killed_writers_left_goes_and_what_live_ones_write_stays(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left, live, other, mine, elsewhere = (
        tmp_path / f".a.txt.{_files.machine()}-{dead.pid}-0123456789abcdef.txt",
        tmp_path / f".a.txt.{_files.machine()}-{os.getpid()}-0123456789abcdef.txt",
        tmp_path / f".b.txt.{_files.machine()}-{dead.pid}-0123456789abcdef.txt",
        tmp_path / ".a.txt.of-mine",
        tmp_path / f".a.txt.{'0' * 8}-{dead.pid}-0123456789abcdef.txt",  # of another machine that shares the folder
    )
    for path in (left, live, other, mine, elsewhere):
        path.write_text("half")
    _files.write_text(tmp_path / "a.txt", "text")
    assert [path.exists() for path in (left, live, other, mine, elsewhere)] == [False, True, True, True, True]
    with alone_in(tmp_path):
        assert [path.exists() for path in (left, live, other, mine, elsewhere)] == [False, True, False, True, True]


def test_machines_that_share_a_folder_have_names_of_their_own(tmp_path, monkeypatch):
    aside = _files.aside_of(tmp_path / "a.txt")
    assert _files.ASIDE.fullmatch(aside.name)["machine"] == _files.machine()
    monkeypatch.setattr("socket.gethostname", lambda: "another.one")
    aside.write_text("half")
    monkeypatch.setattr(_files, "alive", lambda pid: False)  # as that machine would see it
    _files.remove_abandoned(tmp_path)
    assert aside.exists()


@nobody_windows
def test_a_writer_of_another_machine_is_named_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr("diffpolicy._alone.PATIENCE_S", 0.0)
    monkeypatch.setattr("diffpolicy._alone._held", {})
    with alone_in(tmp_path):
        (tmp_path / NAME).write_text("123 node-7")
        monkeypatch.setattr("diffpolicy._alone._held", {})  # as another process sees it
        with pytest.raises(InputError, match="is being written by process 123 of node-7;"), alone_in(tmp_path):
            pass
        monkeypatch.setattr("diffpolicy._alone._held", {tmp_path.resolve(): threading.get_ident()})


@pytest.mark.parametrize("folder", ["new", "new/and/deeper"])
def test_a_folder_that_nothing_was_written_into_goes_again(folder, tmp_path):
    with alone_in(tmp_path / folder):
        assert (tmp_path / folder).is_dir()
    assert not list(tmp_path.iterdir())
    with alone_in(tmp_path / folder):
        (tmp_path / folder / "a.txt").write_text("kept")
    assert (tmp_path / folder / "a.txt").is_file()
    (tmp_path / "empty").mkdir()
    with alone_in(tmp_path / "empty"):
        pass
    assert (tmp_path / "empty").is_dir()  # it was there before


@pytest.mark.parametrize(
    "words",
    [
        ["train", "sac-ts", "--set", "gamma=3"],
        ["compare", "--methods", "sac-ts", "--policies", "nothing"],
        ["evaluate", "nothing"],
    ],
)
def test_a_command_that_is_refused_leaves_no_folder(words, tmp_path, cli):
    assert cli(*words, "--out", tmp_path / "out").status == 2
    assert not (tmp_path / "out").exists()


@nobody_windows
@pytest.mark.slow
@pytest.mark.parametrize("wait", [0.0, 0.5])
def test_train_fleet_that_is_told_twice_leaves_no_empty_folder(wait, tmp_path):
    process = begin("train-fleet", "price", "--out", "out", folder=tmp_path)
    until((tmp_path / "out").is_dir, process, "no folder was made")
    time.sleep(wait)
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    _, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 143, err
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("no"), KeyboardInterrupt()])
def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(error, tmp_path):
    _files.write_text(tmp_path / "a.txt", "old")

    def fail(aside):
        aside.write_text("half of the n")
        raise error

    with pytest.raises((InputError, ValueError, KeyboardInterrupt)):
        _files.write(tmp_path / "a.txt", fail)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "old"}


@nobody_windows
def test_a_lock_that_cannot_be_opened_is_refused_in_one_sentence(tmp_path):
    (tmp_path / NAME).mkdir()  # as one that belongs to somebody else
    with pytest.raises(InputError, match="cannot write to the output folder"), alone_in(tmp_path):
        pass


EXITING = """
import atexit, sys, time
atexit.register(lambda: (print("exiting", flush=True), time.sleep(30)))
from diffpolicy.cli.main import main
sys.argv[1:] = ["--version"]
sys.exit(main())
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_while_the_process_exits_has_its_status_too(number, status):
    process = subprocess.Popen(
        [sys.executable, "-c", EXITING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while process.stdout.readline().strip() not in ("exiting", ""):
        pass
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (status, "")
