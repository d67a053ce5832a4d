"""Jobs in parallel processes of one thread each, within a budget; a process that dies costs its own job alone."""

from __future__ import annotations

import heapq
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from diffpolicy import _signals

FAIR = 0.9
"""Of what the others have, that a job which comes late is given at least; with less it would be another measure."""


@dataclass(frozen=True)
class Job:
    """A piece of work.

    Args:
        name: of it. work: given the seconds that it may take, gives its result; of a module's top level, so that
            another process finds it. seconds: that it is best given; it never gets more. beside: seconds that it takes
            in any case, such as imports and to judge what was trained.
    """

    name: tuple[str, ...]
    work: Callable[[float], Any]
    seconds: float
    beside: float = 20.0


@dataclass
class _Process:
    """One process: how to tell it, and what it is at."""

    process: Any
    pipe: Any
    job: Job | None = None


def run_jobs(
    jobs: Sequence[Job],
    processes: int,
    minutes: float,
    done: Callable[[Job, Any, str], None],
    part: float | None = None,
) -> None:
    """Does them, the longest first, each with the same part of its best time, so that the budget suffices for all.

    Args:
        jobs: what is to be done. processes: side by side. minutes: of all; what runs then is ended.
        done: is told, as soon as it is known, a job, its result, and why there is none, or an empty text.
        part: of its best time, that those had which an interrupted run has done; None: what the budget suffices for.
    """
    end = time.monotonic() + 60 * minutes
    part = share_of_time(jobs, processes, 60 * minutes) if part is None else part
    waiting = sorted(jobs, key=lambda job: -job.seconds * part - job.beside)
    running = [_started() for _ in range(min(processes, len(waiting)))]
    while waiting or any(each.job for each in running):
        for each in running:
            while each.job is None and waiting:
                next_one = waiting.pop(0)
                wanted, left = part * next_one.seconds, end - time.monotonic() - next_one.beside
                if left < FAIR * wanted:
                    done(next_one, None, "no time left")
                    continue
                each.job = next_one
                each.pipe.send((each.job.work, min(wanted, left)))
        busy = {each.pipe: each for each in running if each.job}
        if not busy:
            break
        ready = wait(list(busy), timeout=max(0.0, end - time.monotonic()))
        if not ready:
            break
        for pipe in ready:
            each = busy[pipe]
            job, each.job = each.job, None
            try:
                result, why = pipe.recv()
            except EOFError:  # it died
                result, why = None, "its process died"
                fresh = _started()
                each.process, each.pipe = fresh.process, fresh.pipe
            done(job, result, why)
    for each in running:
        if each.job is not None:
            done(each.job, None, "the time was over")
        each.process.kill()
    for job in waiting:
        done(job, None, "the time was over before it began")


def part_given(done: Iterable[tuple[float, str]]) -> float | None:
    """The part of their best times that jobs had, so that those which are left are given the same.

    Args:
        done: of each job that is done the seconds that it is best given, and those that it was, empty if nobody knows.

    Returns:
        The greatest, as a late job may have had a little less; None: nobody knows of any.
    """
    return max((float(given) / best for best, given in done if given), default=None)


def share_of_time(jobs: Sequence[Job], processes: int, budget_s: float) -> float:
    """The greatest part of their best times, at most 1, for which all jobs end within a budget.

    Args:
        jobs: to be done. processes: side by side. budget_s: of all.

    Returns:
        From 0.01 to 1.
    """
    parts = [k / 100 for k in range(1, 101)]
    fits = [p for p in parts if _makespan([p * job.seconds + job.beside for job in jobs], processes) <= budget_s]
    return max(fits, default=parts[0])


def _makespan(seconds: Sequence[float], processes: int) -> float:
    """When the last job ends if the longest go first. Args: seconds: of each. processes: side by side."""
    free = [0.0] * processes
    for each in sorted(seconds, reverse=True):
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def _started() -> _Process:
    spawning = multiprocessing.get_context("spawn")
    here, there = spawning.Pipe()
    process = spawning.Process(target=_attend, args=(there, os.getpid()), daemon=True)
    process.start()
    there.close()
    return _Process(process, here)


def _attend(pipe: Any, parent: int) -> None:
    """What a process does. Args: parent: process id of who asks, at whose end, a kill -9 too, it ends amid a job."""
    _signals.end_with(parent)
    _serve(pipe)


def _serve(pipe: Any) -> None:
    """Does jobs as they come, until nobody asks any more."""
    import torch

    torch.set_num_threads(1)
    while True:
        try:
            work, seconds = pipe.recv()
        except EOFError:
            return
        try:
            answer = work(seconds), ""
        except Exception as error:
            traceback.print_exc()
            answer = None, f"{type(error).__name__}: {error}"
        pipe.send(answer)
