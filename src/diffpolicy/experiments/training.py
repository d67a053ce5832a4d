"""`train`: any method on any problem."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.loggers import Logger
from tensordict import TensorDictBase

from diffpolicy import _validate as check
from diffpolicy._alone import alone_in
from diffpolicy._global_draws import global_draws
from diffpolicy._read import read_bytes, what_is
from diffpolicy.environments.problem import Problem
from diffpolicy.errors import InputError
from diffpolicy.evaluation.evaluating import play_episodes
from diffpolicy.experiments.changes import changed
from diffpolicy.experiments.method_names import make_method
from diffpolicy.experiments.problem_names import checked_problem, make_problem
from diffpolicy.methods.method import Method
from diffpolicy.methods.off_policy import OffPolicyMethod
from diffpolicy.policies.protocols import Decides
from diffpolicy.policies.saving import SavedPolicy
from diffpolicy.training.callbacks import EvaluateEvery
from diffpolicy.training.fit import Fitted, check_callbacks, fit
from diffpolicy.training.loggers import LoggerName, make_logger
from diffpolicy.training.trainable import Trainable

FEW = 1000
"""Updates below which whoever trains is told how to make more of them."""


@dataclass(frozen=True)
class Trained(Fitted):
    """The result of `train`: what came of training a method.

    Args:
        policy: what was trained.
        others: of `Fitted`.

    Example:
        >>> run = train(EnvProblem(Clinic, steps=50, cost="waiting"), "dqn", episodes=8, environments=4)
        >>> run.episodes, run.interrupted, [row["episode"] for row in run.history]
        (8, False, [4, 8])
        >>> run.policy(Clinic(3).reset())["action"].shape
        torch.Size([3])
    """

    policy: SavedPolicy = field(kw_only=True)


def build(
    problem: Problem | str,
    method: Method | str,
    *,
    data: TensorDictBase | str | Path | None = None,
    environments: int = 1,
    seed: int = 0,
    changes: Mapping[str, Any] | None = None,
) -> Trainable:
    """Builds a method's module for a problem.

    Args:
        problem: one, or its name.
        method: one, or what `make_method` takes.
        data: a data set from which an imitating or offline method learns instead of play, of `environments.read_data`,
            or the path of one; an episode of training is then a pass over all its rows.
        environments: lanes side by side.
        seed: of episodes, parameters, noise and choices, and of the global generators, from which your own parts may
            draw.
        changes: fields of the method that are set to other values, by their names.

    Returns:
        A fresh LightningModule, for `fit`; nothing is played yet.

    Raises:
        InputError: nothing of that name, a field that the method has not, or a method that cannot train the problem.

    Example:
        >>> module = build(EnvProblem(Clinic, steps=50), "d2sac", environments=8, changes={"gamma": 0.9})
        >>> module.lanes, module.objective.gamma
        (8, 0.9)
        >>> fit(module, episodes=8).episodes
        8
    """
    environments, seed = check.integer(environments, "environments", least=1), check.integer(seed, "seed", least=0)
    given = make_problem(problem) if isinstance(problem, str) else problem
    check.no_class(given, "the problem")
    made = make_method(method) if isinstance(method, str) else method
    check.no_class(made, "the method")
    if not isinstance(made, Method):
        raise InputError(f"a method must be a Method or the name of one, got {check.show(made)}")
    try:
        made = changed(made, changes or {})
        with global_draws(seed):
            module: Trainable = (
                made.build(given, environments=environments, seed=seed)
                if data is None
                else _of_data(made, given, data, environments, seed)
            )
    except InputError as error:
        raise InputError(f"method {_name(method)}: {error}") from None
    return module


def train(
    problem: Problem | str,
    method: Method | str,
    *,
    data: TensorDictBase | str | Path | None = None,
    episodes: int | None = None,
    max_seconds: float | None = None,
    environments: int = 1,
    seed: int = 0,
    changes: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    overwrite: bool = False,
    label: str | None = None,
    evaluate_every: int | None = None,
    eval_episodes: int = 4,
    callbacks: Sequence[L.Callback] = (),
    accelerator: str = "cpu",
    devices: Any = 1,
    precision: Any = None,
    compiled: bool = False,
    logger: LoggerName | Logger | Literal[False] = False,
) -> Trained:
    """Trains a method on a problem, and writes policy, checkpoint and `training.csv` into a folder.

    Args:
        problem, method, data, environments, seed, changes: of `build`.
        episodes: in all, also when resuming; rounded up to whole passes, of an episode in each environment.
        max_seconds: the run ends after the pass in which they are over.
        out: folder; None: nothing is written.
        overwrite: whether another run in it is replaced.
        resume: a checkpoint, or the folder that holds one.
        evaluate_every: episodes between two evaluations on the same episodes; their mean cost goes into the history as
            `eval_cost`, or `eval_` and what the problem calls its cost's column.
        eval_episodes: of each of these evaluations.
        label, callbacks, accelerator, devices, precision, compiled: of `fit`.
        logger: `csv`, `tensorboard` or `wandb`, in `out`; or one of Lightning's.

    Returns:
        What came of it, with `policy` and `history`.

    Raises:
        InputError: a name, a number or a field does not fit, the method cannot train the problem, or `out` holds
            another run; all before the first episode.
        FloatingPointError: a loss was not finite.

    Example:
        >>> import os
        >>> problem = EnvProblem(Clinic, steps=50, cost="waiting")
        >>> run = train(problem, "d2sac", episodes=32, environments=16, out="runs/clinic")
        >>> run.episodes, len(run.history), sorted(os.listdir("runs/clinic"))
        (32, 2, ['checkpoint.ckpt', 'policy.json', 'policy.safetensors', 'training.csv'])
        >>> evaluate(problem, ["runs/clinic"], episodes=4).results["runs/clinic"].costs.count
        4
    """
    given, seed = checked_problem(problem), check.integer(seed, "seed", least=0)
    module = build(given, method, data=data, environments=environments, seed=seed, changes=changes)
    module.problem = None  # it was checked before anything was built
    trained = {"method": _name(method), "problem": given.name, "seed": seed}
    result = run(
        module,
        trained,
        seed=seed,
        out=out,
        episodes=episodes,
        max_seconds=max_seconds,
        resume=resume,
        overwrite=overwrite,
        label=label,
        callbacks=[*check_callbacks(callbacks), *evaluations(given, evaluate_every, eval_episodes, seed)],
        accelerator=accelerator,
        devices=devices,
        precision=precision,
        compiled=compiled,
        logger=logger,
    )
    if data is None and resume is None:
        warn_of_few(result)
    return result


def warn_of_few(result: Fitted) -> None:
    """Warns of a whole run that made so few updates that hardly anything can have been learned.

    A run without any warns of that itself. Args: result: what came of a run from its beginning.
    """
    if result.first and result.signal is None and result.updates is not None and 0 < result.updates < FEW:
        times = "once" if result.updates == 1 else f"{result.updates} times"
        warnings.warn(
            f"the networks were updated {times}, and most problems need thousands of updates: play more episodes, or "
            "fewer environments at a time, or, with a replay, raise the method's field updates, for example to 8",
            stacklevel=3,
        )


def _of_data(
    method: Method, problem: Problem, data: TensorDictBase | str | Path, environments: int, seed: int
) -> Trainable:
    """The module of a method that learns from a data set."""
    if environments != 1:
        raise InputError(
            f"environments must be 1 when learning from a data set, where nothing is played, got {environments}"
        )
    if not isinstance(method, OffPolicyMethod):
        raise InputError(f"a {type(method).__name__} learns from play, and not from a data set")
    return method.build_from(problem, data, seed=seed)


def evaluations(problem: Problem, every: int | None, episodes: int, seed: int) -> list[L.Callback]:
    """What evaluates a policy while it is trained, always on the same episodes.

    Args:
        problem: whose. every: episodes of training between two evaluations; None: there are none. episodes: of each.
        seed: of these.
    """
    if every is None:
        return []

    def evaluate(policy: Decides) -> dict[str, float]:
        cost = play_episodes(problem, policy, episodes, seed).cost
        return {f"eval_{problem.cost.column}": float(cost.mean())}

    return [EvaluateEvery(evaluate, check.integer(every, "evaluate_every", least=1))]


def run(
    module: Trainable,
    trained: Mapping[str, Any],
    *,
    seed: int = 0,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    logger: LoggerName | Logger | Literal[False] = False,
    **options: Any,
) -> Trained:
    """Trains a module, and saves its policy into the folder. Args: trained: what the policy tells of how it was."""
    out = None if out is None else check.path(out, "out")
    used = make_logger(logger, out, str(options.get("label") or trained.get("method", "run")))
    policy = module.policy
    if not isinstance(policy, SavedPolicy):
        raise InputError(f"what is trained must be a policy of this package or a subclass, got {check.show(policy)}")
    if out is not None:
        policy.check_saves()
    if resume is not None:
        resume = _checkpoint(resume)
    with alone_in(out):
        with global_draws(seed):
            fitted = fit(module, out=out, resume=resume, logger=used, **options)
        policy.trained |= {**trained, "episodes": fitted.episodes}
        if out is not None and fitted.first:
            policy.save(out)
    return Trained(**{**vars(fitted), "policy": policy})


def _checkpoint(resume: str | Path) -> Path:
    """The checkpoint that is meant. Args: resume: it, or the folder that holds it."""
    path = check.path(resume, "resume")
    if what_is(path) == "folder":
        path = path / "checkpoint.ckpt"
    if not what_is(path):
        read_bytes(path, "checkpoint")  # says so, before the folder of this run is made where it was looked for
    return path


def _name(method: Method | str) -> str:
    """What a policy tells of the method that trained it: no folder of this machine."""
    if isinstance(method, Method):
        return type(method).__name__
    return Path(method).name if Path(method).suffix in (".yaml", ".yml") else method
