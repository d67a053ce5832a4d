"""The pieces of a comparison: what to compare, one job a policy, and what came of it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from diffpolicy import _files
from diffpolicy import _validate as check
from diffpolicy._version import __version__
from diffpolicy.edge.evaluation import play_episodes
from diffpolicy.edge.names import HEURISTIC_NAMES
from diffpolicy.edge.resolve import make_method, make_policy
from diffpolicy.edge.scenario import Scenario
from diffpolicy.edge.training import build, train
from diffpolicy.errors import InputError
from diffpolicy.training.evaluation import Played

RESERVE_S = 65.0
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
        compiled: whether updates are compiled. changes: fields of the methods that are set to other values.
        resume: whether what an earlier run finished in `out` is taken from there.
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
    compiled: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False

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
    compiled: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False

    def identity(self) -> dict[str, Any]:
        """What its training depends on, as JSON holds it."""
        method = replace(make_method(self.name), **self.changes)
        values = {f.name: getattr(method, f.name) for f in fields(method)}
        return {
            "version": __version__,
            "method": type(method).__name__,
            **{key: f"{v.__module__}:{v.__qualname__}" if callable(v) else v for key, v in values.items()},
            "scenario_sha256": self.scenario.digest(),
            "seed": self.seed,
            "episodes": self.episodes,
            "seconds": self.seconds,
            "compiled": self.compiled,
        }


@dataclass(frozen=True)
class Outcome:
    """What came of a job. Args: history: a row a training episode. train_seconds: of training alone."""

    job: Job
    played: Played
    history: list[dict[str, float]] = field(default_factory=list)
    train_seconds: float = 0.0


def jobs_of(plan: Plan, started: float) -> list[Job]:
    """Every method and training seed, then every heuristic; the time that is left is shared out evenly.

    Args:
        plan: what to compare. started: `time.monotonic()` at which its time began.
    """
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
            compiled=plan.compiled,
            changes=dict(plan.changes),
            resume=plan.resume,
            out=plan.out / "policies" / name.replace("/", "_").replace(":", ".") / f"seed-{seed}",
            **common,
        )
        for name, seed in pairs
    ]
    rules = [Job(name=name, seed=plan.seed, **common) for name in heuristics_for(plan.scenario)]
    return training + rules


def heuristics_for(scenario: Scenario) -> list[str]:
    """Every heuristic that can decide a scenario's tasks: `local` needs a server at each station."""
    return [name for name in HEURISTIC_NAMES if name != "local" or None not in scenario.stations]


def finished(job: Job) -> Outcome | None:
    """What an earlier run of the same job left in its folder, played again; None if it was another or did not end."""
    if job.out is None or not (job.out / "outcome.json").is_file():
        return None
    data = check.read_json(job.out / "outcome.json", "outcome file")
    if not isinstance(data, dict) or data.get("job") != job.identity():
        return None
    policy = make_policy(job.out, job.scenario, seed=job.seed)
    played = play_episodes(job.scenario, policy, job.eval_episodes, job.arrivals_seed)
    return Outcome(job, played, data["history"], data["train_seconds"])


def work(job: Job) -> Outcome:
    """Does one job, in a process of its own."""
    torch.set_num_threads(1)
    if not job.trained:
        policy = make_policy(job.name, job.scenario, seed=job.seed)
        return Outcome(job, play_episodes(job.scenario, policy, job.eval_episodes, job.arrivals_seed))
    if job.resume and (done := finished(job)) is not None:
        return done
    module = build(job.name, job.scenario, seed=job.seed, changes=job.changes)
    start = time.monotonic()
    fitted = train(
        job.name,
        job.scenario,
        episodes=job.episodes,
        max_seconds=job.seconds,
        seed=job.seed,
        out=job.out,
        overwrite=True,
        module=module,
        checkpoint_every=10**9,
        compiled=job.compiled,
    )
    seconds = time.monotonic() - start
    if job.out is not None:
        kept = {"job": job.identity(), "train_seconds": seconds, "history": fitted.history}
        _files.write_text(job.out / "outcome.json", json.dumps(kept) + "\n")
    module.policy.generator.manual_seed(job.seed)  # as when it is loaded from its file
    played = play_episodes(job.scenario, module.policy, job.eval_episodes, job.arrivals_seed)
    return Outcome(job, played, fitted.history, seconds)
