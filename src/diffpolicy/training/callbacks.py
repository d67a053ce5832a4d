"""Callbacks of a training run: progress by episodes, checkpoints, evaluation on the same episodes, a clean stop."""

from __future__ import annotations

import csv
import io
import math
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from diffpolicy import _files
from diffpolicy import _validate as check
from diffpolicy._global_draws import global_draws, global_state, seed_globals, set_global_state
from diffpolicy._signals import StopRequests
from diffpolicy.errors import InputError
from diffpolicy.policies.protocols import Decides
from diffpolicy.training import checkpoint, distributed
from diffpolicy.training.rollouts import RolloutModule
from diffpolicy.training.trainable import Trainable

MAX_AGE_S = 60.0
"""Seconds after which a checkpoint is old: about what is lost where a run is killed."""
MAX_SHARE = 0.05
"""Share of a run's time that may go into writing checkpoints that are due by their age."""


class EveryEpisodes:
    """Says once a pass whether another `every` episodes have been played; a pass of several lanes may play more.

    Args:
        every: episodes, at least 1.

    Raises:
        InputError: there are less than one.
    """

    def __init__(self, every: int) -> None:
        self.every = check.integer(every, "the episodes between two checkpoints or evaluations", least=1)
        self.before = 0

    def passed(self, episodes: int) -> bool:
        """Whether a multiple of `every` lies in what was played since the last call. Args: episodes: in all."""
        before, self.before = self.before, episodes
        return episodes // self.every > before // self.every


class GlobalDraws(L.Callback):
    """Keeps in checkpoints where the global generators are, each process's own, from which a user's parts may draw."""

    def __init__(self) -> None:
        self.saved: list[Any] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if trainer.world_size > 1:
            seed_globals(int(torch.randint(2**62, ())), trainer.global_rank)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if len(self.saved) == trainer.world_size:
            set_global_state(self.saved[trainer.global_rank])
        self.saved = []

    def state_dict(self) -> dict[str, Any]:
        return {"processes": distributed.gathered_objects(global_state())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.saved = list(state_dict["processes"])
        with global_draws():
            for state in self.saved:  # what is no state is refused here, before any work
                set_global_state(state)


class EpisodeProgress(L.Callback):
    """A bar over episodes on stderr, with what the last pass cost in it. Args: label: of the bar."""

    def __init__(self, label: str) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, console=Console(stderr=True), transient=False)
        self.label = label
        self.bar: Any = None

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        self.progress.start()
        each = pl_module.lanes * trainer.world_size
        total = None if trainer.max_epochs in (None, -1) else trainer.max_epochs * each
        self.bar = self.progress.add_task(self.label, total=total, completed=pl_module.episodes)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if self.bar is None or not pl_module.history:  # another callback may end a run amid its first pass
            return
        last = pl_module.history[-1]
        shown = next((f"{key} {last[key]:.3g}" for key in ("cost", "loss") if key in last), "")
        if isinstance(pl_module, RolloutModule):
            cost = pl_module.tally.cost
            shown = f"{cost.label} {last[cost.column]:.4g} {cost.unit}".rstrip()
        self.progress.update(self.bar, completed=pl_module.episodes, description=f"{self.label}  {shown}")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.progress.stop()


