"""When a training ends on a machine that others use too."""

from __future__ import annotations

import time

import lightning as L


class EndsAfter(L.Callback):
    """Ends a training after the pass in which its time is over. Args: seconds: of processor time of this process."""

    def __init__(self, seconds: float) -> None:
        self.end = time.process_time() + seconds

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if time.process_time() >= self.end:
            trainer.should_stop = True
