"""`TaskTable`: the texts of a task file, and checked columns of numbers out of it."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffpolicy import _validate as check
from diffpolicy.edge.request_types import Ints
from diffpolicy.edge.workload import Floats
from diffpolicy.errors import InputError

NO_ORIGIN = -1
"""In place of a station: the common dispatcher."""


@dataclass(frozen=True)
class TaskTable:
    """The texts of a CSV file, K rows, and columns of numbers out of it.

    Args:
        path: names the file in messages.
        header: names of the columns. rows: values by row and column.
        lines: where each row stands in the file; the header is line 1.
    """

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]

    @classmethod
    def read(cls, path: Path) -> TaskTable:
        """A file's table.

        Raises:
            InputError: it cannot be read, a column stands twice, a row is too long or short, or there is no row.
        """
        reader = csv.reader(io.StringIO(check.read_text(path, "tasks file"), newline=""), strict=True)
        rows: list[tuple[str, ...]] = []
        lines: list[int] = []
        try:
            header = tuple(name.strip() for name in next(reader, []))
            for row in reader:
                if row:
                    rows.append(tuple(row))
                    lines.append(reader.line_num)
        except csv.Error as error:
            raise InputError(f"tasks file {path}, line {reader.line_num}: {error}") from None
        if not header:
            raise InputError(f"tasks file {path} is empty")
        for i, name in enumerate(header):
            if name in header[:i]:
                raise InputError(f"tasks file {path} has the column '{name}' twice")
        for line, values in zip(lines, rows, strict=True):
            if len(values) != len(header):
                raise InputError(
                    f"tasks file {path}, line {line}: {len(values)} values for {len(header)} columns, "
                    f"got {check.show(','.join(values))}"
                )
        if not rows:
            raise InputError(f"tasks file {path} has a header and no tasks")
        return cls(path, header, tuple(rows), tuple(lines))

    def error(self, k: int, column: str, what: str) -> InputError:
        """A sentence about the value in row k of a column. Args: what: what it must be, and is not."""
        value = self.rows[k][self.header.index(column)]
        where = f"tasks file {self.path}, line {self.lines[k]}, column '{column}'"
        return InputError(f"{where} {what}, got {check.show(value)}")

    def floats(self, column: str, *, least: float | None = None) -> Floats:
        """A column of finite numbers, `[K]`. Args: least: bound."""
        i = self.header.index(column)
        texts = [row[i] for row in self.rows]
        try:
            values = np.array(texts, dtype=np.float64)
        except ValueError:
            for k, text in enumerate(texts):
                try:
                    float(text)
                except ValueError:
                    raise self.error(k, column, "must be a number") from None
            raise
        for bad in np.flatnonzero(~np.isfinite(values)):
            raise self.error(int(bad), column, "must be a finite number")
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
                value = float(text) if not text.lstrip("+-").isdigit() else int(text)
            except ValueError:
                raise self.error(k, column, "must be a whole number") from None
            if value != value or value in (float("inf"), float("-inf")) or value != int(value) or abs(value) >= 2**53:
                raise self.error(k, column, "must be a whole number")
            if value < least:
                raise self.error(k, column, f"must be at least {least}")
            if most is not None and value > most:
                raise self.error(k, column, f"must be at most {most}")
            values[k] = int(value)
        return values