class Checkpoints(L.Callback):
    """Writes `checkpoint.ckpt` and `training.csv` between passes, and when the run ends or is interrupted.

    They are written after every so many episodes and, since episodes may be long, at the end of the pass in which the
    last ones are a minute old: what kills a process asks nobody. Large ones, which take long to write, come less often.

    Before the first episode it tries whether that will go well, so that nothing is trained that cannot be saved. Where
    a callback ends a run amid a pass, the last checkpoint stays: no other run could go on from the middle.

    Args:
        folder: where to. every: episodes between two checkpoints.
    """

    def __init__(self, folder: str | Path, every: int = 50) -> None:
        self.folder, self.due = Path(folder), EveryEpisodes(every)
        self.saved = -1
        self.old_at = math.inf

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.due.before, self.old_at = pl_module.episodes, time.monotonic() + MAX_AGE_S
        path = self.folder / "checkpoint.ckpt"
        if not trainer.is_global_zero:
            trainer.save_checkpoint(path)  # gives its part to the first process, which writes
            return
        aside = _files.aside_of(path)
        try:
            trainer.save_checkpoint(aside)
            checkpoint.read(aside)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from None
        except InputError:
            raise InputError(
                f"{type(pl_module).__name__} saves what no checkpoint can give back: its state must consist of "
                "tensors, numbers, strings, lists and dictionaries"
            ) from None
        finally:
            aside.unlink(missing_ok=True)

    def save(self, trainer: L.Trainer, module: Trainable) -> None:
        """Writes both files, unless nothing has happened since the last time."""
        if self.saved == module.episodes:
            return
        path, start = self.folder / "checkpoint.ckpt", time.monotonic()
        if trainer.is_global_zero:
            _files.write(path, trainer.save_checkpoint)
            _files.write_text(self.folder / "training.csv", history_csv(module.history))
        else:
            trainer.save_checkpoint(path)  # gives its part to the first process, which writes
        end = time.monotonic()
        self.saved, self.old_at = module.episodes, end + max(MAX_AGE_S, (end - start) / MAX_SHARE)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        due = self.due.passed(pl_module.episodes)
        old = time.monotonic() >= self.old_at and not pl_module.amid_pass
        if trainer.strategy.reduce_boolean_decision(due or old, all=False):  # all processes of a run write together
            self.save(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if not pl_module.amid_pass or self.saved == pl_module.episodes:
            self.save(trainer, pl_module)
        elif trainer.is_global_zero:
            _files.write_text(self.folder / "training.csv", history_csv(pl_module.history))
            last = f"its last checkpoint is of {self.saved} episodes" if self.saved >= 0 else "it wrote no checkpoint"
            warnings.warn(  # not in Lightning's name, whose warnings are not shown
                f"a callback ended the run amid a pass, after {pl_module.episodes} whole episodes; a checkpoint holds "
                f"whole passes alone, so {last}",
                stacklevel=1,
            )


def history_csv(history: list[dict[str, float]]) -> str:
    """A line for each pass, with the episodes until then; a figure that an episode did not have is left empty."""
    names = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()


class EvaluateEvery(L.Callback):
    """Evaluates the policy after every so many episodes, always on the same ones, and adds the figures to the history.

    Args:
        evaluate: from the policy to named figures. every: episodes.
    """

    def __init__(self, evaluate: Callable[[Decides], Mapping[str, float]], every: int) -> None:
        self.evaluate, self.due = evaluate, EveryEpisodes(every)

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.due.before = pl_module.episodes

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if self.due.passed(pl_module.episodes):
            pl_module.remember()
            figures = dict(self.evaluate(pl_module.policy))
            pl_module.history[-1].update(figures)


class LogPasses(L.Callback):
    """Gives each pass's row of the history to the trainer's loggers, with the episodes until then as its step."""

    def __init__(self) -> None:
        self.logged = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.logged = len(pl_module.history)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        # none, where another callback ended the run amid a pass
        for each in pl_module.history[self.logged :]:
            row = {name: float(value) for name, value in each.items()}
            for logger in trainer.loggers:
                logger.log_metrics(row, step=pl_module.episodes)
        self.logged = len(pl_module.history)


class StopCleanly(L.Callback):
    """Ends the run at the end of a pass: on SIGINT or SIGTERM (a second one stops at once), or when its time is over.

    Args:
        max_seconds: of the run, or None.
    """

    def __init__(self, max_seconds: float | None = None) -> None:
        self.max_seconds = max_seconds
        self.requests = StopRequests()
        self.started = False
        self._start = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.started, self._start = True, time.monotonic()
        self.requests.listen()  # Lightning has put its own handler for SIGTERM there, which loses the pass

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        over = self.max_seconds is not None and time.monotonic() - self._start >= self.max_seconds
        asked = self.requests.number is not None
        if trainer.strategy.reduce_boolean_decision(asked or over, all=False):
            trainer.should_stop = True
