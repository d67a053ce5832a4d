"""Rows of recorded traces: what a request is, how its values are read, and how rows are counted."""

from __future__ import annotations

import ast
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffpolicy import _validate as check
from diffpolicy._tables import Table, read_table
from diffpolicy.edge.workload.table_values import (
    LONGEST_GAP_S,
    MOST,
    Moment,
    first_long_gap,
    out_of_order,
    to_moment,
    to_number,
    to_whole,
)
from diffpolicy.edge.workload.traces.trace import Broken, Trace
from diffpolicy.errors import InputError

SIZE = (1024, 1024)
WHAT = "trace file"


@dataclass(frozen=True, slots=True)
class Request:
    """One row."""

    time: Moment
    model: str = "default"
    steps: int = 0
    images: int = 1
    width: int = SIZE[0]
    height: int = SIZE[1]
    exec_s: float = float("nan")


def gather(
    name: str,
    rows: Iterable[tuple[int, Mapping[str, str]]],
    parse: Callable[[Mapping[str, str]], Request | str],
    max_broken: float,
    *,
    broken: Iterable[tuple[int, str]] = (),
    blank: int = 0,
) -> Trace:
    """The requests of all rows that can be read, in order of arrival; every row is in one of three counts.

    Args:
        name: kind and path of the file, in messages.
        rows: line and values of each row that could be split.
        parse: a row's request; or the reason for leaving it out; or a `ValueError` that says why it is broken.
        max_broken: greatest share of broken rows.
        broken: line and reason of the rows that could not be split. blank: lines without a character.

    Raises:
        InputError: too many rows are broken, none is left, or their times cannot be those of one record.
    """
    share = check.number(max_broken, "max_broken", least=0)
    if share > 1:
        raise InputError(f"max_broken must be at most 1, got {check.show(max_broken)}")
    requests: list[tuple[int, Request]] = []
    wrong = list(broken)
    skipped = Counter({"blank line": blank} if blank else {})
    for line, row in rows:
        try:
            request = parse(row)
        except ValueError as error:
            wrong.append((line, str(error)))
            continue
        if isinstance(request, str):
            skipped[request] += 1
        else:
            requests.append((line, request))
    total = len(requests) + len(wrong) + skipped.total() - blank
    first = tuple(f"line {line}: {why}" for line, why in sorted(wrong)[:3])
    if len(wrong) > share * total:
        raise InputError(
            f"{name} has {len(wrong)} broken rows of {total}, more than the share {share:g}; "
            f"the first: {'; '.join(first)}"
        )
    if not requests:
        raise InputError(f"{name} has no requests to read in its {total} rows")
    _check_zones(name, requests)
    told = out_of_order(
        [r.time.ns for _, r in requests], [line for line, _ in requests], [r.time.said for _, r in requests]
    )
    requests.sort(key=_time_ns)
    _check_gaps(name, requests)
    return _trace(name, [r for _, r in requests], Broken(len(wrong), first), dict(skipped), told)


def gather_table(
    path: str | Path,
    needed: Iterable[str],
    parse: Callable[[Mapping[str, str]], Request | str],
    max_broken: float,
) -> Trace:
    """`gather` on a CSV with the columns `needed`."""
    return gather_rows(read_table(path, WHAT, tuple(needed), list_columns=True), parse, max_broken)


def gather_rows(table: Table, parse: Callable[[Mapping[str, str]], Request | str], max_broken: float) -> Trace:
    """`gather` on a table that was read."""
    rows = zip(table.lines, (dict(zip(table.header, row, strict=True)) for row in table.rows), strict=True)
    return gather(table.name, rows, parse, max_broken, broken=table.broken, blank=table.blank)


def _time_ns(row: tuple[int, Request]) -> int:
    return row[1].time.ns


def _check_zones(name: str, requests: list[tuple[int, Request]]) -> None:
    first: dict[bool, str] = {}
    for line, request in requests:
        if request.time.zoned not in first:
            first[request.time.zoned] = f"line {line}: {check.show(request.time.said)}"
    if len(first) == 2:
        raise InputError(f"{name} has times with a zone ({first[True]}) and without one ({first[False]})")


