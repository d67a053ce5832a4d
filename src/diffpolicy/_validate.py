"""Checks on values read from files: each refuses with one sentence that names the key and the value."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any

from diffpolicy._read import LIMIT, show_path
from diffpolicy._read import read_text as read_text
from diffpolicy._suggest import meant
from diffpolicy.errors import InputError

DEEPEST = 64
"""How far lists and objects of a file may lie in each other."""


def show(value: object) -> str:
    """A value as it stands in an error message: short, on one line, and no longer in the making than in the end."""
    text = ""
    for piece in _pieces(value):
        text += piece
        if len(text) > 60:
            return text[:57] + "..."
    return text


def _pieces(value: object) -> Iterator[str]:
    """The representation of a value bit by bit: a list of lists that are one list may double at each level."""
    if isinstance(value, dict):
        yield "{"
        for i, (key, entry) in enumerate(value.items()):
            yield ", " if i else ""
            yield from _pieces(key)
            yield ": "
            yield from _pieces(entry)
        yield "}"
    elif isinstance(value, (list, tuple)):
        left, right = "[]" if isinstance(value, list) else "()"
        yield left
        for i, entry in enumerate(value):
            yield ", " if i else ""
            yield from _pieces(entry)
        yield "," + right if left == "(" and len(value) == 1 else right
    elif isinstance(value, str):
        yield repr(value[:100])
    elif type(value) is int and value.bit_length() > 14_000:
        yield hex(value)  # decimals of thousands of digits are refused
    else:
        yield " ".join(line.strip() for line in repr(value).splitlines())  # modules and tensors take several


def number(
    value: Any, key: str, *, above: float | None = None, least: float | None = None, most: float | None = None
) -> float:
    """A finite number, greater than `above` or at least `least`, and at most `most`; NumPy's scalars are numbers."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Real)):
        raise InputError(f"{key} must be a number, got {show(value)}")
    try:
        result = float(value)
    except OverflowError:
        raise InputError(f"{key} must be a finite number, got {show(value)}") from None
    if not math.isfinite(result):
        raise InputError(f"{key} must be a finite number, got {show(value)}")
    if above is not None and not result > above:
        raise InputError(f"{key} must be greater than {above:g}, got {show(value)}")
    if least is not None and not result >= least:
        raise InputError(f"{key} must be at least {least:g}, got {show(value)}")
    if most is not None and not result <= most:
        raise InputError(f"{key} must be at most {most:g}, got {show(value)}")
    return result


def integer(value: Any, key: str, *, least: int | None = None, most: int | None = None) -> int:
    """A whole number, from `least` to `most`; NumPy's scalars are numbers."""
    whole = None
    if isinstance(value, (int, float, Real)) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):  # of infinities and what is no number
            whole = int(value)  # type: ignore[arg-type]  # of `Real` it is not told that `int` takes it
    if whole is None or whole != value:
        raise InputError(f"{key} must be a whole number, got {show(value)}")
    if least is not None and whole < least:
        raise InputError(f"{key} must be at least {least}, got {show(value)}")
    if most is not None and whole > most:
        raise InputError(f"{key} must be at most {most}, got {show(value)}")
    return whole


def no_class(value: Any, key: str) -> None:
    """Refuses a class where what it makes is asked for. Args: value: that is given. key: names it."""
    if isinstance(value, type):
        raise InputError(f"{key} is the class {value.__name__}; give an instance, such as {value.__name__}(...)")


