"""`LogColumns`: the columns of a service's log, whatever they are called and however they tell the time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from diffpolicy import _validate as check
from diffpolicy._tables import Table, read_table
from diffpolicy._types import Floats, Ints
from diffpolicy.edge.workload.table_values import (
    LONGEST_GAP_S,
    UNITS,
    Moment,
    check_roles,
    first_long_gap,
    out_of_order,
    to_moment,
    to_number,
)
from diffpolicy.errors import InputError

TIMES = ("arrival", "end", "start")
"""Of a request: each stands in a column `arrival_s`, or `arrival_ms`, `arrival_us`, `arrival_ns`."""
KNOWN = (
    *(f"{time}_s" for time in TIMES),
    "server",
    "model",
    "width",
    "height",
    "steps",
    "images",
    "cost",
    "status",
    "request",
)
"""Names by which the reader asks for columns."""
NUMBERS = ("s", "ms", "us", "ns")


@dataclass(frozen=True)
class LogColumns:
    """A table whose columns are asked for by the names of `KNOWN`.

    Args:
        table: the file. places: where each column stands. units: of the times, of `UNITS`.
    """

    table: Table
    places: Mapping[str, int]
    units: Mapping[str, str]

    @classmethod
    def read(cls, path: str | Path, columns: Mapping[str, str], unit: str) -> LogColumns:
        """A log's columns.

        Args:
            path: of a CSV. columns: names in the file by those of `KNOWN`, where they are others.
            unit: of times whose column does not say another one, of `UNITS`; dates are known by themselves.

        Raises:
            InputError: a column lacks; says how to name it.
        """
        check_roles(columns, KNOWN)
        check.known(columns, KNOWN, "columns")
        check.choice(unit, "unit", UNITS)
        wanted = {name: _spellings(name, columns) for name in KNOWN}
        needed = [tuple(wanted[name]) for name in ("arrival_s", "server", "end_s")]
        needed.append((*wanted["cost"], *wanted["steps"]))
        try:
            table = read_table(path, "log", needed, list_columns=True)
        except InputError as error:
            if "has no column" not in str(error):
                raise
            raise InputError(
                f"{error}; if another column holds it, name that one, such as --columns arrival_s=created_at,server=gpu"
            ) from None
        table = table.complete("requests")
        places, units = {}, {}
        for name, spellings in wanted.items():
            for spelling, its in spellings.items():
                if spelling in table.header and name not in places:
                    places[name], units[name] = table.header.index(spelling), its or unit
        for name in columns:
            if name not in places:
                raise InputError(f"{table.name} has no column {check.show(columns[name])}, which was named for {name}")
        return cls(table, places, {name: units[name] for name in units if name.removesuffix("_s") in TIMES})

    def has(self, name: str) -> bool:
        """Whether there is a column. Args: name: of `KNOWN`."""
        return name in self.places

    def texts(self, name: str, rows: Ints | None = None) -> list[str]:
        """What stands in a column, without the spaces around it. Args: name: of `KNOWN`. rows: which; None: all."""
        at = self.places[name]
        return [self.table.rows[k][at].strip() for k in (range(len(self.table.rows)) if rows is None else rows)]

    def error(self, row: int, name: str, what: str) -> InputError:
        """A sentence about a value. Args: row: where. name: of `KNOWN`. what: is wrong."""
        column, value = self.table.header[self.places[name]], self.table.rows[row][self.places[name]]
        where = f"{self.table.name}, line {self.table.lines[row]}, column '{check.show(column)[1:-1]}'"
        return InputError(f"{where} {what}, got {check.show(value)}")

    def numbers(self, name: str, rows: Ints, *, least: float = -np.inf) -> Floats:
        """A column of finite numbers. Args: name: of `KNOWN`. rows: which. least: bound of each."""
        values = np.empty(len(rows))
        for place, text in enumerate(self.texts(name, rows)):
            try:
                values[place] = to_number(text)
            except ValueError as error:
                raise self.error(int(rows[place]), name, str(error)) from None
            if values[place] < least:
                raise self.error(int(rows[place]), name, f"must be at least {least:g}")
        return values

    def seconds(self, rows: Ints) -> dict[str, Floats]:
        """The times in seconds, by `arrival_s`, `end_s` and, where it is known, `start_s`.

        Numbers count from where they do in the file; dates from the first arrival, so that no digit is lost.

        Args:
            rows: which.

        Raises:
            InputError: a value is no time of its unit, some times are dates, or name a zone, and others do not, or a
                time is more than a year after the arrival before it, as where one is 0 among seconds since 1970.
        """
        values = self._seconds(rows)
        arrival, end = values["arrival_s"], values["end_s"]
        order = np.argsort(arrival, kind="stable")
        k = first_long_gap(arrival[order].tolist())
        if k is not None:
            self._refuse_gap(int(rows[order[k + 1]]), "arrival_s", int(rows[order[k]]))
        for j in np.flatnonzero(end - arrival > LONGEST_GAP_S)[:1]:
            self._refuse_gap(int(rows[j]), "end_s", int(rows[j]))
        return values

    def out_of_order(self, rows: Ints, arrival_s: Floats) -> str:
        """A few rows that arrive before the row above, in words. Args: rows: which. arrival_s: of each."""
        lines = [self.table.lines[k] for k in rows]
        return out_of_order(arrival_s.tolist(), lines, self.texts("arrival_s", rows))

    def _refuse_gap(self, row: int, name: str, before: int) -> NoReturn:
        """Says that a time is too late. Args: row: its. name: of `KNOWN`. before: the row of the arrival before it."""
        said, line = self.table.rows[before][self.places["arrival_s"]], self.table.lines[before]
        most = f"at most {LONGEST_GAP_S // 86_400} days after the arrival {check.show(said)}"
        raise self.error(row, name, f"must be {most}{'' if row == before else f' in line {line}'}")

    def _seconds(self, rows: Ints) -> dict[str, Floats]:
        """`seconds`, each for itself."""
        units = {name: self._unit(name, rows) for name in self.units}
        dates = [name for name, unit in units.items() if unit == "datetime"]
        if dates and len(dates) < len(units):
            other = next(name for name in units if name not in dates)
            raise self.error(int(rows[0]), other, f"must be a date and time, as {dates[0]} is")
        if not dates and set(units.values()) == {"s"}:
            return {name: self.numbers(name, rows) for name in units}
        moments = {name: [self._moment(name, unit, int(k)) for k in rows] for name, unit in units.items()}
        self._check_zones(moments, rows)
        since = min(moment.ns for moment in moments["arrival_s"]) if dates else 0
        return {name: np.array([(x.ns - since) / 1e9 for x in of]) for name, of in moments.items()}

    def _unit(self, name: str, rows: Ints) -> str:
        """Of a column: a date in its first row makes it one of dates, whatever was told."""
        first = self.texts(name, rows[:1])[0]
        try:
            to_moment(first, "datetime")
        except ValueError:
            return self.units[name]
        return "datetime"

    def _moment(self, name: str, unit: str, row: int) -> Moment:
        """One time."""
        try:
            return to_moment(self.table.rows[row][self.places[name]], unit)
        except ValueError as error:
            raise self.error(row, name, str(error)) from None

    def _check_zones(self, moments: Mapping[str, list[Moment]], rows: Ints) -> None:
        """Refuses dates of which some name a zone and others none."""
        zoned = moments["arrival_s"][0].zoned
        for name, of in moments.items():
            for k, moment in zip(rows, of, strict=True):
                if moment.zoned != zoned:
                    raise self.error(
                        int(k), name, f"must name {'a' if zoned else 'no'} time zone, as the first arrival does"
                    )


def _spellings(name: str, columns: Mapping[str, str]) -> dict[str, str]:
    """Names that a column may have in the file, each with the unit that it says; "" for none."""
    if name in columns:
        return {columns[name]: ""}
    stem = name.removesuffix("_s")
    return {name: "", **({f"{stem}_{unit}": unit for unit in NUMBERS[1:]} if stem in TIMES else {})}
