"""How a file describes a frozen part of a policy (a process, a sampler, a head), and how it is made again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeVar

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.policies.class_names import file_name, where

Part = TypeVar("Part")


def part_form(part: Any) -> dict[str, Any]:
    """`kind`, the class as a file calls it, and its fields. Args: part: a frozen dataclass.

    Raises:
        InputError: it is no dataclass, so no file can tell what it is.
    """
    if not is_dataclass(part):
        raise InputError(f"{type(part).__name__} must be a frozen dataclass, so that a file can tell what it is")
    return {"kind": file_name(type(part)), **asdict(part)}  # type: ignore[arg-type]


def part_of(form: Any, base: type[Part], what: str) -> Part:
    """The part that `part_form` described; classes are looked up among those that are imported.

    Args:
        form: its description. base: of its kind. what: names it in messages, such as `sampler`.

    Raises:
        InputError: its class is not imported, or does not take the fields.
    """
    if not isinstance(form, Mapping) or not isinstance(form.get("kind"), str):
        raise InputError(f"{what} must be a name or an object with its 'kind', got {check.show(form)}")
    kind = next((c for c in _below(base) if file_name(c) == form["kind"]), None)
    if kind is None:
        raise InputError(f"its {what} {where(form['kind'], None)}; import it first")
    told = {key: tuple(v) if isinstance(v, list) else v for key, v in form.items() if key != "kind"}
    known = {f.name for f in fields(kind) if f.init}  # type: ignore[arg-type]
    if not told.keys() <= known:
        other = sorted(map(str, told.keys() - known))
        raise InputError(
            f"{what} {form['kind']} has no {', '.join(map(repr, other))}; it has {', '.join(sorted(known))}"
        )
    try:
        return kind(**told)
    except TypeError as error:
        raise InputError(f"{what} {form['kind']}: {error}") from None


def _below(base: type[Part]) -> Iterator[type[Part]]:
    """A class and all that derive from it."""
    yield base
    for sub in base.__subclasses__():
        yield from _below(sub)
