"""What a picture is drawn from: the columns of a CSV, in which all stands that it shows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffpolicy._read import printable
from diffpolicy._tables import read_table
from diffpolicy._types import Floats
from diffpolicy._validate import show
from diffpolicy.errors import InputError

UNITS = ("s", "ms", "us", "gcycles", "mbit")
"""With which the names of columns may end."""
METHOD, PRETRAINED, RULE = "method", "pretrained", "heuristic"
"""What a line is of."""


@dataclass(frozen=True)
class Frame:
    """A CSV by its columns.

    Args:
        name: kind and path of the file, in messages. header: names of the columns.
        rows: texts. lines: where each row begins in the file.
    """

    name: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]

    @classmethod
    def read(cls, path: str | Path) -> Frame:
        """Of a file.

        Raises:
            InputError: it is none, no CSV, or has no rows.
        """
        table = read_table(path, "CSV file").complete("rows")
        return cls(table.name, table.header, table.rows, table.lines)

    def __contains__(self, column: str) -> bool:
        return column in self.header

    def texts(self, column: str) -> list[str]:
        """A column as it stands."""
        at = self.header.index(column)
        return [row[at] for row in self.rows]

    def numbers(self, column: str) -> Floats:
        """A column of numbers, `[rows]`; nan where nothing stands.

        Raises:
            InputError: names the line and the value that is no finite number.
        """
        values = []
        for line, text in zip(self.lines, self.texts(column), strict=True):
            try:
                value = float(text) if text.strip() else math.nan
            except ValueError:
                value = math.inf
            if math.isinf(value) or (math.isnan(value) and text.strip()):
                raise InputError(f"{self.name}, line {line}: '{column}' must be a finite number, got {show(text)}")
            values.append(value)
        return np.array(values)

    def optional(self, column: str) -> Floats:
        """A column of numbers; nan everywhere where there is none of that name."""
        return self.numbers(column) if column in self else np.full(len(self.rows), math.nan)

    def only(self, keep: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Frame:
        """Some of the rows. Args: keep: `[rows]`."""
        rows = tuple(row for row, kept in zip(self.rows, keep, strict=True) if kept)
        return Frame(self.name, self.header, rows, tuple(x for x, kept in zip(self.lines, keep, strict=True) if kept))

    def where(self, column: str, text: str) -> Frame:
        """The rows in which a column holds a text."""
        return self.only(np.array([value == text for value in self.texts(column)], dtype=bool))

    def constant(self, column: str) -> str:
        """What a column says in its first row; empty where there is no such column."""
        return self.texts(column)[0] if column in self else ""

    def starting(self, prefix: str) -> str | None:
        """The first column whose name starts with a text."""
        return next((column for column in self.header if column.startswith(prefix)), None)


def titled(column: str) -> str:
    """A column's name in words, its unit behind a comma.

    Example:
        >>> titled("mean_delay_s")
        'mean delay, s'
    """
    words, _, unit = column.rpartition("_")
    known = {"gcycles": "Gcycles", "mbit": "Mbit", "us": "µs"}
    text = f"{words}, {known.get(unit, unit)}" if words and unit in UNITS else column
    return printable(text.replace("_", " "))


def kind_of(name: str, kind: str = "") -> str:
    """What a line is of, where the file does not say: a rule that is known here, a bundled policy, or else a method."""
    from diffpolicy._draw.style import RULES

    if kind:
        return kind
    return RULE if name in RULES else PRETRAINED if name.startswith(f"{PRETRAINED}:") else METHOD
