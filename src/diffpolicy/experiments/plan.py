"""The pieces of a comparison: what to compare, one job a policy, and what came of it."""

from __future__ import annotations

import pickle
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy._identity import describe
from diffpolicy._version import __version__
from diffpolicy.environments import Problem
from diffpolicy.environments.entrants import rules_of
from diffpolicy.errors import InputError
from diffpolicy.evaluation.playing import Played
from diffpolicy.experiments.changes import changed, changes_of
from diffpolicy.experiments.method_names import make_method
from diffpolicy.experiments.problem_names import make_problem

if TYPE_CHECKING:
    from diffpolicy.experiments.cluster import Cluster

COUNTS = {
    "seeds": _limits.SEEDS,
    "eval_episodes": _limits.EVALUATION,
    "processes": _limits.PROCESSES,
    "environments": _limits.ENVIRONMENTS,
}
"""What is counted in a plan, and the most of it."""
RESERVE_S = 65.0
"""What is kept free of training for evaluation, plots and a slow machine."""


@dataclass(frozen=True)
class Plan:
    """Says what to compare; `compare` makes one from its arguments, or takes one as it is.

    Args:
        problem: on which all are trained and judged.
        methods: names of those to train, or of their files.
        episodes: of training, of each method and seed; None: as many as fit into the time.
        seeds: training seeds of each method.
        eval_episodes: on which everything is judged.
        seconds: for all of it; None: without a limit.
        processes: side by side, each with one thread; on a cluster tasks.
        seed: of evaluation, and the first training seed.
        out: folder.
        compiled: whether updates are compiled.
        changes: fields of the methods that are set to other values: `field` of all of them, `method.field` of one.
        environments: lanes side by side in each training.
        resume: whether what an earlier run finished in `out` is taken from there.
        policies: trained ones that are played too; None: those that the problem names.
        cluster: whose machines do the work; None: processes of this one.
        at: at which value of a sweep, in messages; empty: it is part of none.

    Raises:
        InputError: there is neither a number of episodes nor a time, a value is out of range or of another kind, or a
            method stands there twice.

    Example:
        >>> from pathlib import Path
        >>> plan = Plan(EnvProblem(Clinic, steps=50), methods=["sac", "dqn"], out=Path("runs/clinic"), seeds=3)
        >>> plan.seconds, plan.baseline, plan.untrained
        (300.0, 'random', ['random'])
    """

    problem: Problem
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
    policies: Sequence[str] | None = None
    environments: int = 1
    cluster: Cluster | None = field(default=None, repr=False)
    at: str = ""

    @property
    def baseline(self) -> str:
        """The rule to which all others are set in relation: the problem's first."""
        return next(iter(rules_of(self.problem)))

    @property
    def untrained(self) -> list[str]:
        """What is played without training it: every rule, then the policies."""
        chosen = self.problem.compared() if self.policies is None else self.policies
        return list(dict.fromkeys([self.baseline, *self.problem.compared_rules(), *chosen]))

    def changes_of(self, name: str) -> dict[str, Any]:
        """The fields of one method that are set to other values.

        Args:
            name: of the method.

        Returns:
            Values by field, those that are set in all methods, then those in this one alone.

        Raises:
            InputError: a field is to be set in all of them, and only some have it.

        Example:
            >>> changes = {"gamma": 0.9, "d2sac.steps": 3}
            >>> problem = EnvProblem(Clinic, steps=50)
            >>> plan = Plan(problem, methods=["d2sac", "sac"], out="runs/clinic", changes=changes)
            >>> plan.changes_of("d2sac"), plan.changes_of("sac")
            ({'gamma': 0.9, 'steps': 3}, {'gamma': 0.9})
        """
        return changes_of({name: make_method(name) for name in self.methods}, name, self.changes)

    def __post_init__(self) -> None:
        object.__setattr__(self, "out", check.path(self.out, "out"))
        check.names(self.methods, "methods", "names")
        if self.policies is not None:
            check.names(self.policies, "policies", "names")
        for name, most in COUNTS.items():
            object.__setattr__(self, name, check.integer(getattr(self, name), name, least=1, most=most))
        object.__setattr__(self, "seed", check.integer(self.seed, "seed", least=0))
        if self.episodes is not None:
            most = _limits.TRAINING
            object.__setattr__(self, "episodes", check.integer(self.episodes, "episodes", least=1, most=most))
        if self.episodes is None and self.seconds is None:
            raise InputError("a comparison needs a number of episodes or a time limit, got neither")
        if self.seconds is not None:
            check.number(self.seconds, "seconds", above=0, most=60 * _limits.MINUTES)
        for name in self.methods:
            if list(self.methods).count(name) > 1:
                raise InputError(f"method {name} is named twice")


