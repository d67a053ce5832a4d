"""Where a scenario's tasks come from: laws of arrival, as pure functions of (seed, episode, slot)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy._types import Floats
from diffpolicy.edge.workload.seeds import Stream
from diffpolicy.errors import InputError


@dataclass(frozen=True)
class SlotArrivals:
    """What arrives in one slot: station b receives the first `counts[b]` of the indices 0..N-1, in that order.

    Args:
        counts: tasks per station, integers `[B]`.
        input_mbit: data to transmit, `[B, N]`; entries from `counts[b]` on mean nothing.
        result_mbit: data to send back, `[B, N]`.
        work_gcycles: computation, `[B, N]`.
    """

    counts: npt.NDArray[np.int64]
    input_mbit: Floats
    result_mbit: Floats
    work_gcycles: Floats


@dataclass(frozen=True)
class Workload:
    """The law of arrivals of LAD-TS (arXiv 2412.18212): uniform numbers of tasks, work fixed by the task's index.

    In each slot each station receives U{lo..hi} tasks; task n has an input of U[lo, hi) Mbit and the work
    `gcycles_per_step[n] * steps[n]`, the same at all stations and in all slots.

    Args:
        tasks_per_station_and_slot: least and greatest number, both included.
        input_mbit: least and greatest input size in Mbit, the greatest excluded.
        gcycles_per_step: work of one denoising step by task index, Gcycles.
        steps: denoising steps by task index.
        result_mbit: size of the result by task index, Mbit.
        kind: `lad-ts`, as it stands in files.

    Raises:
        InputError: a table is shorter than the greatest number of tasks, or a value is out of range.

    Example:
        >>> workload = Workload((1, 2), (2.0, 5.0), gcycles_per_step=(0.5, 0.25), steps=(4, 8), result_mbit=(1.0, 1.0))
        >>> workload.chances().tolist(), workload.mean_work_gcycles()
        ([1.0, 0.5], 3.0)
        >>> workload.draw(seed=0, stream=Stream.EVALUATION, episode=0, slot=0, stations=3).input_mbit.shape
        (3, 2)
    """

    tasks_per_station_and_slot: tuple[int, int]
    input_mbit: tuple[float, float]
    gcycles_per_step: tuple[float, ...]
    steps: tuple[int, ...]
    result_mbit: tuple[float, ...]
    kind: str = "lad-ts"
    own_kind: ClassVar[str] = "lad-ts"
    """What `kind` must be."""

    def __post_init__(self) -> None:
        if self.kind != self.own_kind:
            raise InputError(f"workload.kind must be '{self.own_kind}', got {check.show(self.kind)}")
        key = "workload.tasks_per_station_and_slot"
        lo, hi = (
            check.integer(v, f"{key}[{i}]", least=i, most=_limits.TASKS)
            for i, v in enumerate(check.sequence(self.tasks_per_station_and_slot, key, length=2))
        )
        if lo > hi:
            raise InputError(f"{key} must be [least, greatest], got [{lo}, {hi}]")
        least, most = (
            check.number(v, f"workload.input_mbit[{i}]", least=0, most=_limits.MOST)
            for i, v in enumerate(check.sequence(self.input_mbit, "workload.input_mbit", length=2))
        )
        if least > most:
            raise InputError(f"workload.input_mbit must be [least, greatest], got [{least:g}, {most:g}]")
        tables: dict[str, tuple[Any, ...]] = {
            name: tuple(check.sequence(getattr(self, name), f"workload.by_index.{name}")) for name in _TABLES
        }
        for name, table in tables.items():
            if len(table) < hi:
                raise InputError(
                    f"workload.by_index.{name} has {len(table)} entries, "
                    f"fewer than the {hi} tasks that a station can receive in a slot"
                )
            if len(table) != len(tables["steps"]):
                raise InputError(
                    f"workload.by_index.{name} has {len(table)} entries and by_index.steps {len(tables['steps'])}"
                )
            for n, value in enumerate(table):
                if name == "steps":
                    check.integer(value, f"workload.by_index.steps[{n}]", least=1, most=2**31 - 1)
                else:
                    check.number(value, f"workload.by_index.{name}[{n}]", least=0, most=_limits.MOST)
        object.__setattr__(self, "tasks_per_station_and_slot", (lo, hi))
        object.__setattr__(self, "input_mbit", (least, most))
        object.__setattr__(self, "gcycles_per_step", tuple(map(float, tables["gcycles_per_step"])))
        object.__setattr__(self, "steps", tuple(map(int, tables["steps"])))
        object.__setattr__(self, "result_mbit", tuple(map(float, tables["result_mbit"])))
        object.__setattr__(self, "_work", np.array(self.gcycles_per_step[:hi]) * np.array(self.steps[:hi]))
        object.__setattr__(self, "_result", np.array(self.result_mbit[:hi]))
        object.__setattr__(self, "_wide", {})

    @property
    def max_tasks(self) -> int:
        """The greatest number of tasks of a station in one slot, N."""
        return self.tasks_per_station_and_slot[1]

    def chances(self) -> Floats:
        """Chance that a station has a task of each index in a slot, `[N]`."""
        lo, hi = self.tasks_per_station_and_slot
        return np.minimum(hi - np.arange(hi), hi - lo + 1) / (hi - lo + 1)

    def mean_work_gcycles(self) -> float:
        """Expected work of one station in one slot, Gcycles."""
        return float(self.chances() @ self._work)  # type: ignore[attr-defined]

    def draw(self, seed: int, stream: Stream, episode: int, slot: int, stations: int) -> SlotArrivals:
        """The arrivals of one slot of one episode: a function of its arguments alone, on any machine.

        Args:
            seed: at least 0.
            stream: evaluation or training.
            episode: number of the episode, k >= 0.
            slot: number of the slot, t >= 0.
            stations: number of stations, B.

        Returns:
            Counts by station `[B]`, and sizes and work by station and index `[B, N]`.
        """
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, int(stream), episode, slot))))
        lo, hi = self.tasks_per_station_and_slot
        counts = rng.integers(lo, hi, size=stations, endpoint=True)
        inputs = rng.uniform(*self.input_mbit, size=(stations, hi))
        return SlotArrivals(counts, inputs, *self._by_index(stations))

    def _by_index(self, stations: int) -> tuple[Floats, Floats]:
        """Results and work of so many stations, `[B, N]`, the same arrays at every draw."""
        wide: dict[int, tuple[Floats, Floats]] = self._wide  # type: ignore[attr-defined]
        if stations not in wide:
            shape = (stations, self.max_tasks)
            result, work = self._result, self._work  # type: ignore[attr-defined]
            wide[stations] = np.broadcast_to(result, shape), np.broadcast_to(work, shape)
        return wide[stations]

    @classmethod
    def from_dict(cls, data: Any) -> Workload:
        """The `workload` object of a scenario file.

        Args:
            data: as it stands in the file.

        Raises:
            InputError: a key is unknown or missing or a value is out of range; the sentence names it.
        """
        if not isinstance(data, Mapping) or "kind" not in data:
            raise InputError(f"workload must be an object with a 'kind', got {check.show(data)}")
        if data["kind"] != "lad-ts":
            raise InputError(f"workload.kind must be 'lad-ts', got {check.show(data['kind'])}")
        top = ("kind", "tasks_per_station_and_slot", "input_mbit", "by_index")
        data = check.mapping(data, "workload", allowed=top, required=top)
        tables = check.mapping(data.pop("by_index"), "workload.by_index", allowed=_TABLES, required=_TABLES)
        return cls(**data, **tables)

    def to_dict(self) -> dict[str, Any]:
        """The `workload` object of a scenario file."""
        return {
            "kind": self.kind,
            "tasks_per_station_and_slot": list(self.tasks_per_station_and_slot),
            "input_mbit": list(self.input_mbit),
            "by_index": {name: list(getattr(self, name)) for name in _TABLES},
        }


_TABLES = ("gcycles_per_step", "steps", "result_mbit")
