"""`fit`: a Lightning trainer with this library's habits, for any of its modules."""

from __future__ import annotations

import logging
import pickle
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import DDPStrategy

from diffpolicy.errors import InputError
from diffpolicy.training.callbacks import Checkpoints, EpisodeProgress, StopCleanly
from diffpolicy.training.off_policy import OffPolicyModule


@dataclass(frozen=True)
class Fitted:
    """What came of a run.

    Args:
        episodes: done in all.
        interrupted: whether Ctrl-C ended it.
        history: a row an episode.
        first: whether this is the first process of a distributed run, the one that writes and reports.
    """

    episodes: int
    interrupted: bool
    history: list[dict[str, float]]
    first: bool = True


@contextmanager
def no_denormals() -> Iterator[None]:
    """Rounds numbers below 1e-38 to zero: a nearly one-hot softmax has many, and they slow an update down."""
    before = bool(torch.tensor(1e-40) * 1 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _trainer(**options: Any) -> L.Trainer:
    """Lightning's trainer, whose refusals name what was asked of it."""
    try:
        return L.Trainer(**options)
    except (ValueError, TypeError, RuntimeError, MisconfigurationException) as error:
        asked = ", ".join(f"{name} {options[name]!r}" for name in ("accelerator", "devices", "precision"))
        raise InputError(f"Lightning cannot train with {asked}: {str(error).splitlines()[0]}") from None


def _check_checkpoint(path: Path) -> None:
    """Refuses what is no checkpoint of ours, in one sentence."""
    if not path.is_file():
        raise InputError(f"checkpoint {path} does not exist")
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, LookupError, pickle.UnpicklingError):
        raise InputError(f"checkpoint {path} cannot be read as a checkpoint") from None
    if not isinstance(data, dict) or "diffpolicy" not in data:
        raise InputError(f"checkpoint {path} was not written by diffpolicy")


def fit(
    module: OffPolicyModule,
    *,
    episodes: int | None = None,
    max_seconds: float | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    label: str | None = None,
    callbacks: Sequence[L.Callback] = (),
    accelerator: str = "cpu",
    devices: Any = 1,
    precision: Any = None,
    logger: Any = False,
    checkpoint_every: int = 50,
    compiled: bool = False,
) -> Fitted:
    """Trains a module; one epoch is one episode.

    Args:
        module: fresh, or with `resume` built as the one that was saved.
        episodes: in all, also when resuming; None: until the time is over.
        max_seconds: ends the run after the episode in which they pass.
        out: folder for `checkpoint.ckpt` and `training.csv`; None: nothing is written.
        resume: a checkpoint to go on from.
        label: of the progress bar; None: no bar.
        callbacks, accelerator, devices, precision, logger: of Lightning's trainer.
        checkpoint_every: episodes.
        compiled: whether the objective's losses run through `torch.compile`: half a minute at the start, then a
            faster run with other roundings; a run keeps what it began with.

    Raises:
        FloatingPointError: a loss was not finite; names the first bad tensor.
        InputError: the checkpoint does not fit the module.
    """
    module.set_compiled(compiled)
    stop = StopCleanly(max_seconds)
    mine: list[L.Callback] = [stop, *callbacks]
    if out is not None:
        mine.append(Checkpoints(out, checkpoint_every))
    if label is not None:
        mine.append(EpisodeProgress(label))
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    batch = module.train_dataloader().base_env.batch_size.numel()
    # all start from the same seed, and replays are buffers too, of which each process has its own
    strategy: Any = "auto" if devices in (1, "1") else DDPStrategy(broadcast_buffers=False, init_sync=False)
    with warnings.catch_warnings(), no_denormals():
        warnings.filterwarnings("ignore", module="lightning")
        trainer = _trainer(
            max_epochs=-1,
            accelerator=accelerator,
            devices=devices,
            strategy=strategy,
            precision=precision,
            logger=logger,
            callbacks=mine,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        if episodes is not None:
            trainer.fit_loop.max_epochs = -(-episodes // (batch * trainer.world_size))
        if resume is not None:
            _check_checkpoint(Path(resume))
        try:
            trainer.fit(module, ckpt_path=None if resume is None else str(resume), weights_only=True)
        except InputError as error:
            raise InputError(f"checkpoint {resume} cannot be resumed: {error}") from None
        except torch._dynamo.exc.BackendCompilerFailed as error:
            reason = next(line for line in str(error).splitlines() if line.strip())
            raise InputError(f"the updates cannot be compiled here: {reason}") from None
        except RuntimeError as error:
            if "loading state_dict" not in str(error):
                raise
            raise InputError(f"checkpoint {resume} cannot be resumed: it holds networks of other shapes") from None
    module.train_dataloader().remember()
    return Fitted(module.episodes, stop.interrupted, module.history, trainer.is_global_zero)
