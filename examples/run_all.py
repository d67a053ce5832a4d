"""Runs every example in a process of its own, two at a time, and fails with the first that does.

The processes are forks of this one, which has imported the libraries that all of them begin with: that takes longer
than most examples run. What they import of diffpolicy, each of them imports itself.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import IO

HERE = Path(__file__).resolve().parent
TRAIN = ["--stations", "3", "--slots", "10", "--episodes", "3"]
AT_A_TIME = 2


def commands(folder: str) -> list[tuple[Path, list[str]]]:
    """Where to run what: each script, and training by the method file."""
    # the tutorials are run when the docs are built
    paths = sorted(path for path in HERE.glob("*/*.py") if path.parent.name != "tutorials")
    scripts = [(path.parent, [path.name]) for path in paths]
    return [*scripts, (HERE / "extending", ["-m", "diffpolicy", "train", "own_method.yaml", *TRAIN, "--out", folder])]


def as_python(where: Path, arguments: list[str], out: int) -> None:
    """What `python ARGUMENTS...` does in a folder. Args: where: the folder. out: takes what is printed."""
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.chdir(where)
    sys.path[0] = str(where)
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


@dataclass
class Job:
    """A command at work. Args: where, arguments: see `commands`."""

    where: Path
    arguments: list[str]
    out: IO[bytes] = field(default_factory=tempfile.TemporaryFile)
    began: float = field(default_factory=time.perf_counter)
    process: ForkProcess = field(init=False)

    def __post_init__(self) -> None:
        called = (self.where, self.arguments, self.out.fileno())
        self.process = multiprocessing.get_context("fork").Process(target=as_python, args=called)
        self.process.start()

    def ended(self) -> tuple[int, str, float]:
        """Exit status, what was printed, seconds; once the process has ended."""
        self.process.join()
        self.out.seek(0)
        printed = self.out.read().decode(errors="replace")
        return self.process.exitcode or 0, printed, time.perf_counter() - self.began


def run(waiting: list[tuple[Path, list[str]]]) -> Iterator[Job]:
    """Runs commands in their order and gives each as it ends; the others are ended where nobody asks on."""
    waiting, busy = waiting[::-1], list[Job]()
    try:
        while waiting or busy:
            while waiting and len(busy) < AT_A_TIME:
                busy.append(Job(*waiting.pop()))
            ended = wait([job.process.sentinel for job in busy])
            for job in [job for job in busy if job.process.sentinel in ended]:
                busy.remove(job)
                yield job
    finally:
        for job in busy:
            job.process.terminate()


def main() -> int:
    os.environ["OMP_NUM_THREADS"] = "1"
    import lightning  # noqa: F401
    import torchrl.envs
    import torchrl.objectives  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        for job in run(commands(folder)):
            status, printed, seconds = job.ended()
            title = " ".join(job.arguments).replace(folder, "DIR")
            print(f"== {job.where.name}: {title}  ({seconds:.0f} s)\n{printed}", flush=True)
            if status:
                print(f"it ended with status {status}", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
