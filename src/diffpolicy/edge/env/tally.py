"""`TaskTally`: the mean delay of a pass of training, over its tasks."""

from __future__ import annotations

from tensordict import TensorDictBase
from torch import Tensor

from diffpolicy.environments.tally import Tally


class TaskTally(Tally):
    """The delays of tasks; one that is sent again, since its server failed, is still one."""

    def begin(self) -> None:
        super().begin()
        self._seen: set[tuple[int, int]] = set()

    def count(self, rollout: TensorDictBase, here: Tensor) -> None:
        task = rollout.get(("agents", "task"), None)
        if task is None:
            super().count(rollout, here)
            return
        rows = here.nonzero()[:, 0]
        self._seen.update(zip(rows.tolist(), task[here.view_as(task)].tolist(), strict=True))
        self.items = len(self._seen)
