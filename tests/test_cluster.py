"""Comparisons on a cluster: the same bits as in processes of this machine, and nothing shared but what is sent."""

import csv
import importlib.util
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace

import pytest

from diffpolicy import EnvProblem, InputError
from diffpolicy.cli.main import main
from diffpolicy.edge import OffloadingProblem
from diffpolicy.errors import WorkError
from diffpolicy.experiments import parcels
from diffpolicy.experiments.cluster import run_on
from diffpolicy.experiments.parcels import do, read_folder
from diffpolicy.experiments.plan import Plan, jobs_of
from diffpolicy.experiments.ray_cluster import RayCluster
from diffpolicy.experiments.run import compare
from diffpolicy.experiments.work import recorded
from diffpolicy.experiments.workers import Failure, run_jobs
from diffpolicy.problems.clinic import Clinic
from toys import quick_method, small

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra ray")
SCENARIO = small(2, 3, 4)
OF_TIME = {"training_s", "decisions_per_second"}


class Elsewhere:
    """A cluster whose machine has none of this one's folders: what is sent is all that it has.

    Args:
        folder: in which it works. fails: takes a parcel's job, and says how its task dies, if it does.
    """

    slots = 2

    def __init__(self, folder, fails=lambda task: None):
        self.folder, self.fails = folder, fails
        self.parcels, self.stopped = {}, []

    def begin(self, parcel):
        task = len(self.parcels)
        self.parcels[task] = pickle.loads(pickle.dumps(replace(parcel, folder="/nowhere")))
        return task

    def ended(self, tasks, timeout_s):
        return tasks[-1:]  # in another order than they began

    def result(self, task):
        if (why := self.fails(task)) is not None:
            raise WorkError(why)
        before = os.getcwd()
        os.chdir(self.folder)
        try:
            return pickle.loads(pickle.dumps(do(self.parcels[task])))
        finally:
            os.chdir(before)

    def stop(self, task, at_once):
        self.stopped.append((task, at_once))


def rows(folder):
    with open(folder / "comparison.csv") as file:
        return [{k: v for k, v in row.items() if k not in OF_TIME} for row in csv.DictReader(file)]


def plan(folder, methods, **changes):
    common = {"episodes": 2, "eval_episodes": 1, "seconds": None, "policies": []}
    return Plan(OffloadingProblem(SCENARIO), methods, folder, **{**common, **changes})


def test_a_cluster_gives_the_same_bits_and_goes_on_from_what_came_back(tmp_path, monkeypatch):
    """Method and policy are files by relative names; the resumed job is taken as it is, without training it again."""
    there = tmp_path / "there"
    there.mkdir()
    monkeypatch.chdir(tmp_path)
    quick_method("sac-ts", tmp_path)
    here, sent = (
        jobs_of(plan(tmp_path / name, ["sac-ts.yaml"], policies=["here/policies/sac-ts.yaml/seed-0"]), time.monotonic())
        for name in ("here", "sent")
    )
    chosen = [0, 1, -1]  # the training, the baseline and the policy that was trained
    ours = list(run_jobs([here[k] for k in chosen], 1))
    theirs = list(run_on(Elsewhere(there), [sent[k] for k in chosen], 2))
    assert [o.job for o in theirs] == [sent[k] for k in (1, -1, 0)]
    for mine, other in zip(ours, [theirs[2], *theirs[:2]], strict=True):
        assert other.played.cost.tolist() == mine.played.cost.tolist()
        assert other.history == mine.history
    written, back = read_folder(here[0].out), read_folder(sent[0].out)
    assert back.keys() == written.keys()
    assert back["policy.safetensors"] == written["policy.safetensors"]
    assert not list(there.iterdir())

    (again,) = run_on(Elsewhere(there), [replace(sent[0], resume=True)], 1)
    assert again.taken
    assert again.played.cost.tolist() == ours[0].played.cost.tolist()


def test_a_comparison_does_as_much_at_a_time_as_its_cluster_can(tmp_path):
    options = {"methods": [], "eval_episodes": 1, "out": tmp_path, "cluster": Elsewhere(tmp_path)}
    assert compare("clinic", policies=[], **options).plan.processes == 2
    with pytest.raises(InputError, match="problem mine cannot be sent to a cluster: name it as module:attribute"):
        compare(EnvProblem(lambda batch, seed: Clinic(batch, seed), steps=5, name="mine"), **options)


