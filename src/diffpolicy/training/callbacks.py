"""Callbacks of a training run: progress by episodes, checkpoints, evaluation on common arrivals, a clean stop."""

from __future__ import annotations

import csv
import io
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from diffpolicy import _files
from diffpolicy.training.off_policy import OffPolicyModule


class EpisodeProgress(L.Callback):
    """A bar over episodes on stderr, with the last episode's delay in it. Args: label: of the bar."""

    def __init__(self, label: str) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, console=Console(stderr=True), transient=False)
        self.label = label
        self.bar: Any = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        self.progress.start()
        self.bar = self.progress.add_task(self.label, total=trainer.max_epochs, completed=trainer.current_epoch)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if self.bar is None:
            return
        delay = pl_module.history[-1]["delay_s"]
        self.progress.update(self.bar, advance=1, description=f"{self.label}  delay {delay:.2f} s")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.progress.stop()


class Checkpoints(L.Callback):
    """Writes `checkpoint.ckpt` and `training.csv` at ends of episodes, and when the run ends or is interrupted.

    Args:
        folder: where to. every: episodes between two checkpoints.
    """

    def __init__(self, folder: str | Path, every: int = 50) -> None:
        self.folder, self.every = Path(folder), every
        self.saved = -1

    def save(self, trainer: L.Trainer, module: OffPolicyModule) -> None:
        """Writes both files, unless nothing has happened since the last time."""
        if self.saved == module.episodes:
            return
        self.saved = module.episodes
        if not trainer.is_global_zero:
            trainer.save_checkpoint(
                self.folder / "checkpoint.ckpt"
            )  # gives its part to the first process, which writes
            return
        _files.write(self.folder / "checkpoint.ckpt", trainer.save_checkpoint)
        _files.write_text(self.folder / "training.csv", history_csv(module.history))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if (trainer.current_epoch + 1) % self.every == 0:
            self.save(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.save(trainer, pl_module)


def history_csv(history: list[dict[str, float]]) -> str:
    """A line an episode; a figure that an episode did not have is left empty."""
    names = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()


class EvaluateEvery(L.Callback):
    """Evaluates the policy on common arrivals after every so many episodes, and adds the figures to the history.

    Args:
        evaluate: from the policy to named figures. every: episodes.
    """

    def __init__(self, evaluate: Callable[[Any], Mapping[str, float]], every: int) -> None:
        self.evaluate, self.every = evaluate, every

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if (trainer.current_epoch + 1) % self.every == 0:
            pl_module.train_dataloader().remember()
            figures = dict(self.evaluate(pl_module.policy))
            pl_module.history[-1].update(figures)


class StopCleanly(L.Callback):
    """Ends the run at the end of an episode: on Ctrl-C (a second one stops at once), or when its time is over.

    Args:
        max_seconds: of the run, or None.
    """

    def __init__(self, max_seconds: float | None = None) -> None:
        self.max_seconds = max_seconds
        self.interrupted = False
        self._previous: Any = None
        self._start = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._interrupt)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        over = self.max_seconds is not None and time.monotonic() - self._start >= self.max_seconds
        if trainer.strategy.reduce_boolean_decision(self.interrupted or over, all=False):
            trainer.should_stop = True

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None
