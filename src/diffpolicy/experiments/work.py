"""Doing one job of a comparison: taking up what an earlier run left of it, training, and playing."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import lightning as L
import torch

from diffpolicy import _files
from diffpolicy import _validate as check
from diffpolicy._identity import check_same, describe, difference
from diffpolicy._signals import Stopped
from diffpolicy.environments.entrants import make_policy
from diffpolicy.errors import InputError
from diffpolicy.evaluation.evaluating import play_episodes
from diffpolicy.experiments.plan import Job, Outcome
from diffpolicy.experiments.training import build, run
from diffpolicy.training import checkpoint

OUTCOME = 2**30
"""The most bytes of an outcome, which holds a row a pass, of less than two hundred: five million passes."""


def recorded(job: Job) -> dict[str, Any] | None:
    """What an earlier run wrote of the same job into its folder; None if it was another, or wrote nothing."""
    if job.out is None or not (job.out / "outcome.json").is_file():
        return None
    path = job.out / "outcome.json"
    try:
        data = check.read_json(path, "outcome file", OUTCOME)
    except InputError as error:
        warnings.warn(f"{error}; so {job.named()} is trained again", stacklevel=2)
        return None
    if not isinstance(data, dict) or difference(data.get("job"), job.identity()) is not None:
        return None
    if not _is_record(data, job.problem.cost.column):
        warnings.warn(
            f"outcome file {path} does not hold what a run leaves behind; so {job.named()} is trained again",
            stacklevel=2,
        )
        return None
    return data


def _is_record(data: dict[str, Any], column: str) -> bool:
    """Whether an outcome file holds what `work` writes: whether it ended, its seconds, and rows of finite numbers.

    Args:
        data: of the file. column: in which the history has the problem's cost.
    """
    if not _is_count(data.get("updates")):
        return False
    history = data.get("history")
    if not isinstance(data.get("finished"), bool) or not _is_seconds(data.get("train_seconds")):
        return False
    return isinstance(history, list) and all(
        isinstance(row, dict) and {"episode", column} <= row.keys() and all(map(_is_number, row.values()))
        for row in history
    )


def _is_count(value: Any) -> bool:
    """Whether a file may hold this as `updates`; those of earlier versions hold none."""
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_seconds(value: Any) -> bool:
    return _is_number(value) and 0 <= value < float("inf")


def finished(job: Job) -> Outcome | None:
    """What an earlier run of the same job left in its folder, played again; None if it was another or did not end.

    A job under a time limit has ended when its episodes are done, or its share of the time is over: in an earlier run
    as much as in this one, so what came of it then is taken.
    """
    data = recorded(job)
    if data is None or not data["finished"]:
        return None
    assert job.out is not None
    policy = make_policy(str(job.out), job.problem, seed=job.seed)
    played = play_episodes(job.problem, policy, job.eval_episodes, job.arrivals_seed)
    return Outcome(job, played, data["history"], data["train_seconds"], taken=True, updates=data.get("updates"))


def unfinished(job: Job, identity: Any) -> Path | None:
    """The checkpoint from which a job that was stopped goes on; None: it begins anew.

    Args:
        job: what to do. identity: of the module that does it.
    """
    if job.out is None or not (job.out / "checkpoint.ckpt").is_file():
        return None
    path = job.out / "checkpoint.ckpt"
    try:
        run = checkpoint.read(path)["run"]
    except InputError as error:
        warnings.warn(f"{error}; so {job.named()} is trained from the beginning", stacklevel=2)
        return None
    try:
        now = checkpoint.describe_run(describe(identity, "run"), compiled=job.compiled, processes=1, episodes=0)
        checkpoint.check_resumes(run, now, f"checkpoint {path}")
    except InputError as error:
        if not (job.out / "outcome.json").is_file():  # which says the same of the whole run
            warnings.warn(f"{error}; so {job.named()} is trained from the beginning", stacklevel=2)
        return None
    return path if job.episodes is None or run["episodes"] <= job.episodes else None


def _tell_of_another(job: Job, identity: Any) -> None:
    """Says that what an earlier run left is not taken, and why. Args: job: trained anew. identity: of it."""
    path = None if job.out is None else job.out / "outcome.json"
    if path is None or not path.is_file():
        return
    try:
        data = check.read_json(path, "outcome file", OUTCOME)
    except InputError:  # of which `recorded` has told
        return
    try:
        check_same(
            data.get("job") if isinstance(data, dict) else None, identity, f"outcome file {path} is not taken: it"
        )
    except InputError as error:
        warnings.warn(f"{error}; so {job.named()} is trained again", stacklevel=3)


class Shares(L.Callback):
    """Tells after each pass which share of a training is done, by its episodes or its time.

    Args:
        job: which. spent: seconds of it in an earlier run. heard: is told.
    """

    def __init__(self, job: Job, spent: float, heard: Callable[[float], None]) -> None:
        self.job, self.heard, self.start = job, heard, time.monotonic() - spent

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        episodes, seconds = self.job.episodes, self.job.seconds
        shares = [pl_module.episodes / episodes] if episodes else []
        shares += [(time.monotonic() - self.start) / seconds] if seconds else []
        self.heard(min(1.0, max(shares, default=0.0)))


def work(job: Job, heard: Callable[[float], None] | None = None) -> Outcome:
    """Does one job, in a process of its own.

    Args:
        job: which. heard: is told now and then which share of a training is done.

    Raises:
        Stopped: a signal ended its training; a checkpoint was written, from which the same job goes on.
    """
    torch.set_num_threads(1)
    identity = job.identity() if job.trained else None  # before its problem is played, which may fill attributes
    if not job.trained:
        policy = make_policy(job.name, job.problem, seed=job.seed)
        return Outcome(job, play_episodes(job.problem, policy, job.eval_episodes, job.arrivals_seed))
    if job.resume and (done := finished(job)) is not None:
        return done
    module = build(job.problem, job.name, environments=job.environments, seed=job.seed, changes=job.changes)
    last = unfinished(job, module.identity) if job.resume else None
    if job.resume and last is None:
        _tell_of_another(job, identity)
    before = None if last is None else recorded(job)
    spent = 0.0 if before is None else float(before["train_seconds"])
    if job.out is not None and before is None:
        (job.out / "outcome.json").unlink(missing_ok=True)  # of what is trained anew here
    start = time.monotonic()
    with _warned_of(job):
        fitted = run(
            module,
            {"method": _stem(job.name), "seed": job.seed, **job.problem.trained()},
            episodes=job.episodes,
            max_seconds=None if job.seconds is None else max(job.seconds - spent, 1e-9),
            seed=job.seed,
            out=job.out,
            resume=last,
            overwrite=True,
            compiled=job.compiled,
            callbacks=[] if heard is None else [Shares(job, spent, heard)],
        )
    seconds = spent + time.monotonic() - start
    earlier = 0 if last is None else None if before is None else before.get("updates")
    updates = None if fitted.updates is None or earlier is None else earlier + fitted.updates
    if job.out is not None:
        kept = {"job": identity, "finished": fitted.signal is None, "train_seconds": seconds, "updates": updates}
        _files.write_text(job.out / "outcome.json", json.dumps({**kept, "history": fitted.history}) + "\n")
    if fitted.signal is not None:
        raise Stopped(fitted.signal)
    learned = fitted.policy
    learned.generator.manual_seed(job.seed)  # as when it is loaded from its file
    played = play_episodes(job.problem, learned, job.eval_episodes, job.arrivals_seed)
    return Outcome(job, played, fitted.history, seconds, updates=updates)


@contextmanager
def _warned_of(job: Job) -> Iterator[None]:
    """Puts its name before what a training warns of: many run at once, and none knows of the others.

    Each is told at once: a training may take hours, and what it knows is lost if it is killed.
    """
    told = warnings.showwarning

    def tell(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        told(f"{job.named()}: {message}", category, filename, lineno, file, line)

    with warnings.catch_warnings():  # under the caller's filters, and each training tells what another has told
        warnings.showwarning = tell
        yield


def _stem(method: str) -> str:
    """What a policy tells of the method that trained it: no folder of this machine."""
    return Path(method).name if Path(method).suffix in (".yaml", ".yml") else method
