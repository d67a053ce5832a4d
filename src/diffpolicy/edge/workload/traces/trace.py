"""`Trace`: recorded requests as arrays, and what is done to them before they become tasks."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from diffpolicy import _files
from diffpolicy import _validate as check
from diffpolicy._types import Floats, Ints
from diffpolicy.edge.workload.mix import RequestType, TypeTable, draw_types
from diffpolicy.edge.workload.seeds import Purpose, drawer
from diffpolicy.edge.workload.table_values import LONGEST_GAP_S, MOST, first_long_gap
from diffpolicy.errors import InputError

TASK_COLUMNS = (
    *("arrival_s", "origin", "input_mbit", "result_mbit", "gcycles_per_step", "steps"),
    *("model", "width", "height", "images"),
)


@dataclass(frozen=True)
class Broken:
    """Rows that could not be read.

    Args:
        count: how many. first: the first three, each as `line N: what is wrong`.
    """

    count: int = 0
    first: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trace:
    """Recorded requests in order of arrival, K >= 1 of them.

    Args:
        arrival_s: seconds after the first request, `[K]`.
        model: names of models, `[K]`.
        steps: denoising steps, `[K]`; 0 where the record says only when requests arrived.
        images: images per request, `[K]`. width, height: size of an image, pixels, `[K]`.
        exec_s: recorded run times in seconds, not-a-number where there are none, `[K]`.
        gcycles_per_step, input_mbit, result_mbit: not-a-number where `work_gcycles` and `to_tasks` are to say, `[K]`.
        name: where it is from. broken: what could not be read.
        skipped: how many rows were left out, by reason. With these and the broken ones every row of the file counts.
        out_of_order: of rows that arrive before the row above, where those are few; otherwise empty.
        unread: columns of a CSV that bear the name of a field, and that nobody asked to be read.
    """

    arrival_s: Floats
    model: tuple[str, ...]
    steps: Ints
    images: Ints
    width: Ints
    height: Ints
    exec_s: Floats
    gcycles_per_step: Floats
    input_mbit: Floats
    result_mbit: Floats
    name: str = "trace"
    broken: Broken = Broken()
    skipped: Mapping[str, int] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    out_of_order: str = ""

    def __len__(self) -> int:
        return len(self.arrival_s)

    def models(self) -> dict[str, int]:
        """How many requests each model has, the most asked for first."""
        return dict(Counter(self.model).most_common())

    def rate_per_s(self) -> float:
        """Mean number of requests in a second, from the first to the last."""
        if not self.arrival_s[-1] > self.arrival_s[0]:
            raise InputError(f"{self.name} must span some time, but its {len(self)} requests arrive at once")
        return (len(self) - 1) / float(self.arrival_s[-1] - self.arrival_s[0])

    def gap_cv(self) -> float:
        """Coefficient of variation of the gaps between arrivals: 1 for a Poisson process; not-a-number without gaps."""
        gaps = np.diff(self.arrival_s)
        return float(gaps.std() / gaps.mean()) if gaps.sum() > 0 else float("nan")

    def switch_share(self) -> float:
        """Share of requests that need another model than the one before."""
        switches = [a != b for a, b in zip(self.model, self.model[1:], strict=False)]
        return sum(switches) / max(len(switches), 1)

    def thin(self, keep: float, seed: int = 0) -> Trace:
        """Keeps each request with the chance `keep`, independently."""
        keep = check.number(keep, "keep", above=0)
        if keep > 1:
            raise InputError(f"keep must be at most 1, got {keep:g}")
        rows = np.flatnonzero(drawer(Purpose.THINNING, seed).uniform(size=len(self)) < keep)
        return self._rows(rows, f"keep {keep:g}")

    def window(self, start_s: float = 0.0, end_s: float = float("inf")) -> Trace:
        """The requests from `start_s` to before `end_s`, times counted from the first of them."""
        if not start_s < end_s:
            raise InputError(f"a window must end after its start {start_s:g} s, got {end_s:g} s")
        chosen = (self.arrival_s >= start_s) & (self.arrival_s < end_s)
        return self._rows(np.flatnonzero(chosen), f"the window from {start_s:g} to {end_s:g} s")

    def _rows(self, rows: Ints, what: str) -> Trace:
        if not len(rows):
            raise InputError(f"{self.name} has no request left by {what}")
        arrays = {
            f.name: getattr(self, f.name)[rows] for f in fields(self) if isinstance(getattr(self, f.name), np.ndarray)
        }
        arrays["arrival_s"] = arrays["arrival_s"] - arrays["arrival_s"][0]
        return replace(self, model=tuple(self.model[k] for k in rows), **arrays)

    def rescaled(self, factor: float) -> Trace:
        """All times multiplied by `factor`: 2 halves the rate and keeps the shape."""
        with np.errstate(over="ignore"):
            arrival_s = self.arrival_s * check.number(factor, "factor", above=0)
        if not np.isfinite(arrival_s).all():
            raise InputError(f"factor must leave all times finite, got {check.show(factor)}")
        return replace(self, arrival_s=arrival_s)

    def work_gcycles(self, gcycles_per_step: Work = 1.0) -> Floats:
        """Work of each request, `[K]`; `gcycles_per_step` as in `to_tasks`."""
        return self._per_step(gcycles_per_step) * self.steps

    def load(self, capacity_gcycles_per_s: float, gcycles_per_step: Work = 1.0) -> float:
        """Work that arrives in a second over the capacity; `gcycles_per_step` as in `to_tasks`."""
        capacity = check.number(capacity_gcycles_per_s, "capacity_gcycles_per_s", above=0)
        return float(self.rate_per_s() * self.work_gcycles(gcycles_per_step).mean() / capacity)

    def to_load(self, load: float, capacity_gcycles_per_s: float, gcycles_per_step: Work = 1.0) -> Trace:
        """Stretches time so that the trace offers `load` times the capacity.

        Args:
            load: > 0. capacity_gcycles_per_s: of the fleet; the number of servers where work is counted in seconds.
            gcycles_per_step: as in `to_tasks`.
        """
        offered = self.load(capacity_gcycles_per_s, gcycles_per_step)
        if not offered > 0:
            raise InputError(f"{self.name} has no work, so its load cannot be set")
        return self.rescaled(offered / check.number(load, "load", above=0))

    def with_requests(self, mix: Sequence[RequestType], seed: int = 0, model_persistence: float = 0.0) -> Trace:
        """The same arrivals, each asking for a type drawn from a mix: what an arrivals-only record needs."""
        if not sum(kind.weight for kind in mix) > 0:
            raise InputError("mix must hold at least one type with a weight above 0")
        kind = draw_types(tuple(mix), model_persistence, len(self), drawer(Purpose.TYPES, seed))
        table = TypeTable.of(mix)
        return replace(
            self,
            model=tuple(mix[k].model for k in kind),
            steps=table.steps[kind],
            images=table.images[kind],
            width=np.array([t.width for t in mix])[kind],
            height=np.array([t.height for t in mix])[kind],
            exec_s=np.full(len(self), np.nan),
            gcycles_per_step=np.array([t.gcycles_per_step for t in mix])[kind],
            input_mbit=table.input_mbit[kind],
            result_mbit=table.result_mbit[kind],
        )

    def with_steps(self, steps: int) -> Trace:
        """The same arrivals, each asking for one image of `steps` denoising steps."""
        count = check.integer(steps, "steps", least=1, most=MOST["steps"])
        return replace(self, steps=np.full(len(self), count, dtype=np.int64))

    def _per_step(self, gcycles_per_step: Work) -> Floats:
        if not self.steps.all():
            raise InputError(f"{self.name} does not say what its requests ask for; give it a mix of requests")
        given: Floats
        if callable(gcycles_per_step):
            given = np.asarray(gcycles_per_step(self), dtype=np.float64)
            if given.shape != (len(self),):
                raise InputError(f"gcycles_per_step must give {len(self)} numbers, got the shape {given.shape}")
            if not (np.isfinite(given) & (given >= 0)).all():
                raise InputError("gcycles_per_step must give finite numbers of at least 0")
        else:
            given = check.number(gcycles_per_step, "gcycles_per_step", least=0) * self.images.astype(np.float64)
        return np.where(np.isnan(self.gcycles_per_step), given, self.gcycles_per_step)

    def to_tasks(
        self,
        path: str | Path,
        stations: int,
        gcycles_per_step: Work = 1.0,
        *,
        input_mbit: float = 0.01,
        result_mbit: float = 12.0,
        seed: int = 0,
    ) -> None:
        """Writes a task file that `diffpolicy replay --task-file` and a workload of kind `trace` take.

        Args:
            path: CSV to write. stations: each request reaches a uniform one of so many.
            gcycles_per_step: work of one denoising step of one image, which a request's images multiply; or a function
                of the trace that gives the work of one step of each whole request, `[K]`.
            input_mbit: of a request, a prompt. result_mbit: of one image, which a request's images multiply. What
                `with_requests` gave comes before all three.
            seed: of the stations.

        Raises:
            InputError: the record says only when requests arrived, or a value is out of range.
        """
        per_step = self._per_step(gcycles_per_step)
        with np.errstate(over="ignore"):
            finite = np.isfinite(per_step * self.steps).all()
        if not finite:
            raise InputError("gcycles_per_step times images and steps must be finite")
        if first_long_gap(self.arrival_s.tolist()) is not None:
            raise InputError(
                f"{self.name} must have a request at least every {LONGEST_GAP_S // 86_400} days to be a task file; "
                f"its span is {self.arrival_s[-1]:g} s"
            )
        inputs = np.where(np.isnan(self.input_mbit), check.number(input_mbit, "input_mbit", least=0), self.input_mbit)
        each = check.number(result_mbit, "result_mbit", least=0)
        results = np.where(np.isnan(self.result_mbit), each * self.images, self.result_mbit)
        if not np.isfinite(results).all():
            raise InputError(f"result_mbit times images must be finite, got {check.show(result_mbit)}")
        count = check.integer(stations, "stations", least=1)
        origin = drawer(Purpose.STATIONS, seed).integers(count, size=len(self))
        numbers = (self.arrival_s, origin, inputs, results, per_step, self.steps)
        columns = [
            *(x.tolist() for x in numbers),
            self.model,
            *(x.tolist() for x in (self.width, self.height, self.images)),
        ]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(TASK_COLUMNS)
        for row in zip(*columns, strict=True):
            writer.writerow([repr(x) if isinstance(x, float) else x for x in row])
        _files.write_text(path, text.getvalue())


Work: TypeAlias = "float | Callable[[Trace], Floats]"
