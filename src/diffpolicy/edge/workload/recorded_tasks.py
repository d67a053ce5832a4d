"""Task files with times of arrival as the columns that a `TraceWorkload` cuts its windows from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffpolicy.edge.workload.lad_ts import Floats
from diffpolicy.edge.workload.mix import Ints, TypeTable
from diffpolicy.edge.workload.table_values import MOST
from diffpolicy.edge.workload.task_columns import NO_ORIGIN, TaskTable
from diffpolicy.errors import InputError

_NEEDED = ("arrival_s", "input_mbit", "result_mbit", "gcycles_per_step", "steps")


@dataclass(frozen=True)
class TraceTasks:
    """A task file without a scenario, K rows.

    Args:
        table: what each row asks for; where a column lacks, the model is `default`, 1024 x 1024, one image.
        arrival_s: `[K]`. origin: -1 where the file names none, `[K]`.
        sha256: of the file's bytes.
    """

    table: TypeTable
    arrival_s: Floats
    origin: Ints
    sha256: str


def read_trace_tasks(path: Path) -> TraceTasks:
    """Reads a task file without a scenario.

    Raises:
        InputError: names the file, the line, the column and the value; where the header is not that of a task file it
            quotes nothing of it, since a scenario may name any file.
    """
    table = TaskTable.read(path, _NEEDED)
    arrival_s = table.arrivals()
    if not arrival_s[-1] > arrival_s[0]:
        raise InputError(f"{table.name} must span some time, but all its arrival_s are {float(arrival_s[0])!r}")
    rows = len(table.rows)

    def whole(name: str, default: int) -> Ints:
        if name not in table.header:
            return np.full(rows, default, dtype=np.int64)
        return table.ints(name, least=1, most=MOST[name])

    steps = whole("steps", 1)
    if "model" in table.header:
        at = table.header.index("model")
        names = [row[at].strip() or "default" for row in table.rows]
    else:
        names = ["default"] * rows
    models = tuple(dict.fromkeys(names))
    index = {name: i for i, name in enumerate(models)}
    with np.errstate(over="ignore"):
        work = table.floats("gcycles_per_step", least=0) * steps
    for k in np.flatnonzero(~np.isfinite(work)):
        raise table.error(int(k), "gcycles_per_step", "times steps must be finite")
    columns = TypeTable(
        models=models,
        model=np.array([index[name] for name in names], dtype=np.int64),
        steps=steps,
        images=whole("images", 1),
        megapixels=whole("width", 1024) * whole("height", 1024) / 1e6,
        input_mbit=table.floats("input_mbit", least=0),
        result_mbit=table.floats("result_mbit", least=0),
        work=work,
    )
    origin = table.ints("origin", least=0, empty=NO_ORIGIN) if "origin" in table.header else np.full(rows, NO_ORIGIN)
    return TraceTasks(columns, arrival_s, origin, table.sha256)
