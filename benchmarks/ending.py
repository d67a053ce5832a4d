"""When a training ends on a machine that others use too."""

from __future__ import annotations

import time
from typing import Any

import lightning as L


class EndsAfter(L.Callback):
    """Ends a training once its time is over, after a whole pass or, where a pass takes long, amid one.

    Args:
        seconds: of processor time of this process.
        amid: whether it ends after the rollout at hand, and not after the pass: then methods whose passes take unlike
            times are given the same.
    """

    def __init__(self, seconds: float, *, amid: bool = False) -> None:
        self.end, self.amid = time.process_time() + seconds, amid
        self.begun = 0
        """Episodes' worth of the pass amid which it ended, which the training itself does not count."""

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        if self.amid and time.process_time() >= self.end:
            stream = getattr(pl_module, "stream", None)
            self.begun = 0 if stream is None else round(pl_module.lanes * stream.played / len(stream))
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if time.process_time() >= self.end:
            trainer.should_stop = True
