"""The main job: train methods, run every heuristic on the same arrivals, and set them side by side."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed

import torch

from diffpolicy import _files
from diffpolicy.edge.comparison import Comparison, comparison_csv, curves_csv
from diffpolicy.edge.jobs import Job, Outcome, Plan, jobs_of, work
from diffpolicy.edge.resolve import make_method


def compare(plan: Plan, say: Callable[[str], None] = lambda text: None, started: float | None = None) -> Comparison:
    """Trains, evaluates and writes everything.

    Args:
        plan: what to compare. say: hears of progress.
        started: `time.monotonic()` at which the time began to count; now by default.

    Raises:
        InputError: a method does not exist or does not fit, or the folder cannot be written to.
    """
    started = time.monotonic() if started is None else started
    out = _files.writable_folder(plan.out)
    for name in plan.methods:
        make_method(name)
    outcomes = list(_run(plan, jobs_of(plan, started), say))
    result = Comparison.of(plan, outcomes, time.monotonic() - started)
    _files.write_text(out / "comparison.csv", comparison_csv(result))
    _files.write_text(out / "learning_curves.csv", curves_csv(outcomes))
    return result


def _run(plan: Plan, jobs: list[Job], say: Callable[[str], None]) -> Iterator[Outcome]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(plan.processes, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures: list[Future[Outcome]] = [pool.submit(work, job) for job in jobs]
        try:
            for future in as_completed(futures):
                outcome = future.result()
                mean = f"mean delay {outcome.played.cost.mean():.3f} s"
                if outcome.job.trained:
                    count, took = len(outcome.history), outcome.train_seconds
                    say(
                        f"trained {outcome.job.name}, seed {outcome.job.seed}: {count} episodes in {took:.0f} s; {mean}"
                    )
                else:
                    say(f"played {outcome.job.name}: {mean}")
                yield outcome
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
