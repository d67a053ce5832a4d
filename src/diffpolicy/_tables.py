"""The one reader of tables: strict quotes, a header that names each column once, and every line in one count."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffpolicy._read import MIB, decode, read_bytes, show_path
from diffpolicy.errors import InputError

TABLE_BYTES = 128 * MIB
LINES = 1_000_000
CELLS = 10_000_000
COLUMNS = 1_000
LINE = MIB
LINES_OF_A_ROW = 1_000
OPEN = "a quote is opened and not closed"
_SEPARATORS = {";": "semicolons (;)", "\t": "tabs", "|": "bars (|)", " ": "spaces"}
_JSON = re.compile(r"\s*[{\[]\s*(?:[\"{}\[\]]|\Z)")
"""How the first line of a file of JSON begins, and that of a table does not."""
_VALUE = re.compile(r'"([^"]*(?:""[^"]*)*)"(?=,|\Z)|([^",\r\n]*)(?=,|\Z)')


@dataclass(frozen=True)
class Table:
    """The texts of a table: of its lines below the header each is part of a row, broken, or blank.

    Args:
        name: kind and path of the file, in messages.
        header: names of the columns, without the spaces around them; none stands twice.
        rows: values by row and column. lines: where each row begins; the header is line 1.
        broken: line and reason of each row that could not be split into its values. blank: lines without a character.
        sha256: of the file's bytes.
    """

    name: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    broken: tuple[tuple[int, str], ...]
    blank: int
    sha256: str

    def complete(self, rows: str) -> Table:
        """This table, where no row of it is broken and there is one. Args: rows: what they are, in messages.

        Raises:
            InputError: names the first broken line.
        """
        if self.broken:
            raise InputError(f"{self.name}, line {self.broken[0][0]}: {self.broken[0][1]}")
        if not self.rows:
            raise InputError(f"{self.name} has a header but no {rows}")
        return self


def read_table(
    path: str | Path, what: str, needed: Sequence[str | tuple[str, ...]] = (), *, list_columns: bool = False
) -> Table:
    """Reads a CSV: values separated by commas, in UTF-8, under a header in line 1.

    A value may stand in quotes, and then hold commas, line breaks and, doubled, quotes; elsewhere a quote is refused.
    Where a quote is left open only its line is broken: the reader goes on with the next one, so that an open quote
    swallows no rows.

    Args:
        path: of the file. what: names its kind in messages.
        needed: columns that must be there; of several in parentheses one. Nothing that the file holds is quoted in a
            message before they are seen to be, since the path may be another's choice.
        list_columns: whether the message about a column that lacks may list those that there are.

    Raises:
        InputError: it is no such file, a column lacks or stands twice, or it is larger than the bounds above.
    """
    name = f"{what} {show_path(path)}"
    data = read_bytes(path, what, TABLE_BYTES)
    digest = hashlib.sha256(data).hexdigest()
    lines = split_lines(decode(data, name), name)
    header = _header(name, lines, needed, list_columns)
    rows: list[tuple[str, ...]] = []
    starts: list[int] = []
    broken: list[tuple[int, str]] = []
    blank, at = 0, 1
    while at < len(lines):
        start = at
        if not lines[at].rstrip("\r\n"):
            blank, at = blank + 1, at + 1
            continue
        try:
            values, at = _row(lines, at, len(header))
        except ValueError as error:
            broken.append((start + 1, str(error)))
            at = start + 1
        else:
            rows.append(values)
            starts.append(start + 1)
        if len(rows) * len(header) > CELLS:
            raise InputError(f"{name} has more than {CELLS:,} values, the most that are read; split it into parts")
    return Table(name, header, tuple(rows), tuple(starts), tuple(broken), blank, digest)


def split_lines(text: str, name: str) -> list[str]:
    """Lines with their ends: a line feed, a carriage return or both; no other character ends one.

    Args:
        text: of a file. name: of the file, in messages.

    Raises:
        InputError: there are more than `LINES`.
    """
    if text.count("\n") + text.count("\r") - text.count("\r\n") > LINES:
        raise InputError(f"{name} has more than {LINES:,} lines, the most that are read; split it into parts")
    return list(io.StringIO(text, newline=""))


def _header(
    name: str, lines: Sequence[str], needed: Sequence[str | tuple[str, ...]], list_columns: bool
) -> tuple[str, ...]:
    if not any(line.strip() for line in lines):
        raise InputError(f"{name} is empty")
    line = lines[0].rstrip("\r\n")
    if not line.strip():
        raise InputError(f"{name} begins with a blank line; its header must be line 1")
    if _JSON.match(line):
        raise InputError(f"{name} is JSON, and a CSV with a header in line 1 is expected")
    try:
        header = tuple(value.strip() for value in _values(line))
    except ValueError as error:
        raise InputError(f"{name}, line 1: {error}") from None
    choices = [(column,) if isinstance(column, str) else column for column in needed]
    for choice in choices:
        if not set(choice) & set(header):
            _refuse_separator(name, line, header, {column for choice in choices for column in choice})
            has = f"; it has {show_path(', '.join(header)[:200])}" if list_columns else ""
            raise InputError(f"{name} has no column " + " or ".join(f"'{column}'" for column in choice) + has)
    if len(header) > COLUMNS:
        raise InputError(f"{name} has {len(header)} columns; at most {COLUMNS} are read")
    for i, column in enumerate(header):
        if column in header[:i]:
            raise InputError(f"{name} has the column '{show_path(column[:60])}' twice")
    return header


def _refuse_separator(name: str, line: str, header: Sequence[str], wanted: set[str]) -> None:
    for mark, word in _SEPARATORS.items():
        names = {value.strip().strip('"') for value in line.split(mark)}
        if len(names & wanted) > len(set(header) & wanted) or (len(header) == 1 and mark in line.strip()):
            raise InputError(
                f"{name} separates its columns by {word}; commas (,) are expected, and points (.) for decimals"
            )


def _row(lines: Sequence[str], at: int, columns: int) -> tuple[tuple[str, ...], int]:
    """Values of the row that begins in a line, and the line after it."""
    end = at
    if lines[at].count('"') % 2:
        last = min(len(lines), at + LINES_OF_A_ROW)
        end = next((k for k in range(at + 1, last) if lines[k].count('"') % 2), 0)
        if not end:
            raise ValueError(OPEN)
    text = lines[at] if end == at else "".join(lines[at : end + 1])
    values = _values(text.rstrip("\r\n"))
    if len(values) != columns:
        raise ValueError(_mismatch(lines[at], len(values), columns))
    for k in range(at + 1, end):
        if _is_row(lines[k], columns):
            raise ValueError(f"a quote is opened that closes in line {end + 1}, with rows in between")
    return values, end + 1


def _values(text: str) -> tuple[str, ...]:
    """The values of one row."""
    if len(text) > LINE:
        raise ValueError(f"is longer than {LINE:,} characters")
    if "\0" in text:
        raise ValueError("holds a null character")
    if '"' not in text:
        return tuple(text.split(","))
    if text.count('"') % 2:
        raise ValueError(OPEN)
    values: list[str] = []
    at = 0
    while True:
        found = _VALUE.match(text, at)
        if found is None:
            quoted = text.startswith('"', at)
            raise ValueError(
                "text follows a closing quote" if quoted else "a quote stands in a value that does not begin with one"
            )
        values.append(found[2] if found[1] is None else found[1].replace('""', '"'))
        at = found.end() + 1
        if at > len(text):
            return tuple(values)


def _is_row(line: str, columns: int) -> bool:
    try:
        return len(_values(line.rstrip("\r\n"))) == columns
    except ValueError:
        return False


def _mismatch(line: str, values: int, columns: int) -> str:
    count = f"{values} values for {columns} columns"
    if values > columns:
        return f"{count}; decimals take a point (.), and a value that holds a comma stands in quotes"
    for mark, word in _SEPARATORS.items():
        if mark != " " and line.count(mark) == columns - 1:
            return f"{count}; they are separated by {word}, and commas (,) are expected"
    return count
