"""The main job: train methods, play every rule on the same episodes, and set them side by side."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffpolicy import _files
from diffpolicy._alone import alone_in
from diffpolicy.environments.problem import Problem
from diffpolicy.evaluation import make_policy
from diffpolicy.evaluation.evaluating import played_as
from diffpolicy.evaluation.tables import RULE
from diffpolicy.experiments.breakdown import breakdowns
from diffpolicy.experiments.cluster import Cluster, run_on
from diffpolicy.experiments.comparison import Comparison, comparison_csv, curves_csv
from diffpolicy.experiments.first_episode import first_episode
from diffpolicy.experiments.method_names import make_method
from diffpolicy.experiments.plan import Job, Outcome, Plan, jobs_of
from diffpolicy.experiments.problem_names import checked_problem
from diffpolicy.experiments.workers import run_jobs


def compare(
    problem: Problem | str | Plan,
    say: Callable[[str], None] = lambda text: None,
    started: float | None = None,
    *,
    methods: Sequence[str] | None = None,
    policies: Sequence[str] | None = None,
    episodes: int | None = None,
    minutes: float | None = None,
    seeds: int | None = None,
    eval_episodes: int | None = None,
    processes: int | None = None,
    environments: int | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    resume: bool | None = None,
    cluster: Cluster | None = None,
    heard: Callable[[str, float], None] = lambda name, share: None,
) -> Comparison:
    """Trains methods, plays them and every rule on the same episodes, and writes tables, curves and policies.

    Args:
        problem: one, or its name; or a `Plan`, whose fields other arguments replace.
        say: hears of progress, a sentence a job.
        started: `time.monotonic()` at which the time began to count; now by default.
        methods: names of those to train; by default the problem's.
        policies: names of trained ones that are played too; by default the problem's.
        episodes: of training, of each method and seed.
        minutes: for all of it; by default 5, or with `episodes` as long as it takes.
        seeds, eval_episodes, processes, environments, seed, resume: of `Plan`.
        out: folder, by default `runs/compare`.
        cluster: of `Plan`; by default it does as many jobs at a time as it has processors.
        heard: is told what is at hand, and which share of all work was done since it heard last.

    Returns:
        A `Comparison`, with a row of each method and rule.

    Raises:
        InputError: a method does not exist or does not fit, or the folder cannot be written to, or is by another run.
        WorkError: a job failed, which ends the others; what was finished is kept for `resume`.

    Example:
        >>> import os
        >>> problem = EnvProblem(Clinic, steps=50, rules={"longest": longest_queue}, cost="waiting")
        >>> compared = compare(problem, methods=["dqn"], episodes=4, eval_episodes=4, out="runs/clinic", processes=1)
        >>> [row.name for row in compared.rows]
        ['dqn', 'longest']
        >>> sorted(os.listdir("runs/clinic"))
        ['comparison.csv', 'learning_curves.csv', 'policies', 'steps.csv']
    """
    started = time.monotonic() if started is None else started
    given = {
        "methods": methods,
        "policies": policies,
        "episodes": episodes,
        "seconds": None if minutes is None else 60 * minutes,
        "seeds": seeds,
        "eval_episodes": eval_episodes,
        "processes": processes,
        "environments": environments,
        "seed": seed,
        "out": None if out is None else Path(out),
        "resume": resume,
        "cluster": cluster,
    }
    if cluster is not None and processes is None:
        given["processes"] = cluster.slots
    plan = _plan(problem, {name: value for name, value in given.items() if value is not None})
    return _compare(plan, say, started, heard)


def _plan(problem: Problem | str | Plan, given: dict[str, Any]) -> Plan:
    """The plan that the arguments of `compare` make. Args: given: of them, as fields of a plan."""
    if isinstance(problem, Plan):
        return dataclasses.replace(problem, **given)
    made = checked_problem(problem)
    limit = {"seconds": None} if "episodes" in given else {}
    return Plan(**{"problem": made, "methods": list(made.methods), "out": Path("runs/compare"), **limit, **given})


def _compare(plan: Plan, say: Callable[[str], None], started: float, heard: Callable[[str, float], None]) -> Comparison:
    out = plan.out
    for name in plan.methods:
        make_method(name)
    checked_problem(plan.problem)
    with alone_in(out):
        jobs = jobs_of(plan, started)
        for job in jobs:
            if job.trained:
                job.identity()  # refuses, before any work, what could not be told from another run after it
        alike = played_as(plan.problem, plan.seed)
        outcomes = list(_run(plan, jobs, say, heard))
        result = Comparison.of(plan, outcomes, time.monotonic() - started, alike)
        _files.write_text(out / "comparison.csv", comparison_csv(result))
        for file, text in breakdowns(plan.problem, result.played, result.kinds(), plan.baseline).items():
            _files.write_text(out / file, text)
        _files.write_text(out / "learning_curves.csv", curves_csv(plan, outcomes))
        for name in ("chain.csv", "timeline.csv"):  # of an earlier run that had one
            (out / name).unlink(missing_ok=True)
        for file, text in _first_episode(plan, outcomes, result.kinds()).items():
            _files.write_text(out / file, text)
    return result


def _first_episode(plan: Plan, outcomes: Sequence[Outcome], kinds: Mapping[str, str]) -> dict[str, str]:
    """Of the first seed of each method, the policies, the baseline and the problem's references."""
    drawn = {plan.baseline, *plan.problem.references}
    jobs = {o.job.name: o.job for o in sorted(outcomes, key=lambda o: o.job.seed, reverse=True)}
    shown = [name for name, kind in kinds.items() if kind != RULE or name in drawn]
    made = {
        name: make_policy(str(jobs[name].out) if jobs[name].trained else name, plan.problem, seed=jobs[name].seed)
        for name in shown
    }
    return first_episode(plan.problem, made, kinds, plan.baseline, jobs[plan.baseline].arrivals_seed)


def _run(
    plan: Plan, jobs: list[Job], say: Callable[[str], None], heard: Callable[[str, float], None]
) -> Iterator[Outcome]:
    whole = sum(job.effort for job in jobs)
    before: dict[tuple[str, int], float] = {}

    def hear(job: Job, share: float) -> None:
        """Of a share of one job, as a share of all."""
        key = (job.name, job.seed)
        heard(job.named(), job.effort * (share - before.get(key, 0.0)) / whole)
        before[key] = share

    outcomes = (
        run_jobs(jobs, plan.processes, hear) if plan.cluster is None else run_on(plan.cluster, jobs, plan.processes)
    )
    for outcome in outcomes:
        hear(outcome.job, 1.0)
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
