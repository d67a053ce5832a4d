"""`run_on`: jobs on the machines of a cluster, whose results come back into the folder of who asked."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from diffpolicy import _signals
from diffpolicy.errors import InputError, WorkError
from diffpolicy.experiments.parcels import Parcel, Reply, keep, pack
from diffpolicy.experiments.plan import Job, Outcome, portable
from diffpolicy.experiments.workers import GRACE_S, checked

LOOK_S = 0.5
"""Between two looks at whether a signal has come, at most."""


class Cluster(Protocol):
    """Machines that do jobs; what `begin` returns names a job until its result was taken."""

    @property
    def slots(self) -> int:
        """Jobs that it can do side by side."""

    def begin(self, parcel: Parcel) -> Any:
        """Has `parcels.do` done somewhere. Args: parcel: for it."""

    def ended(self, tasks: Sequence[Any], timeout_s: float) -> list[Any]:
        """Those that have ended, as soon as there is one. Args: tasks: of `begin`. timeout_s: for which it waits."""

    def result(self, task: Any) -> Reply:
        """What came of a task that has ended.

        Args:
            task: of `begin`.

        Raises:
            WorkError: nothing; the end of a sentence about the task.
        """

    def stop(self, task: Any, at_once: bool) -> None:
        """Sends a task SIGINT. Args: task: of `begin`. at_once: kill its process instead."""


def run_on(cluster: Cluster, jobs: Sequence[Job], at_once: int) -> Iterator[Outcome]:
    """Does jobs on a cluster, and gives their outcomes as they come.

    If one fails, or this process is asked to stop, the others are asked to stop too: they end the episode at hand, and
    their checkpoints come back, so that `resume` goes on from there. A second request kills them.

    Args:
        cluster: where. jobs: begun in this order. at_once: how many side by side, at most.

    Raises:
        InputError, WorkError: a job failed; the sentence names it.
    """
    for job in jobs:
        if not portable(job.problem):
            raise InputError(
                f"problem {job.problem.name} cannot be sent to a cluster: name it as module:attribute, so that it is "
                "found there too"
            )
    waiting, running = list(reversed(jobs)), dict[Any, Job]()
    # a signal is noted here and not raised, since Ray makes Ctrl-C of whatever is raised while it waits
    with _signals.StopRequests() as stop:
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    job = waiting.pop()
                    running[cluster.begin(pack(job))] = job
                for task in cluster.ended(list(running), LOOK_S):
                    job = running.pop(task)
                    yield _taken(cluster, task, job)
                if stop.number is not None:
                    raise _signals.Stopped(stop.number)
        finally:
            _stop(cluster, running)


def _taken(cluster: Cluster, task: Any, job: Job) -> Outcome:
    """What came of a task, its files written."""
    try:
        reply = cluster.result(task)
    except WorkError as error:
        raise WorkError(f"{job.named()} failed: {error}") from None
    keep(reply, job)
    if reply.outcome is None:
        raise WorkError(f"{job.named()} failed: somebody else stopped its task")
    return replace(checked(reply.outcome, job), job=job)


def _stop(cluster: Cluster, running: dict[Any, Job]) -> None:
    """Asks tasks to stop and keeps what they leave; kills those that take too long, all of them on a second request."""
    try:
        for task in running:
            cluster.stop(task, at_once=False)
        end = time.monotonic() + GRACE_S
        while running and (left := end - time.monotonic()) > 0:
            for task in cluster.ended(list(running), min(left, LOOK_S)):
                job = running.pop(task)
                with suppress(WorkError):  # it had not begun, or was at nothing that could be kept
                    keep(cluster.result(task), job)
    finally:
        for task in running:
            cluster.stop(task, at_once=True)
