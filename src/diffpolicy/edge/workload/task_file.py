"""Task files: a CSV of tasks in arrival order, read with every check, written with columns kept."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from diffpolicy import _validate as check
from diffpolicy._tables import read_table
from diffpolicy._types import Floats, Ints
from diffpolicy.edge.workload.table_values import LONGEST_GAP_S, MOST, first_long_gap, to_number, to_whole
from diffpolicy.errors import InputError

_SIZES = ("input_mbit", "result_mbit", "gcycles_per_step")
DEFAULT_MODEL = "default"
"""What a task needs whose file has no column `model`; `*` among a server's models covers it."""
NO_ORIGIN = -1
"""In place of a station: the common dispatcher."""


class _Server(Protocol):
    @property
    def service(self) -> Any: ...


class Site(Protocol):
    """What the columns of a task file refer to: of a `Scenario`, no more than this."""

    @property
    def slot_s(self) -> float: ...
    @property
    def measured(self) -> bool: ...
    @property
    def stations(self) -> Sequence[int | None]: ...
    @property
    def servers(self) -> Sequence[_Server]: ...


@dataclass(frozen=True)
class TaskTable:
    """The texts of a task file, K rows, and columns of numbers out of it.

    Args:
        name: of the file, in messages.
        header: names of the columns. rows: values by row and column.
        lines: where each row begins in the file; the header is line 1.
        sha256: of the file's bytes.
    """

    name: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    sha256: str = ""

    @classmethod
    def read(cls, path: str | Path, needed: Sequence[str | tuple[str, ...]] = ()) -> TaskTable:
        """A file's table. Args: needed: as in `read_table`.

        Raises:
            InputError: it cannot be read, a column lacks or stands twice, a row is broken, or there is no row.
        """
        table = read_table(path, "tasks file", needed).complete("tasks")
        return cls(table.name, table.header, table.rows, table.lines, table.sha256)

    def error(self, k: int, column: str, what: str) -> InputError:
        """A sentence about the value in row k of a column. Args: what: what it must be, and is not."""
        value = self.rows[k][self.header.index(column)]
        return InputError(f"{self.name}, line {self.lines[k]}, column '{column}' {what}, got {check.show(value)}")

    def floats(self, column: str, *, least: float | None = None) -> Floats:
        """A column of finite numbers, `[K]`. Args: least: bound."""
        i = self.header.index(column)
        values = np.empty(len(self.rows))
        for k, row in enumerate(self.rows):
            try:
                values[k] = to_number(row[i])
            except ValueError as error:
                raise self.error(k, column, str(error)) from None
        if least is not None:
            for bad in np.flatnonzero(values < least):
                raise self.error(int(bad), column, f"must be at least {least:g}")
        return values

    def ints(self, column: str, *, least: int, most: int | None = None, empty: int | None = None) -> Ints:
        """A column of whole numbers, `[K]`. Args: least, most: bounds. empty: stands for an empty value, if allowed."""
        i = self.header.index(column)
        values = np.empty(len(self.rows), dtype=np.int64)
        for k, row in enumerate(self.rows):
            text = row[i].strip()
            if not text and empty is not None:
                values[k] = empty
                continue
            try:
                value = to_whole(text)
            except ValueError as error:
                raise self.error(k, column, str(error)) from None
            if value < least:
                raise self.error(k, column, f"must be at least {least}")
            if most is not None and value > most:
                raise self.error(k, column, f"must be at most {most}")
            values[k] = value
        return values

    def arrivals(self) -> Floats:
        """The column `arrival_s`, `[K]`: seconds of at least 0 that do not decrease, without a gap of years."""
        arrival_s = self.floats("arrival_s", least=0)
        for k in np.flatnonzero(np.diff(arrival_s) < 0):
            before = float(arrival_s[k])
            raise self.error(int(k) + 1, "arrival_s", f"must not be smaller than in the row before ({before!r})")
        gap = first_long_gap(arrival_s.tolist())
        if gap is not None:
            before = float(arrival_s[gap])
            most = f"must not be more than {LONGEST_GAP_S // 86_400} days after the row before ({before!r})"
            raise self.error(gap + 1, "arrival_s", most)
        return arrival_s


