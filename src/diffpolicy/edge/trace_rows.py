"""Rows of recorded traces: how values are read, and how broken rows are counted."""

from __future__ import annotations

import ast
import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np

from diffpolicy import _validate as check
from diffpolicy.edge.trace import Broken, Trace
from diffpolicy.errors import InputError

SIZE = (1024, 1024)
_NS_PER = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
UNITS = (*_NS_PER, "datetime")
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)(Z|[+-]\d\d:?\d\d)?")


@dataclass(frozen=True)
class Request:
    """One row; its time is in nanoseconds, since a float of seconds since 1970 has none."""

    time_ns: int
    model: str = "default"
    steps: int = 0
    images: int = 1
    width: int = SIZE[0]
    height: int = SIZE[1]
    exec_s: float = float("nan")


def gather(
    path: str | Path,
    rows: Iterable[tuple[int, dict[str, str] | str]],
    parse: Callable[[dict[str, str]], Request | None],
    max_broken: float,
) -> Trace:
    """The requests of all rows that can be read, in order of arrival; `parse` returns None to leave one out.

    A row that could not even be split is a text that says why.
    """
    requests: list[Request] = []
    wrong: list[str] = []
    total = 0
    for line, row in rows:
        total += 1
        try:
            if isinstance(row, str):
                raise ValueError(row)
            request = parse(row)
        except ValueError as error:
            wrong.append(f"line {line}: {error}")
            continue
        if request is not None:
            requests.append(request)
    if len(wrong) > max_broken * total:
        raise InputError(
            f"trace file {path} has {len(wrong)} broken rows of {total}, more than the share {max_broken:g}; "
            f"the first: {'; '.join(wrong[:3])}"
        )
    if not requests:
        raise InputError(f"trace file {path} has no requests to read in its {total} rows")
    requests.sort(key=lambda request: request.time_ns)
    unknown = np.full(len(requests), np.nan)
    return Trace(
        arrival_s=np.array([r.time_ns - requests[0].time_ns for r in requests]) / 1e9,
        model=tuple(r.model for r in requests),
        steps=np.array([r.steps for r in requests], dtype=np.int64),
        images=np.array([r.images for r in requests], dtype=np.int64),
        width=np.array([r.width for r in requests], dtype=np.int64),
        height=np.array([r.height for r in requests], dtype=np.int64),
        exec_s=np.array([r.exec_s for r in requests]),
        gcycles_per_step=unknown,
        input_mbit=unknown,
        result_mbit=unknown,
        name=f"trace file {path}",
        broken=Broken(len(wrong), tuple(wrong[:3])),
    )


def csv_rows(path: Path, needed: Iterable[str]) -> Iterator[tuple[int, dict[str, str] | str]]:
    """Line numbers and rows by column, or what is wrong with the row."""
    reader = csv.reader(io.StringIO(check.read_text(path, "trace file"), newline=""))
    try:
        header = [name.strip() for name in next(reader, [])]
        if not header:
            raise InputError(f"trace file {path} is empty")
        for name in needed:
            if name not in header:
                raise InputError(f"trace file {path} has no column '{name}'; it has {', '.join(header)[:200]}")
        for values in reader:
            if len(values) == len(header):
                yield reader.line_num, dict(zip(header, values, strict=True))
            elif values:
                yield reader.line_num, f"{len(values)} values for {len(header)} columns"
    except csv.Error as error:
        raise InputError(f"trace file {path}, line {reader.line_num}: {error}") from None


def call(line: str) -> dict[str, str]:
    """The keyword arguments of `Request(name=literal, ...)` as texts; nothing is evaluated."""
    try:
        node = ast.parse(line, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"must be Request(name=value, ...), got {check.show(line)}") from None
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Request"):
        raise ValueError(f"must be Request(name=value, ...), got {check.show(line)}")
    values: dict[str, str] = {}
    for keyword in node.keywords:
        if keyword.arg is None or not isinstance(keyword.value, ast.Constant):
            raise ValueError(f"{keyword.arg or '**'} must be a plain value, got {check.show(line)}")
        values[keyword.arg] = str(keyword.value.value)
    return values


def text(row: Mapping[str, str], name: str) -> str:
    """A text that is not empty."""
    value = row[name].strip()
    if not value:
        raise ValueError(f"{name} is empty")
    return value


def whole(row: Mapping[str, str], name: str) -> int:
    """A whole number of at least 1; `30.0` is one."""
    value = row.get(name, "").strip()
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (1 <= number < 2**53 and number == int(number)):
        raise ValueError(f"{name} must be a whole number of at least 1, got {check.show(value)}")
    return int(number)


def seconds(row: Mapping[str, str], name: str) -> float:
    """A time of at least 0 s; empty: not-a-number."""
    value = row[name].strip()
    if not value:
        return math.nan
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f"{name} must be a time of at least 0 s, got {check.show(value)}")
    return number


def time_ns(value: str, name: str, unit: str) -> int:
    """A time in one of `UNITS` as nanoseconds; exact, since it never was a float."""
    if unit == "datetime":
        return moment_ns(value, name)
    try:
        number = Decimal(value.strip())
        if not number.is_finite() or abs(number) * _NS_PER[unit] >= 2**63:
            raise ValueError
        return int((number * _NS_PER[unit]).to_integral_value())
    except (InvalidOperation, ValueError):
        raise ValueError(f"{name} must be a number in {unit}, got {check.show(value)}") from None


def moment_ns(value: str, name: str) -> int:
    """A date and time with up to nine decimals, and a zone if there is one, as nanoseconds since 1970."""
    found = _MOMENT.fullmatch(value.strip())
    try:
        if found is None:
            raise ValueError
        day, clock, zone = found.groups()
        moment = int(np.datetime64(f"{day}T{clock}", "ns").astype(np.int64))
    except ValueError:
        raise ValueError(f"{name} must be a date and time, got {check.show(value)}") from None
    if zone in (None, "Z"):
        return moment
    minutes = int(zone[1:3]) * 60 + int(zone[-2:])
    return moment - (-1 if zone[0] == "-" else 1) * minutes * 60 * 10**9
