"""Task files with times of arrival as the columns that a `TraceWorkload` cuts its windows from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffpolicy.edge.request_types import Ints, TypeTable
from diffpolicy.edge.task_table import NO_ORIGIN, TaskTable
from diffpolicy.edge.workload import Floats
from diffpolicy.errors import InputError

_NEEDED = ("arrival_s", "input_mbit", "result_mbit", "gcycles_per_step", "steps")


def read_trace_tasks(path: Path) -> tuple[TypeTable, Floats, Ints]:
    """Reads a task file without a scenario; where a column lacks, the model is `default`, 1024 x 1024, one image.

    Returns:
        What each row asks for, K of them; arrival_s `[K]`; origin, -1 where the file names none, `[K]`.

    Raises:
        InputError: names the file, the line, the column and the value.
    """
    table = TaskTable.read(path)
    for name in _NEEDED:
        if name not in table.header:
            raise InputError(f"tasks file {path} has no column '{name}'")
    arrival_s = table.floats("arrival_s", least=0)
    for k in np.flatnonzero(np.diff(arrival_s) < 0):
        before = float(arrival_s[k])
        raise table.error(int(k) + 1, "arrival_s", f"must not be smaller than in the row before ({before!r})")
    if not arrival_s[-1] > arrival_s[0]:
        raise InputError(f"tasks file {path} must span some time, but all its arrival_s are {float(arrival_s[0])!r}")
    rows = len(table.rows)

    def whole(name: str, default: int, least: int = 1) -> Ints:
        return table.ints(name, least=least) if name in table.header else np.full(rows, default, dtype=np.int64)

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
    if "origin" in table.header:
        return columns, arrival_s, table.ints("origin", least=0, empty=NO_ORIGIN)
    return columns, arrival_s, np.full(rows, NO_ORIGIN, dtype=np.int64)
