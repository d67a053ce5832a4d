"""The main job: train methods, run every heuristic on the same arrivals, and set them side by side."""

from __future__ import annotations

import csv
import io
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffpolicy import _files
from diffpolicy.edge.evaluation import offered_load, play_episodes
from diffpolicy.edge.metrics import Result
from diffpolicy.edge.names import HEURISTIC_NAMES
from diffpolicy.edge.resolve import make_method, make_policy
from diffpolicy.edge.scenario import Scenario
from diffpolicy.edge.training import build, train
from diffpolicy.errors import InputError
from diffpolicy.training.evaluation import Played, mean_interval, student_t

BASELINE = "opt-ts"
RESERVE_S = 50.0
"""What is kept free of training for evaluation, plots and a slow machine."""


@dataclass(frozen=True)
class Plan:
    """What to compare.

    Args:
        scenario: needs a workload and slots.
        methods: to train. episodes: of each; None: as many as fit into the time.
        seeds: training seeds of each method. eval_episodes: on which everything is judged.
        seconds: for all of it; None: without a limit.
        processes: side by side, each with one thread.
        seed: of evaluation, and the first training seed.
        out: folder.
    """

    scenario: Scenario
    methods: Sequence[str]
    out: Path
    episodes: int | None = None
    seeds: int = 1
    eval_episodes: int = 16
    seconds: float | None = 300.0
    processes: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.episodes is None and self.seconds is None:
            raise InputError("a comparison needs a number of episodes or a time limit, got neither")
        for name in self.methods:
            if list(self.methods).count(name) > 1:
                raise InputError(f"method {name} is named twice")


@dataclass(frozen=True)
class Job:
    """One policy to evaluate, after training it if it is a method's."""

    name: str
    scenario: Scenario
    eval_episodes: int
    seed: int
    arrivals_seed: int
    trained: bool = False
    episodes: int | None = None
    seconds: float | None = None
    out: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a job. Args: history: a row a training episode. train_seconds: of training alone."""

    job: Job
    played: Played
    history: list[dict[str, float]] = field(default_factory=list)
    train_seconds: float = 0.0


@dataclass(frozen=True)
class Row:
    """One line of the table. Args: converged: None for a heuristic."""

    name: str
    result: Result
    load: float
    episodes: int = 0
    seeds: int = 0
    converged: bool | None = None
    train_seconds: float = 0.0
    curves: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """All lines, methods first, each group by its mean delay; and what the plots are drawn from."""

    plan: Plan
    rows: list[Row]
    played: dict[str, Played]
    seconds: float

    def row(self, name: str) -> Row:
        """The line of that name."""
        return next(row for row in self.rows if row.name == name)


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
    outcomes = list(_run(plan, _jobs(plan, out, started), say))
    rows = _rows(plan, outcomes)
    played = {row.name: _pooled(outcomes, row.name) for row in rows}
    result = Comparison(plan, rows, played, time.monotonic() - started)
    _files.write_text(out / "comparison.csv", comparison_csv(result))
    _files.write_text(out / "learning_curves.csv", curves_csv(outcomes))
    return result


def _jobs(plan: Plan, out: Path, started: float) -> list[Job]:
    common: dict[str, Any] = {
        "scenario": plan.scenario,
        "eval_episodes": plan.eval_episodes,
        "arrivals_seed": plan.seed,
    }
    pairs = [(name, plan.seed + k) for k in range(plan.seeds) for name in plan.methods]
    share = None
    if plan.seconds is not None and pairs:
        rounds = -(-len(pairs) // plan.processes)
        share = max(plan.seconds - (time.monotonic() - started) - RESERVE_S, 5.0) / rounds
    training = [
        Job(
            name=name,
            seed=seed,
            trained=True,
            episodes=plan.episodes,
            seconds=share,
            out=out / "policies" / name.replace("/", "_").replace(":", ".") / f"seed-{seed}",
            **common,
        )
        for name, seed in pairs
    ]
    rules = [Job(name=name, seed=plan.seed, **common) for name in heuristics_for(plan.scenario)]
    return training + rules


def heuristics_for(scenario: Scenario) -> list[str]:
    """Every heuristic that can decide a scenario's tasks: `local` needs a server at each station."""
    return [name for name in HEURISTIC_NAMES if name != "local" or None not in scenario.stations]


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


