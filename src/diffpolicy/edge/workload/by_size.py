"""`SizedWorkload`: tasks by slots whose work grows with their input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from diffpolicy import _validate as check
from diffpolicy.edge.workload.lad_ts import SlotArrivals, Workload
from diffpolicy.edge.workload.seeds import Stream
from diffpolicy.errors import InputError


@dataclass(frozen=True)
class SizedWorkload(Workload):
    """The law of arrivals of FDEdge (Xu et al., IEEE TMC 2025): work in proportion to the input, by the task's index.

    In each slot each station receives U{lo..hi} tasks; task n has an input of d ~ U[lo, hi) Mbit and the work
    `gcycles_per_mbit[n] * d`. What looks at works by index alone (the fluid limit, the load) sees their means.

    Args:
        gcycles_per_mbit: work of one Mbit of input by task index, Gcycles.
        gcycles_per_step, steps: left out; they become the mean work and 1.
        kind: `by-size`, as it stands in files.
        others: of `Workload`.

    Raises:
        InputError: a table is shorter than the greatest number of tasks, or a value is out of range.

    Example:
        >>> workload = SizedWorkload((1, 2), (10.0, 40.0), result_mbit=(0.0, 0.0), gcycles_per_mbit=(0.5, 0.25))
        >>> workload.mean_work_gcycles()  # 0.5 x 25, and 0.25 x 25 every other time
        15.625
    """

    gcycles_per_step: tuple[float, ...] = ()
    steps: tuple[int, ...] = ()
    result_mbit: tuple[float, ...] = ()
    kind: str = "by-size"
    gcycles_per_mbit: tuple[float, ...] = ()
    own_kind: ClassVar[str] = "by-size"

    def __post_init__(self) -> None:
        key = "workload.by_index.gcycles_per_mbit"
        table = check.sequence(self.gcycles_per_mbit, key)
        rates = tuple(check.number(value, f"{key}[{n}]", least=0) for n, value in enumerate(table))
        size = [
            check.number(v, "workload.input_mbit", least=0)
            for v in check.sequence(self.input_mbit, "workload.input_mbit", length=2)
        ]
        object.__setattr__(self, "gcycles_per_mbit", rates)
        object.__setattr__(self, "gcycles_per_step", tuple(rate * sum(size) / 2 for rate in rates))
        object.__setattr__(self, "steps", (1,) * len(rates))
        super().__post_init__()

    def draw(self, seed: int, stream: Stream, episode: int, slot: int, stations: int) -> SlotArrivals:
        drawn = super().draw(seed, stream, episode, slot, stations)
        return replace(drawn, work_gcycles=drawn.input_mbit * np.array(self.gcycles_per_mbit[: self.max_tasks]))

    @classmethod
    def from_dict(cls, data: Any) -> SizedWorkload:
        top = ("kind", "tasks_per_station_and_slot", "input_mbit", "by_index")
        tables = ("gcycles_per_mbit", "result_mbit")
        data = check.mapping(data, "workload", allowed=top, required=top)
        by_index = check.mapping(data.pop("by_index"), "workload.by_index", allowed=tables, required=tables)
        if data["kind"] != cls.own_kind:
            raise InputError(f"workload.kind must be '{cls.own_kind}', got {check.show(data['kind'])}")
        return cls(**data, **by_index)

    def to_dict(self) -> dict[str, Any]:
        data = super().to_dict()
        tables = {"gcycles_per_mbit": list(self.gcycles_per_mbit), "result_mbit": list(self.result_mbit)}
        return {**data, "by_index": tables}
