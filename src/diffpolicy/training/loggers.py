"""Where a run's figures go besides `training.csv`: Lightning's loggers, by name; it is loaded when one is made."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from diffpolicy import _validate as check
from diffpolicy.errors import InputError

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

LoggerName = Literal["csv", "tensorboard", "wandb"]
LOGGERS: dict[str, str | None] = {"csv": None, "tensorboard": "tensorboard", "wandb": "wandb"}
"""Names of loggers, and what each needs to be installed."""
INSTALLED_BY = {"tensorboard": "pip install -c constraints.txt '.[tensorboard]'", "wandb": "pip install wandb"}
"""What brings that in: an extra, where there is one."""


def check_logger(name: str) -> str:
    """A logger's name, if there is one of it and what it needs is installed.

    Raises:
        InputError: it names the logger.
    """
    check.choice(name, "logger", LOGGERS)
    needs = LOGGERS[name]
    if needs is not None and importlib.util.find_spec(needs) is None:
        raise InputError(f"logger {name} needs {needs}, which is not installed: {INSTALLED_BY[name]}")
    return name


def make_logger(logger: LoggerName | Logger | Literal[False], out: str | Path | None, label: str = "run") -> Any:
    """A logger for Lightning's trainer.

    Args:
        logger: a name of `LOGGERS`; one of Lightning's own; False: none.
        out: the run's folder, in which `csv/version_K/metrics.csv`, `tensorboard/` or `wandb/` is written.
        label: what W&B calls the run.

    Raises:
        InputError: no logger of that name, what it needs is not installed, or there is no folder for it.

    Example:
        >>> train(problem, "sac", episodes=100, out="runs/sac", logger="tensorboard")
    """
    if not isinstance(logger, str):
        return logger
    check_logger(logger)
    if out is None:
        raise InputError(f"logger {logger} writes into the run's folder, and `out` is None")
    from lightning.pytorch import loggers

    if logger == "csv":
        return loggers.CSVLogger(str(out), name="csv")
    if logger == "tensorboard":
        return loggers.TensorBoardLogger(str(out), name="", version="tensorboard")
    return loggers.WandbLogger(name=label, project="diffpolicy", save_dir=str(out))