@contextmanager
def within(key: str) -> Iterator[None]:
    """Puts a key before the names in the refusals of what is checked within: `servers[2].` before `name must be`."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{key}.{error}") from None


def flag(value: Any, key: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise InputError(f"{key} must be true or false, got {show(value)}")
    return value


def choice(value: Any, key: str, words: Iterable[Any]) -> Any:
    """One of some words."""
    known = tuple(words)
    if not isinstance(value, str) or value not in known:
        near = meant(value, known) if isinstance(value, str) else ""
        raise InputError(f"{key} must be one of {', '.join(known)}, got {show(value)}{near}")
    return value


def known(options: Mapping[str, Any], allowed: Iterable[str], key: str) -> None:
    """Refuses options of other names. Args: options: by name. allowed: names. key: what they are options of."""
    names = tuple(allowed)
    for name in options:
        if name not in names:
            raise InputError(f"{key} has no option {show(name)}; there are {', '.join(names)}{meant(str(name), names)}")


def product(counts: Mapping[str, int], most: int, what: str) -> None:
    """Refuses counts that would together make more than `most` of something, before it is made.

    Args:
        counts: by their names. most: the bound of their product. what: is made.
    """
    total = math.prod(counts.values())
    if total > most:
        factors = " x ".join(f"{count} {name}" for name, count in counts.items())
        raise InputError(f"{what} must be at most {most:,}, got {factors} = {total:,}")


def shallow(value: Any, what: str) -> Any:
    """A value read from a file whose lists and objects lie in each other at most `DEEPEST` times."""
    level = [value]
    for _ in range(DEEPEST):
        level = [x for v in level for x in (v.values() if isinstance(v, dict) else v if isinstance(v, list) else ())]
        if not level:
            return value
    raise InputError(f"{what} is nested too deeply: at most {DEEPEST} levels of lists or objects are read")


def path(value: Any, key: str) -> Path:
    """A path, as a text or one of `os`; an empty text, which `Path` reads as the working folder, is none."""
    if not isinstance(value, (str, PathLike)) or value == "":
        raise InputError(f"{key} must be a path, got {show(value)}")
    return Path(value)


def names(value: Any, key: str, what: str) -> None:
    """Refuses what is no list of names, a single name too, whose letters would be taken for some. Args: what: of."""
    if isinstance(value, str) or not isinstance(value, Collection):
        raise InputError(f"{key} must be a list of {what}, got {show(value)}")


def sequence(value: Any, key: str, *, length: int | None = None) -> list[Any]:
    """A list, of `length` entries if that is given."""
    if not isinstance(value, (list, tuple)):
        raise InputError(f"{key} must be a list, got {show(value)}")
    if length is not None and len(value) != length:
        raise InputError(f"{key} must have {length} entries, got {len(value)}")
    return list(value)


def mapping(value: Any, key: str, *, allowed: Iterable[str], required: Iterable[str] = ()) -> dict[str, Any]:
    """A JSON object with no key outside `allowed` and every key of `required`."""
    if not isinstance(value, Mapping):
        raise InputError(f"{key} must be an object, got {show(value)}")
    known = list(allowed)
    for name in value:
        if name not in known:
            near = meant(str(name), known)
            raise InputError(f"{key} has the unknown key {show(name)}; known are {', '.join(known)}{near}")
    for name in required:
        if name not in value:
            raise InputError(f"{key} lacks the key '{name}'")
    return dict(value)


def read_json(path: Path, what: str, limit: int = LIMIT) -> Any:
    """A JSON document; a repeated key is refused, since one of its two values would be lost.

    Args:
        path: of the file. what: names its kind in messages. limit: the most bytes that it may have.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                raise InputError(f"{name} has the key {show(key)} twice")
            result[key] = value
        return result

    def whole(digits: str) -> int:
        try:
            return int(digits)
        except ValueError:  # of thousands of digits, for which Python would tell how to have it all the same
            raise InputError(f"{name} holds a number of {len(digits)} digits, {digits[:20]}...") from None

    text = read_text(path, what, limit)
    name = f"{what} {show_path(path)}"
    if not text.strip():
        raise InputError(f"{name} is empty")
    try:
        return shallow(json.loads(text, object_pairs_hook=unique, parse_int=whole), name)
    except json.JSONDecodeError as error:
        raise InputError(f"{name} is not JSON: {error.msg} in line {error.lineno}") from None
    except RecursionError:
        raise InputError(f"{name} is not JSON: nested too deeply") from None
