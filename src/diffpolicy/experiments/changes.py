"""Fields of a method that a command, a sweep or a script sets to other values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from diffpolicy import _validate as check
from diffpolicy._suggest import meant
from diffpolicy.errors import InputError
from diffpolicy.methods.method import Method


def changed(method: Method, changes: Mapping[str, Any]) -> Method:
    """A method with other values of its fields.

    Args:
        method: as it is.
        changes: by field; `field.key` sets one key of a field that is an object, as `learning_rates.actor`.

    Raises:
        InputError: it has no such field, and which it has; or a field does not take the value.

    Example:
        >>> changed(make_method("d2sac"), {"steps": 5, "learning_rates.actor": 1e-4}).steps
        5
    """
    fields = [field.name for field in dataclasses.fields(method) if field.init]
    values: dict[str, Any] = {}
    for key, value in changes.items():
        name, dot, inner = key.partition(".")
        if name not in fields:
            raise InputError(f"there is no field {check.show(name)}, but {', '.join(fields)}{meant(name, fields)}")
        if not dot:
            values[name] = value
            continue
        whole = values.get(name, getattr(method, name))
        if not isinstance(whole, Mapping):
            raise InputError(f"{name} is no object, so it has no {check.show(inner)}; it is {check.show(whole)}")
        values[name] = {**whole, inner: value}
    return dataclasses.replace(method, **values)
