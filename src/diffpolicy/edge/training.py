"""Training a method on the edge problem, as `experiments.train` does it on any.

It stands for what runs are called: a checkpoint's identity is the digest of the scenario, and not the source of the
problem, and a policy's folder names its scenario, so that what an earlier version wrote resumes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import Logger

from diffpolicy._global_draws import global_draws
from diffpolicy.edge.problem import OffloadingProblem
from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.errors import InputError
from diffpolicy.experiments.changes import changed
from diffpolicy.experiments.method_names import make_method
from diffpolicy.experiments.training import Trained, evaluations, run, warn_of_few
from diffpolicy.methods.rollouts import RolloutMethod
from diffpolicy.training.loggers import LoggerName
from diffpolicy.training.trainable import Trainable


def build(
    method: str,
    scenario: Scenario,
    *,
    seed: int = 0,
    environments: int = 1,
    changes: Mapping[str, Any] | None = None,
) -> Trainable:
    """A method's module on the training episodes of a scenario.

    Args:
        method: a preset's name, a YAML file, or `module:attribute`.
        scenario: needs a workload and slots.
        seed: of arrivals, parameters, noise and choices, and of the global generators, from which your own parts may
            draw.
        environments: played side by side.
        changes: fields of the method that are set to other values.
    """
    problem, made = OffloadingProblem(scenario), make_method(method)
    try:
        made = changed(made, changes or {})
        if isinstance(made, RolloutMethod):
            made = replace(made, masks=problem.masks if made.masks is None else made.masks)
        with global_draws(seed):
            module = made.build(problem, environments=environments, seed=seed)
    except InputError as error:
        raise InputError(f"method {method}: {error}") from None
    module.identity = {
        "method": made.description() if isinstance(made, RolloutMethod) else made,
        "seed": seed,
        "environments": environments,
        "scenario": scenario.digest(),
    }
    return module


def train(
    method: str,
    scenario: Scenario,
    *,
    episodes: int | None,
    max_seconds: float | None = None,
    environments: int = 1,
    seed: int = 0,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    label: str | None = None,
    evaluate_every: int | None = None,
    eval_episodes: int = 4,
    logger: LoggerName | Logger | Literal[False] = False,
    module: Trainable | None = None,
    overwrite: bool = False,
    **trainer: Any,
) -> Trained:
    """Trains a method, and writes its policy, checkpoint and `training.csv` into a folder.

    Args:
        method, scenario, environments, seed: of `build`; module: what it gave, if it was called before.
        episodes, max_seconds, resume, label: of `fit`.
        out: folder; None: nothing is written. overwrite: whether another run in it is replaced.
        evaluate_every: episodes between two evaluations on common arrivals. eval_episodes: of each.
        logger: of `experiments.train`. trainer: options of Lightning's trainer.
    """
    module = module or build(method, scenario, seed=seed, environments=environments)
    trained = {
        "method": Path(method).name if Path(method).suffix in (".yaml", ".yml") else method,
        "seed": module.identity["seed"] if isinstance(module.identity, dict) else seed,
        "scenario": scenario.name.rsplit(os.sep, 1)[-1],
        "scenario_sha256": scenario.digest(),
    }
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
        callbacks=evaluations(OffloadingProblem(scenario), evaluate_every, eval_episodes, seed),
        logger=logger,
        **trainer,
    )
    if resume is None:
        warn_of_few(result)
    return result