@dataclass(frozen=True)
class Job:
    """One policy to evaluate, after training it if it is a method's.

    Args:
        name: of the policy, or of the method that makes it. problem: on which it is trained and judged.
        eval_episodes: to judge it on. seed: of training. arrivals_seed: of those episodes.
        trained: whether it is a method's. episodes: of training; None: as many as fit into the time.
        seconds: that training has, by the clock; share_s: by the plan, before the clock began.
        out: folder for what is trained. compiled, changes, resume, environments, at: as in `Plan`.
    """

    name: str
    problem: Problem
    eval_episodes: int
    seed: int
    arrivals_seed: int
    trained: bool = False
    episodes: int | None = None
    seconds: float | None = None
    share_s: float | None = None
    out: Path | None = None
    compiled: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False
    environments: int = 1
    at: str = ""

    @property
    def effort(self) -> float:
        """About how much work it is: an episode that is played counts 1, one that is learned from 4."""
        return self.eval_episodes + (4.0 * (self.episodes or 100) if self.trained else 0.0)

    def named(self) -> str:
        """What it is called in messages."""
        name = f"{self.name}, seed {self.seed}" if self.trained else self.name
        return f"{name}, {self.at}" if self.at else name

    def identity(self) -> dict[str, Any]:
        """What its training depends on, as JSON holds it; of the time its share, which no clock moves.

        Raises:
            InputError: the method holds what no file can describe, so that its result could not be taken up again.
        """
        return {
            "version": __version__,
            "method": describe(changed(make_method(self.name), self.changes), f"method {self.name}"),
            **self.problem.description(),
            "seed": self.seed,
            "episodes": self.episodes,
            "share_s": self.share_s,
            "compiled": self.compiled,
            **({} if self.environments == 1 else {"environments": self.environments}),
        }

    def __getstate__(self) -> dict[str, Any]:
        """Another process finds the problem by its reference, where it has one."""
        return vars(self) | {"problem": self.problem.reference or self.problem}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if isinstance(state["problem"], str):
            state["problem"] = make_problem(state["problem"])
        self.__dict__.update(state)


@dataclass(frozen=True)
class Outcome:
    """What came of a job.

    Args:
        history: a row a training episode. train_seconds: of training alone.
        taken: whether an earlier run had trained it.
        updates: of parameters; None: nobody counted them.
    """

    job: Job
    played: Played
    history: list[dict[str, float]] = field(default_factory=list)
    train_seconds: float = 0.0
    taken: bool = False
    updates: int | None = None


def jobs_of(plan: Plan, started: float) -> list[Job]:
    """Every method and training seed, then every rule; the time that is left is shared out evenly.

    Args:
        plan: what to compare. started: `time.monotonic()` at which its time began.
    """
    common: dict[str, Any] = {
        "problem": plan.problem,
        "eval_episodes": plan.eval_episodes,
        "arrivals_seed": plan.seed,
        "at": plan.at,
    }
    pairs = [(name, plan.seed + k) for k in range(plan.seeds) for name in plan.methods]
    changes = {name: plan.changes_of(name) for name in plan.methods}
    share = seconds = None
    if plan.seconds is not None and pairs:
        rounds = -(-len(pairs) // plan.processes)
        share = max(plan.seconds - RESERVE_S, 5.0) / rounds
        seconds = max(plan.seconds - (time.monotonic() - started) - RESERVE_S, 5.0) / rounds
    training = [
        Job(
            name=name,
            seed=seed,
            trained=True,
            episodes=plan.episodes,
            seconds=seconds,
            share_s=share,
            compiled=plan.compiled,
            changes=changes[name],
            resume=plan.resume,
            environments=plan.environments,
            out=plan.out / "policies" / name.replace("/", "_").replace(":", ".") / f"seed-{seed}",
            **common,
        )
        for name, seed in pairs
    ]
    rules = [Job(name=name, seed=plan.seed, **common) for name in plan.untrained]
    return training + rules


def portable(problem: Problem) -> bool:
    """Whether another process can be given a problem: by its reference, or as it is."""
    if problem.reference is not None:
        return True
    try:
        pickle.dumps(problem)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True
