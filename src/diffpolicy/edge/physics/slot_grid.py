"""`SlotGrid`: the tasks of a slot as tensors on a grid of stations and indices, and in order of arrival."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from diffpolicy.edge.physics.queueing import SlotTasks
from diffpolicy.edge.physics.service import Measured


@dataclass(frozen=True)
class SlotGrid:
    """The tasks of one slot in E environments: station b's n-th task stands at `[e, b, n]`.

    Args:
        home: server at the task's origin, -1 for none, int64 `[E, B, N]`.
        input_mbit: `[E, B, N]`. result_mbit: `[E, B, N]`. work_gcycles: `[E, B, N]`, zero where not valid.
        valid: which entries are tasks, bool `[E, B, N]`.
        order: flat grid index of each task in order of arrival, then of invalid entries, int64 `[E, K]`, K being the
            greatest number of tasks in any of the environments.
        duration_s: length of the slot in seconds, `[E, 1]`. clock_s: the same in float64 on the CPU, `[E]`, so that
            keeping time waits for no GPU.
        measured: what a measured service model knows of the tasks, `[E, B, N]`; None under the linear law.
    """

    home: Tensor
    input_mbit: Tensor
    result_mbit: Tensor
    work_gcycles: Tensor
    valid: Tensor
    order: Tensor
    duration_s: Tensor
    clock_s: Tensor
    measured: Measured | None = None

    def in_order(self) -> SlotTasks:
        """The tasks in order of arrival, `[E, K]`."""
        return SlotTasks(
            *(self.pack(x) for x in (self.home, self.input_mbit, self.result_mbit, self.work_gcycles, self.valid))
        )

    def pack(self, grid: Tensor) -> Tensor:
        """From `[E, B, N]` to `[E, K]`."""
        return grid.flatten(1).gather(1, self.order)

    def unpack(self, packed: Tensor) -> Tensor:
        """From `[E, K]` to `[E, B, N]`; zero where there is no task."""
        flat = packed.new_zeros(self.valid.shape).flatten(1)
        return flat.scatter(1, self.order, packed).view(self.valid.shape)

    def measured_in_order(self) -> Measured:
        """What a measured service model knows of the tasks in order of arrival, `[E, K]`."""
        assert self.measured is not None
        base = self.measured.base_s.flatten(1, 2)
        index = self.order.unsqueeze(-1).expand(-1, -1, base.shape[-1])
        rest = (self.pack(getattr(self.measured, name)) for name in ("model", "kind", "images", "luck"))
        return Measured(base.gather(1, index), *rest)
