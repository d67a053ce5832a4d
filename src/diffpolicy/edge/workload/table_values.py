"""What a value of a table may be: one rule for numbers, whole numbers and times, and the bounds of each."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy.errors import InputError

MOST = {"width": 100_000, "height": 100_000, "steps": _limits.STEPS, "images": 1_000_000}
"""The most that a request may ask for, wherever it is written: their products stay far below 2^63."""
LONGEST_GAP_S = 366 * 86_400
"""Between two successive arrivals of a file; more is a wrong time or unit, such as a 0 among seconds since 1970."""
FEW_BACK = 0.01
"""Share of a file's rows above which arrivals that step back are its order, such as that of ends, and no mistake."""
UNITS = ("s", "ms", "us", "ns", "datetime")
_NS_PER = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_NS_MOST = 2**63
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
_TWO = "([0-9]{2})"
_MOMENT = re.compile(
    rf"([0-9]{{4}})-{_TWO}-{_TWO}[ T]{_TWO}:{_TWO}(?::{_TWO}(?:\.([0-9]{{1,9}}))?)?(Z|[+-][0-9]{{2}}:?[0-9]{{2}})?"
)


@dataclass(frozen=True, slots=True)
class Moment:
    """A time in whole nanoseconds, since a float of seconds since 1970 has none.

    Args:
        ns: since 1970, or since whatever the record counts from.
        said: as it stands in the file. zoned: whether that names a zone.
    """

    ns: int
    said: str = ""
    zoned: bool = False


def check_roles(columns: Mapping[str, str], known: Sequence[str]) -> None:
    """Refuses what is no map of columns, and a map whose sides are swapped.

    Args:
        columns: names in the file by those of the reader. known: the reader's.

    Raises:
        InputError: says which is meant instead.
    """
    if not isinstance(columns, Mapping):
        raise InputError(f"columns must be an object, got {check.show(columns)}")
    for name, column in columns.items():
        if name not in known and column in known:
            raise InputError(
                f"columns has no option {check.show(name)}: the reader's name stands first and the file's second; did "
                f"you mean {column}={check.show(name)[1:-1]}?"
            )


def to_number(text: str) -> float:
    """A finite number in ASCII digits, with a point for its decimals.

    Raises:
        ValueError: what it must be, and is not.
    """
    text = text.strip()
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(f"must be a number{_about_commas(text)}")
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


def to_whole(text: str) -> int:
    """A whole number below 2^53; `30.0` and `3e1` are one.

    Raises:
        ValueError: what it must be, and is not.
    """
    try:
        value = to_number(text)
    except ValueError:
        value = math.nan
    if not (abs(value) < 2**53 and value == math.floor(value)):
        raise ValueError("must be a whole number")
    return int(value)


def to_moment(text: str, unit: str) -> Moment:
    """A time in one of `UNITS`, exact: it never was a float.

    Raises:
        ValueError: what it must be, and is not.
    """
    said = text.strip()
    return _calendar(said) if unit == "datetime" else _count(said, unit)


def _count(said: str, unit: str) -> Moment:
    try:
        value = to_number(said)
    except ValueError:
        raise ValueError(f"must be a number in {unit}{_about_commas(said)}") from None
    if abs(value) * _NS_PER[unit] >= _NS_MOST:
        finer = [u for u, per in _NS_PER.items() if abs(value) * per < _NS_MOST]
        hint = f"; it may be in {finer[0]}" if finer else ""
        raise ValueError(f"must be a number in {unit} of at most 292 years{hint}")
    return Moment(int((Decimal(said) * _NS_PER[unit]).to_integral_value()), said)


def _about_commas(text: str) -> str:
    return " with a point (.) for its decimals" if _COMMA.fullmatch(text) else ""


def _calendar(said: str) -> Moment:
    """A date and time with up to nine decimals, and a zone if there is one."""
    found = _MOMENT.fullmatch(said)
    if found is None:
        raise ValueError("must be a date and time")
    *parts, decimals, zone = found.groups()
    year, month, day, hour, minute, second = (int(part or 0) for part in parts)
    try:
        moment = datetime(year, month, day, hour, minute, second)
    except ValueError:
        raise ValueError("must be a date and time") from None
    since = moment - datetime(1970, 1, 1)
    ns = (since.days * 86_400 + since.seconds) * 10**9 + int((decimals or "0").ljust(9, "0"))
    if zone not in (None, "Z"):
        hours, minutes = int(zone[1:3]), int(zone[-2:])
        if minutes > 59 or hours * 60 + minutes > 14 * 60:
            raise ValueError(f"must have a zone from -14:00 to +14:00, and {zone} is none")
        ns -= (-1 if zone[0] == "-" else 1) * (hours * 60 + minutes) * 60 * 10**9
    if abs(ns) >= _NS_MOST:
        raise ValueError("must lie between the years 1678 and 2262")
    return Moment(ns, said, zone is not None)


def first_long_gap(arrival_s: Sequence[float]) -> int | None:
    """The first k for which k + 1 arrives more than `LONGEST_GAP_S` after k; None where there is none."""
    pairs = zip(arrival_s, arrival_s[1:], strict=False)
    return next((k for k, (a, b) in enumerate(pairs) if b - a > LONGEST_GAP_S), None)


def out_of_order(arrival_s: Sequence[float], lines: Sequence[int], said: Sequence[str]) -> str:
    """The few rows that arrive before the row above them, as where a sign or a digit is wrong, in words.

    Args:
        arrival_s: in the order of the file, in any unit. lines: of the rows. said: as it stands there.

    Returns:
        How many there are and where the first is; empty where there is none, or more than `FEW_BACK`.
    """
    back = [k for k in range(1, len(arrival_s)) if arrival_s[k] < arrival_s[k - 1]]
    if not back or len(back) > max(1.0, FEW_BACK * len(arrival_s)):
        return ""
    k = back[0]
    count = "1 row arrives" if len(back) == 1 else f"{len(back):,} rows arrive"
    where = f"{'' if len(back) == 1 else 'the first '}in line {lines[k]}"
    return f"{count} before the row above, {where}: {check.show(said[k])} after {check.show(said[k - 1])}"


def refuse(column: str, what: str, value: str) -> ValueError:
    """The reason why a row is broken."""
    return ValueError(f"{column} {what}, got {check.show(value)}")