def test_what_fails_on_a_cluster_is_one_sentence_and_stops_the_rest(tmp_path):
    jobs = jobs_of(plan(tmp_path, [quick_method("sac-ts", tmp_path)], seeds=2), time.monotonic())[:2]
    dies = Elsewhere(tmp_path, lambda task: "its task died: OutOfMemoryError" if task else None)
    with pytest.raises(WorkError, match=r"sac-ts\.yaml, seed 1 failed: its task died: OutOfMemoryError$"):
        list(run_on(dies, jobs, 2))
    assert dies.stopped == [(0, False)]
    assert recorded(jobs[0])["finished"]  # what the other had done came back

    other = Elsewhere(tmp_path)
    other.begin = lambda parcel: Elsewhere.begin(other, replace(parcel, version="0.0"))
    with pytest.raises(InputError, match=r"seed 0 failed: diffpolicy .* is installed there, and 0\.0 here"):
        list(run_on(other, jobs[:1], 1))

    lost = Elsewhere(tmp_path)
    lost.begin = lambda parcel: Elsewhere.begin(lost, replace(parcel, job=b"cnowhere\nproblem\n."))
    with pytest.raises(InputError, match=r"seed 0 failed: No module named 'nowhere'"):
        list(run_on(lost, jobs[:1], 1))


@pytest.mark.parametrize("when", ["_unpack", "outcome_of", "read_folder", "cleanup"])
def test_a_task_that_is_asked_to_stop_gives_back_what_it_has(tmp_path, monkeypatch, when):
    """The signal comes in turn while its files are written, while it works, while they are read, and after that."""
    job = jobs_of(plan(tmp_path, [quick_method("sac-ts", tmp_path)]), time.monotonic())[0]

    def outcome_of(job, tell):
        (job.out / "checkpoint.ckpt").write_bytes(b"half")
        return Failure("it ended", True, "")

    monkeypatch.setattr(parcels, "outcome_of", outcome_of)
    owner = tempfile.TemporaryDirectory if when == "cleanup" else parcels
    once, does = [True], getattr(owner, when)

    def interrupted(*given):
        made = None if when == "_unpack" else does(*given)
        if once:
            once.clear()
            raise KeyboardInterrupt
        return made

    parcel = parcels.pack(job)
    monkeypatch.setattr(owner, when, interrupted)
    reply = do(parcel)
    assert not once
    assert reply.files == ({} if when == "_unpack" else {"checkpoint.ckpt": b"half"})
    assert (reply.outcome is None) == (when in ("_unpack", "outcome_of"))


def test_a_cluster_that_there_is_not_is_refused(monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["compare", "--cluster", "dask"])
    assert "--cluster: must be ray or ray:ADDRESS" in capsys.readouterr().err
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name == "ray" else found(name))
    with pytest.raises(InputError, match=r"there is no cluster of Ray at '127\.0\.0\.1:9': "):
        RayCluster.connected("127.0.0.1:9").__enter__()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="--cluster ray needs the extra 'ray': pip install"):
        RayCluster.connected(None).__enter__()


@needs_ray
@pytest.mark.slow
def test_what_is_stopped_on_ray_goes_on_there_with_the_bits_of_this_machine(tmp_path):
    """A minute on a quiet machine: on clusters that Ray starts here, stopped in the midst of training and taken up."""
    quick_method("sac-ts", tmp_path, start_after=5)
    words = "--methods sac-ts.yaml --policies random --stations 2 --tasks 3 --slots 4 --eval-episodes 1"
    env = {**os.environ, "RAY_ADDRESS": "", "RAY_TMPDIR": tempfile.gettempdir(), "TMPDIR": str(tmp_path)}

    begun = []

    def begin(*more):
        command = [sys.executable, "-m", "diffpolicy", "compare", *words.split(), *more]
        begun.append(subprocess.Popen(command, cwd=tmp_path, env=env, stdout=-1, stderr=-1, text=True))
        return begun[-1]

    try:
        endless = begin("--cluster", "ray", "--episodes", "1000000", "--out", "sent")
        end = time.monotonic() + 300
        while not list(tmp_path.glob("diffpolicy-*/out/training.csv")):
            assert endless.poll() is None, endless.communicate()
            assert time.monotonic() < end
            time.sleep(0.1)
        endless.send_signal(signal.SIGTERM)
        _, told = endless.communicate(timeout=120)
        assert endless.returncode == 143, told
        assert told.splitlines()[-1] == "diffpolicy: stopped by SIGTERM"
        assert not list(tmp_path.glob("diffpolicy-*"))
        (inner,) = (tmp_path / "sent" / "policies").glob("*/seed-0")
        assert {"checkpoint.ckpt", "outcome.json", "training.csv"} <= read_folder(inner).keys()
        episodes = str(len((inner / "training.csv").read_text().splitlines()) + 2)

        on_ray = begin("--cluster", "ray", "--episodes", episodes, "--out", "sent", "--resume")
        _, told = on_ray.communicate(timeout=300)
        assert on_ray.returncode == 0, told
        here = begin("--processes", "1", "--episodes", episodes, "--out", "here")
        _, told = here.communicate(timeout=300)
        assert here.returncode == 0, told
        assert rows(tmp_path / "sent") == rows(tmp_path / "here")
    finally:
        for process in begun:
            if process.poll() is None:  # it ends what it began on the cluster, too
                process.terminate()
                process.communicate(timeout=60)