def work(job: Job) -> Outcome:
    """Does one job, in a process of its own."""
    torch.set_num_threads(1)
    if not job.trained:
        policy = make_policy(job.name, job.scenario, seed=job.seed)
        return Outcome(job, play_episodes(job.scenario, policy, job.eval_episodes, job.arrivals_seed))
    module = build(job.name, job.scenario, seed=job.seed)
    start = time.monotonic()
    fitted = train(
        job.name,
        job.scenario,
        episodes=job.episodes,
        max_seconds=job.seconds,
        seed=job.seed,
        out=job.out,
        module=module,
        checkpoint_every=10**9,
    )
    seconds = time.monotonic() - start
    played = play_episodes(job.scenario, module.policy, job.eval_episodes, job.arrivals_seed)
    return Outcome(job, played, fitted.history, seconds)


def _of(outcomes: list[Outcome], name: str) -> list[Outcome]:
    return sorted((o for o in outcomes if o.job.name == name), key=lambda o: o.job.seed)


def _pooled(outcomes: list[Outcome], name: str) -> Played:
    return Played.join([o.played for o in _of(outcomes, name)])


def _rows(plan: Plan, outcomes: list[Outcome]) -> list[Row]:
    baseline = _pooled(outcomes, BASELINE)
    load = offered_load(plan.scenario, baseline, plan.eval_episodes)
    rows = []
    for name in dict.fromkeys(o.job.name for o in outcomes):
        mine = _of(outcomes, name)
        result = Result.of(_pooled(outcomes, name), baseline)
        if not mine[0].job.trained:
            rows.append(Row(name, result, load))
            continue
        if len(mine) >= 3:
            result = over_seeds(result, [o.played for o in mine], baseline)
        curves = [[row["delay_s"] for row in o.history] for o in mine]
        rows.append(
            Row(
                name,
                result,
                load,
                episodes=min(len(curve) for curve in curves),
                seeds=len(mine),
                converged=all(converged(curve) for curve in curves),
                train_seconds=float(np.mean([o.train_seconds for o in mine])),
                curves=curves,
            )
        )
    return sorted(rows, key=lambda row: (row.seeds == 0, row.result.delays.mean_delay_s))


def over_seeds(result: Result, played: list[Played], baseline: Played) -> Result:
    """The same result with its intervals over training seeds instead of over episodes."""
    means = np.array([p.cost.mean() for p in played])
    ratios = means / baseline.cost.mean()
    half = student_t(len(ratios) - 1) * float(ratios.std(ddof=1)) / len(ratios) ** 0.5
    interval = (float(ratios.mean()) - half, float(ratios.mean()) + half)
    return Result(
        result.delays,
        mean_interval(means).half_width,
        float(ratios.mean()),
        interval,
        result.decisions_per_second,
    )


def converged(curve: Sequence[float]) -> bool:
    """Whether a learning curve has stopped falling.

    Compares the last quarter of the episodes with the quarter before: it falls if it went down by more than 1 % and by
    more than one standard error. With fewer than 20 episodes nobody can tell, and it counts as not converged.
    """
    if len(curve) < 20:
        return False
    quarter = len(curve) // 4
    before, last = np.array(curve[-2 * quarter : -quarter]), np.array(curve[-quarter:])
    fall = before.mean() - last.mean()
    error = np.sqrt(before.var(ddof=1) / quarter + last.var(ddof=1) / quarter)
    return bool(fall <= max(0.01 * last.mean(), error))


def comparison_csv(comparison: Comparison) -> str:
    """The table as a file, figures in full."""
    text = io.StringIO()
    names = [
        *("method", "kind", "episodes", "training_seeds", "converged", "mean_delay_s", "ci95_s", "p50_delay_s"),
        *("p95_delay_s", "p99_delay_s", "max_delay_s", "tasks", "ratio", "ratio_lo", "ratio_hi", "training_s"),
        *("decisions_per_second", "load"),
    ]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in comparison.rows:
        data = row.result.to_dict()
        lo, hi = data.pop("ratio_ci95") or ("", "")
        writer.writerow(
            {
                "method": row.name,
                "kind": "method" if row.seeds else "heuristic",
                "episodes": row.episodes or "",
                "training_seeds": row.seeds or "",
                "converged": "" if row.converged is None else ("yes" if row.converged else "no"),
                "ratio_lo": lo,
                "ratio_hi": hi,
                "training_s": row.train_seconds if row.seeds else "",
                "load": row.load,
                "decisions_per_second": row.result.decisions_per_second,
                **{k: "" if v is None else v for k, v in data.items()},
            }
        )
    return text.getvalue()


def curves_csv(outcomes: list[Outcome]) -> str:
    """Every training episode of every method and seed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "seed", "episode", "delay_s"])
    for o in sorted((o for o in outcomes if o.job.trained), key=lambda o: (o.job.name, o.job.seed)):
        writer.writerows([o.job.name, o.job.seed, int(row["episode"]), row["delay_s"]] for row in o.history)
    return text.getvalue()
