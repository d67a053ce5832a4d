"""`TaskTable`: the texts of a task file, and checked columns of numbers out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffpolicy import _validate as check
from diffpolicy.edge.workload.lad_ts import Floats
from diffpolicy.edge.workload.mix import Ints
from diffpolicy.edge.workload.table_reader import read_table
from diffpolicy.edge.workload.table_values import LONGEST_GAP_S, first_long_gap, to_number, to_whole
from diffpolicy.errors import InputError

NO_ORIGIN = -1
"""In place of a station: the common dispatcher."""


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
