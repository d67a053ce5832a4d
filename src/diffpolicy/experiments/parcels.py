"""Jobs as bytes: what another machine needs to do one, and what it leaves, so that the two share no folder."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from diffpolicy import _files
from diffpolicy._read import what_is
from diffpolicy._version import __version__
from diffpolicy.environments.entrants import rules_of
from diffpolicy.experiments.plan import Job, Outcome
from diffpolicy.experiments.workers import Failure, outcome_of

POLICY_FILES = ("policy.json", "policy.safetensors")


@dataclass(frozen=True)
class Parcel:
    """A job for another machine.

    Args:
        version: of the package that wrote it. job: pickled.
        folder: from which it was asked for; taken there too where it exists, as on the same machine.
        named: the files that its name stands for (a method's, a policy's), by their names.
        left: what an earlier run left in its folder, by their paths in it.
    """

    version: str
    job: bytes = field(repr=False)
    folder: str
    named: Mapping[str, bytes] = field(repr=False)
    left: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True)
class Reply:
    """What came of a parcel. Args: outcome: None: it was stopped. files: of the job's folder, by their paths in it."""

    outcome: Outcome | Failure | None
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def pack(job: Job) -> Parcel:
    """A job with all files that it needs.

    Args:
        job: whose problem another process can be given.
    """
    path, named = Path(job.name), {}
    if job.trained and path.suffix in (".yaml", ".yml"):
        named = {path.name: path.read_bytes()}
    elif not job.trained and job.name not in rules_of(job.problem) and what_is(path) in ("folder", "file"):
        folder = path if path.is_dir() else path.parent
        named = {name: (folder / name).read_bytes() for name in POLICY_FILES}
    left = read_folder(job.out) if job.resume and job.out is not None and job.out.is_dir() else {}
    return Parcel(__version__, pickle.dumps(job), os.getcwd(), named, left)


def do(parcel: Parcel) -> Reply:
    """Does a job where a parcel has come to, in a folder of its own that is gone afterwards.

    Args:
        parcel: of `pack`.

    Returns:
        What came of it; if it was asked to stop (SIGINT), the checkpoint from which it goes on.
    """
    if parcel.version != __version__:
        reason = f"diffpolicy {__version__} is installed there, and {parcel.version} here"
        return Reply(Failure(reason, True, ""))
    reply = Reply(None)
    # where it raises, it had nothing yet, or all of it is in the reply
    with (
        suppress(KeyboardInterrupt),
        tempfile.TemporaryDirectory(prefix="diffpolicy-") as name,
        _working_in(parcel.folder),
    ):
        reply = _done(parcel, Path(name))
    return reply


def _done(parcel: Parcel, folder: Path) -> Reply:
    """See `do`. Args: folder: its own."""
    try:
        job = _unpack(parcel, folder)
    except Exception as error:  # a problem that is not installed there
        return Reply(Failure(str(error), True, ""))
    outcome = None
    try:
        outcome = outcome_of(job, lambda share: None)
        return Reply(outcome, _made(job))
    except KeyboardInterrupt:  # also while the files are read, which are then read anew
        return Reply(outcome, _made(job))


def _made(job: Job) -> dict[str, bytes]:
    """What is in the folder of a job, if it has one and has made it."""
    return {} if job.out is None else read_folder(job.out)


def keep(reply: Reply, job: Job) -> None:
    """Writes what came back into the job's folder. Args: reply: of `do`. job: as it was sent."""
    for name, content in reply.files.items():
        assert job.out is not None
        path = job.out / name
        if not path.is_file() or path.read_bytes() != content:
            _files.write(path, lambda aside, content=content: aside.write_bytes(content))  # type: ignore[misc]


def read_folder(folder: Path) -> dict[str, bytes]:
    """The files of a folder by their paths in it, without hidden ones: locks, and what is half-written."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _unpack(parcel: Parcel, folder: Path) -> Job:
    """The job, with the paths that it has here. Args: folder: for its files."""
    job: Job = pickle.loads(parcel.job)
    if parcel.named:
        given = folder / "named"
        _fill(given, parcel.named)
        job = replace(job, name=str(given / next(iter(parcel.named)) if job.trained else given))
    if job.out is not None:
        job = replace(job, out=folder / "out")
        _fill(folder / "out", parcel.left)
    return job


def _fill(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@contextmanager
def _working_in(folder: str) -> Iterator[None]:
    """Finds modules and files as in the folder of who asked, where it is there too."""
    before = os.getcwd()
    if os.path.isdir(folder):
        os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
