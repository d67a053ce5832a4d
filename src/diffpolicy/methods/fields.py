"""How the fields of methods are checked: each rule gives a value as it is kept, or refuses it by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import Field
from typing import Any, get_args

from diffpolicy import _validate as check
from diffpolicy._imports import import_attribute, is_attribute
from diffpolicy.errors import InputError
from diffpolicy.networks.dense import WIDEST
from diffpolicy.policies.policy import Policy

Rule = Callable[[Any, str], Any]
"""Checks a field's value, named in messages, and gives it as it is kept."""


PLAIN: Mapping[str, Rule] = {"float": check.number, "int": check.integer, "bool": check.flag}
"""Rules of fields that have none, by their annotation."""


def annotated(field: Field[Any]) -> str:
    """What a field's annotation says, such as `float` or `int | None`, however written. Args: field: of a method."""
    kind: Any = field.type
    said = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
    said = re.sub(r"\b(?:typing|t)\.(?=Optional\[|Union\[)", "", said)
    if found := re.fullmatch(r"Optional\[(.*)\]", said):
        return f"{found[1]} | None"
    found = re.fullmatch(r"Union\[([^\[\]]*)\]", said)
    return " | ".join(part.strip() for part in found[1].split(",")) if found else said


def function(value: Any, key: str) -> Any:
    """A function."""
    if not callable(value):
        raise InputError(f"{key} must be a function, got {check.show(value)}")
    return value


def mapping(value: Any, key: str) -> dict[str, Any]:
    """An object with texts as keys."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise InputError(f"{key} must be an object, got {check.show(value)}")
    return dict(value)


def rates(value: Any, key: str) -> dict[str, float]:
    """Learning rates by name."""
    return {name: check.number(rate, f"{key}.{name}", least=0) for name, rate in mapping(value, key).items()}


def widths(value: Any, key: str) -> list[int]:
    """Widths of layers."""
    given = check.sequence(value, key)
    if len(given) > LAYERS:
        raise InputError(f"{key} must hold at most {LAYERS} widths, got {len(given)}")
    return [check.integer(width, f"{key}[{k}]", least=1, most=WIDEST) for k, width in enumerate(given)]


LAYERS = 100
"""Of a network."""


def optional_text(value: Any, key: str) -> str | None:
    """A text, or None."""
    if value is not None and not isinstance(value, str):
        raise InputError(f"{key} must be a string, got {check.show(value)}")
    return value


def acting(value: Any, key: str) -> Any:
    """A policy, a class of them, or None. Args: value: may be the `module:attribute` where it stands."""
    if isinstance(value, str) and is_attribute(value):
        value = import_attribute(value, key)
    known = isinstance(value, Policy) or (isinstance(value, type) and issubclass(value, Policy))
    if value is not None and not known:
        raise InputError(f"{key} must be a Policy, a class of them, or module:attribute, got {check.show(value)}")
    return value