@dataclass(frozen=True)
class TaskList:
    r"""Tasks in arrival order, K of them.

    Args:
        slot: number of the step of each task, counted from 0 without gaps, not decreasing, `[K]`.
        duration_s: length of each step in seconds, gaps included, `[number of steps]`.
        origin: station of each task, or -1 for the common dispatcher, `[K]`.
        input_mbit: what is sent to the server, Mbit, `[K]`. result_mbit: what is sent back, Mbit, `[K]`.
        work_gcycles: work of a step times steps, Gcycles, `[K]`.
        steps: denoising steps, `[K]`.
        server: recorded decisions `[K]`, or None.
        start_s: when the first step begins, seconds.
        models: distinct names of the column `model`. model: index into them, `[K]`.
        megapixels: width x height / 10^6 of an image, `[K]`; None without the columns. images: `[K]`, or None.
        header: columns of the file. rows: its rows as texts, carried along.

    Raises:
        InputError: on reading, the file is not a task file of the scenario; names line, column and value.

    Example:
        >>> from pathlib import Path
        >>> columns = "arrival_s,origin,input_mbit,result_mbit,gcycles_per_step,steps"
        >>> _ = Path("tasks.csv").write_text(f"{columns}\n0.0,0,2.0,1.0,0.5,10\n0.3,1,2.0,1.0,0.5,4\n")
        >>> tasks = TaskList.read("tasks.csv", Scenario(1.0, (Server(2.0, 100.0), Server(5.0, 100.0))))
        >>> tasks.work_gcycles.tolist(), tasks.duration_s.tolist()
        ([5.0, 2.0], [0.3, 1.0])
    """

    slot: Ints
    duration_s: Floats
    origin: Ints
    input_mbit: Floats
    result_mbit: Floats
    work_gcycles: Floats
    steps: Ints
    server: Ints | None = None
    start_s: float = 0.0
    models: tuple[str, ...] = ("",)
    model: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    megapixels: Floats | None = None
    images: Ints | None = None
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.slot)

    def digest(self) -> str:
        """SHA-256 of the tasks and their decisions, whatever else their file holds."""
        total = hashlib.sha256()
        for name, value in vars(self).items():
            if name not in ("header", "rows"):
                total.update(f"{name} {value.dtype} {len(value)}".encode() if isinstance(value, np.ndarray) else b"")
                total.update(value.tobytes() if isinstance(value, np.ndarray) else f"{name} {value!r}".encode())
        return total.hexdigest()

    @classmethod
    def read(cls, path: str | Path, scenario: Site, *, decisions: bool = False) -> TaskList:
        """Reads a task file against the scenario whose servers and stations it indexes.

        Args:
            path: CSV with a header: slot or arrival_s, origin, input_mbit, result_mbit, gcycles_per_step, steps;
                optional server and others, which are carried along.
            scenario: gives the slot's length and the ranges of `server` and `origin`.
            decisions: whether the column `server` is needed; otherwise it is ignored.

        Raises:
            InputError: names the file, the line (the header is line 1), the column and the value.
        """
        table = TaskTable.read(path, ("origin", *_SIZES, "steps", ("slot", "arrival_s")))
        if decisions and "server" not in table.header:
            raise InputError(f"{table.name} has no column 'server' and no policy is given to decide in its place")
        sizes = {name: table.floats(name, least=0) for name in _SIZES}
        steps = table.ints("steps", least=1, most=MOST["steps"])
        with np.errstate(over="ignore"):
            work = sizes["gcycles_per_step"] * steps
        for k in np.flatnonzero(~np.isfinite(work)):
            raise table.error(int(k), "gcycles_per_step", "times steps must be finite")
        if "slot" in table.header:
            slot, duration_s, start_s = _steps_of_slots(table, scenario.slot_s)
        else:
            slot, duration_s, start_s = _steps_of_arrivals(table, scenario.slot_s)
        return cls(
            **_requests(table, scenario),
            steps=steps,
            slot=slot,
            duration_s=duration_s,
            start_s=start_s,
            origin=table.ints("origin", least=0, most=len(scenario.stations) - 1, empty=NO_ORIGIN),
            input_mbit=sizes["input_mbit"],
            result_mbit=sizes["result_mbit"],
            work_gcycles=work,
            server=table.ints("server", least=0, most=len(scenario.servers) - 1) if decisions else None,
            header=table.header,
            rows=table.rows,
        )

    def to_csv(self, server: Sequence[int], delay_s: Sequence[float]) -> str:
        """The file's text with the columns `server` and `delay_s` replaced or appended; floats by repr.

        Args:
            server: decision of each task, `[K]`. delay_s: its delay in seconds, `[K]`.
        """
        columns = {"server": [str(int(a)) for a in server], "delay_s": [repr(float(x)) for x in delay_s]}
        header = [*self.header, *(name for name in columns if name not in self.header)]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        for k, row in enumerate(self.rows):
            writer.writerow([columns[n][k] if n in columns else row[i] for i, n in enumerate(header)])
        return text.getvalue()


def _requests(table: TaskTable, scenario: Site) -> dict[str, Any]:
    """What measured servers need to know of tasks: model, size, number of images."""
    if not scenario.measured or not {"width", "height"} <= set(table.header):
        return {}
    pixels = table.ints("width", least=1, most=MOST["width"]) * table.ints("height", least=1, most=MOST["height"])
    given: dict[str, Any] = {"megapixels": pixels / 1e6}
    if "images" in table.header:
        given["images"] = table.ints("images", least=1, most=MOST["images"])
    column = table.header.index("model") if "model" in table.header else None
    names = [DEFAULT_MODEL if column is None else row[column].strip() for row in table.rows]
    given["models"] = tuple(dict.fromkeys(names))
    number = {name: i for i, name in enumerate(given["models"])}
    given["model"] = np.array([number[name] for name in names], dtype=np.int64)
    for a, server in enumerate(scenario.servers):
        for k, name in enumerate(names):
            if server.service is not None and server.service.times(name) is None:
                where = f"{table.name}, line {table.lines[k]}, column 'model'"
                raise InputError(f"{where} names {check.show(name)}, which server {a} has no times of")
    return given


def _steps_of_slots(table: TaskTable, slot_s: float) -> tuple[Ints, Floats, float]:
    """One step a slot that has tasks; its length covers the empty slots that follow it."""
    number = table.ints("slot", least=0)
    for k in np.flatnonzero(np.diff(number) < 0):
        raise table.error(int(k) + 1, "slot", f"must not be smaller than in the row before ({number[k]})")
    starts, step = np.unique(number, return_inverse=True)
    lengths = slot_s * np.append(np.diff(starts), 1).astype(np.float64)
    return step.astype(np.int64), lengths, slot_s * float(starts[0])


def _steps_of_arrivals(table: TaskTable, slot_s: float) -> tuple[Ints, Floats, float]:
    """One task a step; a step lasts until the next arrival, the last one a slot."""
    arrival_s = table.arrivals()
    return np.arange(len(arrival_s)), np.append(np.diff(arrival_s), slot_s), float(arrival_s[0])