def _check_gaps(name: str, requests: list[tuple[int, Request]]) -> None:
    k = first_long_gap([request.time.ns / 1e9 for _, request in requests])
    if k is None or not requests[k][1].time.said:  # drawn, not recorded
        return
    line, left = requests[k]
    next_line, right = requests[k + 1]
    days = (right.time.ns - left.time.ns) / 1e9 / 86_400
    raise InputError(
        f"{name} has no request for {days:,.0f} days between {check.show(left.time.said)} in line {line} and "
        f"{check.show(right.time.said)} in line {next_line}, more than {LONGEST_GAP_S // 86_400}: "
        f"one of them or its unit is wrong"
    )


def _trace(name: str, requests: list[Request], broken: Broken, skipped: dict[str, int], told: str) -> Trace:
    unknown = np.full(len(requests), np.nan)
    return Trace(
        arrival_s=np.array([r.time.ns - requests[0].time.ns for r in requests]) / 1e9,
        model=tuple(r.model for r in requests),
        steps=np.array([r.steps for r in requests], dtype=np.int64),
        images=np.array([r.images for r in requests], dtype=np.int64),
        width=np.array([r.width for r in requests], dtype=np.int64),
        height=np.array([r.height for r in requests], dtype=np.int64),
        exec_s=np.array([r.exec_s for r in requests]),
        gcycles_per_step=unknown,
        input_mbit=unknown,
        result_mbit=unknown,
        name=name,
        broken=broken,
        skipped=skipped,
        out_of_order=told,
    )


def call(line: str) -> dict[str, str]:
    """The keyword arguments of `Request(name=literal, ...)` as texts, None left out; nothing is evaluated."""
    form = f"must be Request(name=value, ...), got {check.show(line)}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in prompts
            node = ast.parse(line, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(form) from None
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Request"):
        raise ValueError(form)
    if node.args:
        raise ValueError(form)
    values: dict[str, str] = {}
    for keyword in node.keywords:
        if keyword.arg is None or not isinstance(keyword.value, ast.Constant):
            raise ValueError(f"{keyword.arg or '**'} must be a plain value, got {check.show(line)}")
        if keyword.arg in values:
            raise ValueError(f"{keyword.arg} appears twice, got {check.show(line)}")
        values[keyword.arg] = "" if keyword.value.value is None else _literal(keyword.value.value)
    return {name: value for name, value in values.items() if value}


def _literal(value: object) -> str:
    try:
        return str(value)
    except ValueError:
        raise ValueError("a number has too many digits") from None  # of thousands


def text(row: Mapping[str, str], name: str) -> str:
    """A text that is not empty."""
    value = row[name].strip()
    if not value:
        raise ValueError(f"{name} is empty")
    return value


def one_of(row: Mapping[str, str], name: str, known: tuple[str, ...]) -> str:
    """One of the texts `known`."""
    value = row[name].strip()
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {check.show(value)}")
    return value


def whole(row: Mapping[str, str], name: str, field: str) -> int:
    """A whole number of at least 1; `30.0` is one. Args: field: says how much it may be."""
    value = row.get(name, "")
    try:
        number = to_whole(value)
    except ValueError:
        number = 0
    if number < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {check.show(value.strip())}")
    if number > MOST[field]:
        raise ValueError(f"{name} must be at most {MOST[field]}, got {check.show(value.strip())}")
    return number


def seconds(row: Mapping[str, str], name: str) -> float:
    """A time of at least 0 s; empty: not-a-number."""
    value = row[name].strip()
    if not value:
        return math.nan
    try:
        number = to_number(value)
    except ValueError:
        number = math.nan
    if not number >= 0:
        raise ValueError(f"{name} must be a time of at least 0 s, got {check.show(value)}")
    return number


def moment(row: Mapping[str, str], name: str, unit: str) -> Moment:
    """A time in one of `UNITS`."""
    try:
        return to_moment(row[name], unit)
    except ValueError as error:
        raise ValueError(f"{name} {error}, got {check.show(row[name])}") from None


def image_size(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height in pixels that stand for what a record lacks.

    Raises:
        InputError: they are not two whole numbers in their bounds.
    """
    for value, name in zip(check.sequence(size, "size", length=2), ("width", "height"), strict=True):
        check.integer(value, f"size, {name}", least=1, most=MOST[name])
    return int(size[0]), int(size[1])
