"""`fit`: a Lightning trainer with this library's habits, for any of its modules."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from diffpolicy import _validate as check
from diffpolicy._alone import alone_in
from diffpolicy._global_draws import global_draws
from diffpolicy._identity import describe
from diffpolicy._signals import Stopped, end_with
from diffpolicy.errors import InputError
from diffpolicy.training import checkpoint
from diffpolicy.training.callbacks import Checkpoints, EpisodeProgress, GlobalDraws, LogPasses, StopCleanly
from diffpolicy.training.loggers import make_logger
from diffpolicy.training.trainable import Trainable

PARENT = "DIFFPOLICY_PARENT"
"""Tells the processes that Lightning starts beside this one who their parent is."""


@dataclass(frozen=True)
class Fitted:
    """The result of `fit`: what came of a run.

    Args:
        episodes: done in all.
        interrupted: whether a signal ended it.
        history: a row a pass: `episode`, the mean cost under the column of the problem's `Cost`, and the means of what
            the updates wrote, such as losses.
        first: whether this is the first process of a distributed run, the one that writes and reports.
        signal: number of the signal that ended it, SIGINT or SIGTERM; None if none did.
        policy: what was trained.
        updates: of parameters in this call; None: the module does not count them.

    Example:
        >>> method = DQNMethod(learning_rates={"critic": 1e-3})
        >>> fitted = fit(method.build(EnvProblem(Clinic, steps=50), environments=4), episodes=8)
        >>> fitted.episodes, fitted.interrupted, [row["episode"] for row in fitted.history]
        (8, False, [4, 8])
    """

    episodes: int
    interrupted: bool
    history: list[dict[str, float]]
    first: bool = True
    signal: int | None = None
    policy: nn.Module | None = None
    updates: int | None = None


@contextmanager
def quiet() -> Iterator[None]:
    """Lightning reports errors alone; its loggers' levels come back afterwards."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextmanager
