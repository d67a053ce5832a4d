"""Jobs in processes of their own, none of which outlives the process that asked for them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

import torch

from diffpolicy import _signals
from diffpolicy.errors import InputError, WorkError
from diffpolicy.experiments.plan import Job, Outcome, portable
from diffpolicy.experiments.work import work

GRACE_S = 20.0
"""What processes have, once they are asked to stop, to end the episode at hand and to write a checkpoint."""


@dataclass(frozen=True)
class Failure:
    """What went wrong with a job. Args: input: whether with what was given. details: a traceback."""

    reason: str
    input: bool
    details: str


@dataclass(frozen=True)
class Share:
    """Which share of its job a process has done."""

    done: float


EVERY_S = 0.5
"""Between two shares that a process tells of."""


@dataclass
class Worker:
    """A process that does one job after the other. Args: pipe: takes jobs, gives outcomes. job: at hand."""

    process: SpawnProcess
    pipe: Connection
    job: Job | None = None

    def give(self, job: Job | None) -> None:
        """The next job; None: there is none, and the process ends."""
        self.job = job
        with suppress(BrokenPipeError):  # it is dead, as `outcome` will say
            self.pipe.send(job)

    def answer(self) -> Share | Outcome:
        """What the process says of the job at hand: which share is done, or what came of it.

        Raises:
            InputError, WorkError: it failed, or its process was killed; the sentence names the job.
        """
        assert self.job is not None
        name = self.job.named()
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
            raise WorkError(f"{name} failed: its process was {how}") from None
        return answer if isinstance(answer, Share) else checked(answer, self.job)


def run_jobs(
    jobs: Sequence[Job], processes: int, heard: Callable[[Job, float], None] = lambda job, share: None
) -> Iterator[Outcome]:
    """Does jobs side by side, and gives their outcomes as they come.

    If one fails, or this process is asked to stop, the others are asked to stop too: they end the episode at hand,
    write a checkpoint, and are gone when the exception reaches the caller. A second request kills them. If this process
    dies, they end by themselves.

    Args:
        jobs: begun in this order; those of a problem that no other process can find are done in this one.
        processes: at most so many at a time; 1: none but this one, so that a script needs no guard against being run
            again by those that it starts.
        heard: is told a job at hand and which share of it is done.

    Raises:
        InputError, WorkError: a job failed; the sentence names it.
    """
    if processes == 1 or not all(portable(job.problem) for job in jobs):
        for job in jobs:
            yield checked(outcome_of(job, partial(heard, job)), job)
        return
    waiting = list(reversed(jobs))
    workers = []
    try:
        for _ in range(min(processes, len(jobs))):
            workers.append(_start())
            workers[-1].give(waiting.pop())
        while busy := {worker.pipe: worker for worker in workers if worker.job is not None}:
            for pipe in wait(list(busy)):
                worker = busy[pipe]  # type: ignore[index]
                answer = worker.answer()
                if isinstance(answer, Share):
                    assert worker.job is not None
                    heard(worker.job, answer.done)
                    continue
                worker.give(waiting.pop() if waiting else None)
                yield answer
        for worker in workers:
            worker.process.join()
    finally:
        _stop(workers)


def checked(came: Outcome | Failure, job: Job) -> Outcome:
    """An outcome, unless it is none. Args: came: of a job. job: which, in the sentence."""
    if isinstance(came, Failure):
        kind = InputError if came.input else WorkError
        raise kind(f"{job.named()} failed: {came.reason}") from RuntimeError(came.details)
    return came


def _start() -> Worker:
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, os.getpid()))
    process.start()
    theirs.close()
    return Worker(process, mine)


def _stop(workers: Sequence[Worker]) -> None:
    """Asks processes to stop and waits for them; kills those that take too long, all of them on a second request."""
    try:
        for worker in workers:
            worker.process.terminate()
        end = time.monotonic() + GRACE_S
        for worker in workers:
            worker.process.join(max(0.0, end - time.monotonic()))
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()


def _serve(pipe: Connection, parent: int) -> None:
    """What a worker does: one job after the other, until there is none."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C in a terminal is for the parent, which asks once
    _signals.end_with(parent)
    torch.set_num_threads(1)
    try:
        with _signals.terminated_at_once():
            while (job := pipe.recv()) is not None:
                pipe.send(outcome_of(job, _telling(pipe)))
    except (KeyboardInterrupt, EOFError, BrokenPipeError):  # asked to stop, or nobody is there any more
        sys.exit(_signals.exit_status(signal.SIGTERM))


def _telling(pipe: Connection) -> Callable[[float], None]:
    """What tells the parent of shares, but not more often than anybody can see."""
    last = -EVERY_S

    def tell(done: float) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY_S:
            last = time.monotonic()
            pipe.send(Share(done))

    return tell


def outcome_of(job: Job, heard: Callable[[float], None]) -> Outcome | Failure:
    """What comes of a job in this process, mistakes and failures included. Args: job: which. heard: of `work`."""
    try:
        return work(job, heard)
    except Exception as error:
        said = isinstance(error, (InputError, WorkError, FloatingPointError))
        reason = str(error) if said else f"{type(error).__name__}: {error}"
        return Failure(reason, isinstance(error, InputError), traceback.format_exc())
