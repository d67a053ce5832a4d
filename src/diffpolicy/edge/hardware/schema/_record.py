"""`Record`: a frozen dataclass with a JSON form, whose fields say how they are checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, field, fields
from functools import partial
from typing import Any, TypeVar

from diffpolicy import _validate as check
from diffpolicy.errors import InputError

Check = Callable[[Any, str], Any]
R = TypeVar("R", bound="Record")


class Record:
    """Base of the dataclasses that a profile is made of.

    Fields are made by `item` and `optional`; a key that is missing takes the field's default, and one without a default
    must be there.
    """

    @classmethod
    def from_dict(cls: type[R], data: Any, key: str) -> R:
        """Reads a JSON object; `key` names it in messages.

        Raises:
            InputError: a key is unknown or missing, or a value is not what the field takes.
        """
        known = fields(cls)  # type: ignore[arg-type]
        must = [f.name for f in known if f.default is MISSING]
        data = check.mapping(data, key, allowed=[f.name for f in known], required=must)
        return cls(**{f.name: f.metadata["check"](data[f.name], f"{key}.{f.name}") for f in known if f.name in data})

    def to_dict(self) -> dict[str, Any]:
        """The JSON object; every key is there."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]


def item(rule: Check, **default: Any) -> Any:
    """A field that holds what `rule` returns; `default=` where the key may be missing."""
    return field(metadata={"check": rule}, **default)


def optional(rule: Check) -> Any:
    """A field that may be null, which is the default."""
    return item(lambda value, key: None if value is None else rule(value, key), default=None)


def several(rule: Check) -> Check:
    """The rule of a list whose entries follow `rule`; a tuple comes of it."""
    return lambda value, key: tuple(rule(x, f"{key}[{i}]") for i, x in enumerate(check.sequence(value, key)))


def text(value: Any, key: str) -> str:
    """A text."""
    if not isinstance(value, str):
        raise InputError(f"{key} must be a string, got {check.show(value)}")
    return value


def one_of(*words: str) -> Check:
    """The rule of a text that is one of some words."""

    def rule(value: Any, key: str) -> str:
        return str(check.choice(value, key, words))

    return rule


def flag(value: Any, key: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise InputError(f"{key} must be true or false, got {check.show(value)}")
    return value


def counts(value: Any, key: str) -> dict[str, int]:
    """An object of names and whole numbers."""
    if not isinstance(value, dict):
        raise InputError(f"{key} must be an object, got {check.show(value)}")
    return {text(name, key): check.integer(n, f"{key}.{name}", least=0) for name, n in value.items()}


seconds = partial(check.number, least=0)
positive = partial(check.number, above=0)
whole = partial(check.integer, least=1, most=2**53)
amount = partial(check.integer, least=0)


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_plain(x) for x in value]
    return value
