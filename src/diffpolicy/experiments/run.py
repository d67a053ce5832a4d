"""The main job: train methods, play every rule on the same episodes, and set them side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from diffpolicy import _files
from diffpolicy._alone import alone_in
from diffpolicy.experiments.breakdown import breakdowns
from diffpolicy.experiments.comparison import Comparison, comparison_csv, curves_csv
from diffpolicy.experiments.names import checked_problem, make_method
from diffpolicy.experiments.plan import Job, Outcome, Plan, jobs_of
from diffpolicy.experiments.workers import run_jobs


def compare(plan: Plan, say: Callable[[str], None] = lambda text: None, started: float | None = None) -> Comparison:
    """Trains, evaluates and writes everything.

    Args:
        plan: what to compare. say: hears of progress.
        started: `time.monotonic()` at which the time began to count; now by default.

    Raises:
        InputError: a method does not exist or does not fit, or the folder cannot be written to, or is by another run.
        WorkError: a job failed, which ends the others; what was finished is kept for `resume`.
    """
    started = time.monotonic() if started is None else started
    out = plan.out
    for name in plan.methods:
        make_method(name)
    checked_problem(plan.problem)
    with alone_in(out):
        jobs = jobs_of(plan, started)
        for job in jobs:
            if job.trained:
                job.identity()  # refuses, before any work, what could not be told from another run after it
        outcomes = list(_run(plan, jobs, say))
        result = Comparison.of(plan, outcomes, time.monotonic() - started)
        _files.write_text(out / "comparison.csv", comparison_csv(result))
        for file, text in breakdowns(plan.problem, result.played, result.kinds(), plan.baseline).items():
            _files.write_text(out / file, text)
        _files.write_text(out / "learning_curves.csv", curves_csv(plan, outcomes))
    return result


def _run(plan: Plan, jobs: list[Job], say: Callable[[str], None]) -> Iterator[Outcome]:
    for outcome in run_jobs(jobs, plan.processes):
        say(told(outcome))
        yield outcome


def told(outcome: Outcome) -> str:
    """What is said of a job that is done."""
    job, cost = outcome.job, outcome.job.problem.cost
    mean = f"mean {cost.label} {outcome.played.cost.mean():.3f} {cost.unit}".strip()
    if not job.trained:
        return f"played {job.name}: {mean}"
    count = int(outcome.history[-1]["episode"]) if outcome.history else 0
    what = f"{job.name}, seed {job.seed}: {count} episodes in {outcome.train_seconds:.0f} s"
    if not outcome.taken:
        return f"trained {what}; {mean}"
    share = "" if job.share_s is None else f", which was its share of the time ({job.share_s:.0f} s)"
    return f"taken from an earlier run: {what}{share}; {mean}"