def no_denormals() -> Iterator[None]:
    """Rounds numbers below 1e-38 to zero: a nearly one-hot softmax has many, and they slow an update down."""
    before = bool(torch.tensor(1e-40) * 1 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def fit(
    module: Trainable,
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
    overwrite: bool = False,
) -> Fitted:
    """Trains a module; one epoch is one pass, an episode of each of its environments in each process.

    Your own parts may draw from the global generators of torch, NumPy and `random`: a checkpoint holds where they are,
    and when the run is over they are as they were before.

    SIGINT (Ctrl-C) and SIGTERM end the run after the episode at hand, with a checkpoint; `Fitted.signal` tells which. A
    second one ends it at once, and the last checkpoint stays.

    Args:
        module: fresh, or with `resume` built as the one that was saved.
        episodes: in all, also when resuming, rounded up to whole passes; None: until the time is over.
        max_seconds: ends the run after the pass in which they are over.
        out: folder for `checkpoint.ckpt` and `training.csv`; None: nothing is written. It may hold files of yours, but
            no other run's.
        resume: a checkpoint to go on from.
        label: of the progress bar; None: no bar.
        callbacks, accelerator, devices, precision: of Lightning's trainer. A callback that ends the run amid a pass
            leaves the last checkpoint as it is, with a warning.
        logger: of it, or a name that `make_logger` takes; it is given each pass's row of the history.
        checkpoint_every: episodes between two checkpoints; one is also written where the last is a minute old.
        compiled: whether an update's losses and gradients are one graph of `torch.compile`, where the objective has a
            pure function `losses`: half a minute at the start, then a faster run with other roundings; a run keeps what
            it began with.
        overwrite: whether another run in `out` is replaced.

    Returns:
        How many episodes there are in all, and a row of the history for each pass; the policy is the module's.

    Raises:
        FloatingPointError: a loss was not finite; names the first bad tensor.
        InputError: before the first episode: the checkpoint is damaged or of another run, the module could not be
            resumed, or `out` holds another run, is being written by another process or cannot be written to; later: the
            disk is full.
        KeyboardInterrupt: a second signal.

    Example:
        >>> make = lambda: make_method("dqn").build(EnvProblem(Clinic, steps=50), environments=4, seed=1)
        >>> fit(make(), episodes=4, out="runs/clinic").episodes
        4
        >>> fit(make(), episodes=8, out="runs/clinic", resume="runs/clinic/checkpoint.ckpt").episodes
        8
    """
    if not isinstance(module, Trainable):
        raise InputError(f"fit trains a Trainable, such as a method's build gives, got {check.show(module)}")
    if episodes is not None:
        whole = isinstance(episodes, Integral) and not isinstance(episodes, bool)  # NumPy's too
        episodes = check.integer(int(episodes) if whole else episodes, "episodes", least=1)
    seconds = isinstance(max_seconds, Real) and not isinstance(max_seconds, bool)
    if max_seconds is not None and not (seconds and max_seconds > 0):
        raise InputError(f"max_seconds must be a number greater than 0, got {check.show(max_seconds)}")
    for name, path in (("out", out), ("resume", resume)):
        if path is not None:
            check.path(path, name)
    check_callbacks(callbacks)
    logger = make_logger(logger, out, label or "run")
    module.set_compiled(compiled)
    before = module.updates_made or 0  # a module that was fitted already counts on
    with global_draws():
        module.check()
    identity = _identity(module, keeps=out is not None or resume is not None)
    saved = None if resume is None else checkpoint.read(resume)
    file, stop = checkpoint.CheckpointFile(module, saved), StopCleanly(max_seconds)
    mine: list[L.Callback] = [stop, GlobalDraws(), *callbacks, LogPasses()]
    if out is not None:
        module.check_saves()
        mine.append(Checkpoints(out, checkpoint_every))
    if label is not None:
        mine.append(EpisodeProgress(label))
    # all start from the same seed, and replays are buffers too, of which each process has its own
    strategy: Any = "auto" if devices in (1, "1") else DDPStrategy(broadcast_buffers=False, init_sync=False)
    denormals = no_denormals() if module.flush_denormals else nullcontext()
    with alone_in(out), quiet(), denormals, global_draws(), stop.requests, _with_parent():
        trainer = _trainer(
            max_epochs=-1,
            accelerator=accelerator,
            devices=devices,
            strategy=strategy,
            precision=precision,
            logger=logger,
            callbacks=mine,
            plugins=[file],
            limit_train_batches=module.pass_items,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit_loop.max_epochs = passes = _passes(module, episodes, trainer.world_size)
        done = 0 if saved is None else saved["run"]["episodes"]
        file.run = checkpoint.describe_run(identity, compiled=compiled, processes=trainer.world_size, episodes=done)
        if saved is not None:
            checkpoint.check_resumes(saved["run"], file.run, f"checkpoint {resume} cannot be resumed: it")
            if 0 <= passes * module.lanes * trainer.world_size < done:
                raise InputError(
                    f"the run of checkpoint {resume} has {done} episodes already, so episodes must be at least {done}, "
                    f"got {episodes}"
                )
        if out is not None and not overwrite:
            checkpoint.check_folder(out, resume, file.run)
        try:
            trainer.fit(module, ckpt_path=None if resume is None else str(resume), weights_only=True)
        except BaseException as error:
            for process in getattr(trainer.strategy.launcher, "procs", None) or []:
                process.kill()
            told = _in_our_words(error, stop, resume if file.given else None)
            if told is error:
                raise
            raise told from error
        module.finish()
    number = stop.requests.number
    first, made = trainer.is_global_zero, module.updates_made
    updates = None if made is None else made - before
    return Fitted(module.episodes, number is not None, module.history, first, number, module.policy, updates)


def check_callbacks(callbacks: Any) -> list[L.Callback]:
    """Lightning's callbacks as a list.

    Raises:
        InputError: they are no list of these.
    """
    if not isinstance(callbacks, Sequence) or not all(isinstance(each, L.Callback) for each in callbacks):
        raise InputError(f"callbacks must be a list of Lightning callbacks, got {check.show(callbacks)}")
    return list(callbacks)


def _trainer(**options: Any) -> L.Trainer:
    """Lightning's trainer, whose refusals name what was asked of it."""
    try:
        return L.Trainer(**options)
    except (ValueError, TypeError, RuntimeError, MisconfigurationException) as error:
        asked = ", ".join(f"{name} {options[name]!r}" for name in ("accelerator", "devices", "precision"))
        raise InputError(f"Lightning cannot train with {asked}: {str(error).splitlines()[0]}") from None


def _identity(module: Trainable, *, keeps: bool) -> Any:
    """What the run is. Args: keeps: whether it writes or reads checkpoints; otherwise nobody may have to know."""
    try:
        return describe(module.content() if module.identity is None else module.identity, "run")
    except InputError:
        if keeps:
            raise
        return None


def _passes(module: Trainable, episodes: int | None, processes: int) -> int:
    """How many passes a run has in all, as Lightning counts its epochs: -1 has no end."""
    if episodes is None:
        return -1 if module.passes is None else module.passes
    passes = -(-episodes // (module.lanes * processes))
    if module.passes is not None and passes > module.passes:
        raise InputError(f"this {type(module).__name__} makes {module.passes} in all, so episodes cannot be {episodes}")
    return passes


def _in_our_words(error: BaseException, stop: StopCleanly, resume: str | Path | None) -> BaseException:
    """What a run that failed raises. Args: resume: the checkpoint, once Lightning has it."""
    if isinstance(error, SystemExit) and stop.requests.number is not None:
        return Stopped(stop.requests.number)  # Lightning exits with 1 on an interrupt, and with 0 on SIGTERM
    if isinstance(error, torch._dynamo.exc.BackendCompilerFailed):
        reason = next(line for line in str(error).splitlines() if line.strip())
        return InputError(f"the updates cannot be compiled here: {reason}")
    if isinstance(error, Exception) and resume is not None and not stop.started:
        reason = str(error) if isinstance(error, InputError) else "what it holds does not fit this run"
        return InputError(f"checkpoint {resume} cannot be resumed: {reason}")
    return error


@contextmanager
def _with_parent() -> Iterator[None]:
    """Processes that Lightning starts beside this one end with it, however it ends."""
    if PARENT in os.environ and os.environ.get("LOCAL_RANK", "0") != "0":
        end_with(int(os.environ[PARENT]))
        yield
        return
    before = os.environ.get(PARENT)
    os.environ[PARENT] = str(os.getpid())
    try:
        yield
    finally:
        del os.environ[PARENT]
        if before is not None:
            os.environ[PARENT] = before
