"""How a file describes a frozen part of a policy (a process, a sampler, a head), and how it is made again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from inspect import isabstract
from typing import Any, TypeVar

import torch
from torch import Tensor

from diffpolicy import _validate as check
from diffpolicy._suggest import meant
from diffpolicy.errors import InputError
from diffpolicy.policies.class_names import file_name, is_ours, where

Part = TypeVar("Part")


def part_form(part: Any) -> dict[str, Any]:
    """`kind`, the class as a file calls it, and its fields. Args: part: a frozen dataclass.

    Raises:
        InputError: it is no dataclass, so no file can tell what it is.
    """
    if not is_dataclass(part):
        raise InputError(f"{type(part).__name__} must be a frozen dataclass, so that a file can tell what it is")
    form = {"kind": file_name(type(part)), **asdict(part)}  # type: ignore[arg-type]
    for key in form.keys() & vars(part).keys():  # a schedule of a process, a head of a head
        if is_dataclass(vars(part)[key]):
            form[key] = part_form(vars(part)[key])
    if not is_ours(type(part)):
        check_told(part, form)
    return form


def part_with(part: Part, **changes: Any) -> Part:
    """A part with other values of some fields; refuses one that loses in this what no field tells.

    Args:
        part: a frozen dataclass. changes: by field.
    """
    part_form(part)
    return replace(part, **changes)  # type: ignore[type-var]


def check_told(part: Any, form: Mapping[str, Any]) -> None:
    """Refuses a user's part of which a file would make another one.

    Args:
        part: a dataclass. form: its description.

    Raises:
        InputError: it holds what no file holds, or a value that no field tells; names it.
    """
    name = type(part).__name__
    try:
        again = _made(type(part), json.loads(json.dumps(form)), name)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{name} holds what no file can hold: {error}") from None
    for key, value in vars(again).items():
        if key.startswith("_") and value is None:  # what is computed once and kept
            continue
        if not _same(vars(part).get(key), value):
            raise InputError(
                f"{name}.{key} is {check.show(vars(part).get(key))}, but {check.show(value)} when read back from a "
                "file: make it a field of the dataclass that JSON can hold"
            )


def _same(a: Any, b: Any) -> bool:
    """Whether two values of parts are one but for lists in place of tuples."""
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a, b)
    return type(a) is type(b) and bool(a == b or a != a)


def part_of(form: Any, base: type[Part], what: str) -> Part:
    """The part that `part_form` described; classes are looked up among those that are imported.

    Args:
        form: its description. base: of its kind. what: names it in messages, such as `sampler`.

    Raises:
        InputError: its class is not imported, or does not take the fields.
    """
    if not isinstance(form, Mapping) or not isinstance(form.get("kind"), str):
        raise InputError(f"{what} must be a name or an object with its 'kind', got {check.show(form)}")
    kinds = [c for c in _below(base) if file_name(c) == form["kind"]]
    if not kinds and ":" not in form["kind"]:
        ours = [c.__name__ for c in _below(base) if is_ours(c) and not isabstract(c) and c is not base]
        got = f"{check.show(form['kind'])}{meant(form['kind'], ours)}"
        raise InputError(f"{what} must be one of {', '.join(ours)}, or module:Class, got {got}")
    if not kinds:
        raise InputError(f"its {what} {where(form['kind'], None)}; import it first")
    if len(kinds) > 1 and "<locals>" in form["kind"]:
        raise InputError(f"several classes are called {form['kind']} here, so its {what} could be any of them")
    return _made(kinds[-1], form, what)


def _made(kind: type[Part], form: Mapping[str, Any], what: str) -> Part:
    told = {key: tuple(v) if isinstance(v, list) else v for key, v in form.items() if key != "kind"}
    known = {f.name for f in fields(kind) if f.init}  # type: ignore[arg-type]
    if not told.keys() <= known:
        other = sorted(map(str, told.keys() - known))
        has = f"it has {', '.join(sorted(known))}" if known else "it has no fields"
        raise InputError(f"{what} {form['kind']} has no {', '.join(map(repr, other))}; {has}")
    try:
        return kind(**told)
    except TypeError as error:
        raise InputError(f"{what} {form['kind']}: {error}") from None


def _below(base: type[Part]) -> Iterator[type[Part]]:
    """A class and all that derive from it."""
    yield base
    for sub in base.__subclasses__():
        yield from _below(sub)
