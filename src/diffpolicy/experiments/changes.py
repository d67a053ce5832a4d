"""Fields of a method that a command, a sweep or a script sets to other values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from diffpolicy import _validate as check
from diffpolicy._suggest import meant
from diffpolicy.errors import InputError
from diffpolicy.methods.method import Method


def changed(method: Method, changes: Mapping[str, Any]) -> Method:
    """A method with other values of its fields.

    Args:
        method: as it is.
        changes: by field; `field.key` sets one key of a field that is an object, as `learning_rates.actor`. Some bring
            others with them, unless these are there too: see `Method.brought_by`.

    Raises:
        InputError: it has no such field, and which it has; or a field does not take the value.

    Example:
        >>> changed(make_method("d2sac"), {"steps": 5, "learning_rates.actor": 1e-4}).steps
        5
    """
    if not isinstance(changes, Mapping):
        raise InputError(f"changes must be values by field, got {check.show(changes)}")
    fields = [field.name for field in dataclasses.fields(method) if field.init]
    values: dict[str, Any] = {}
    for key, value in {**method.brought_by(changes), **changes}.items():
        name, dot, inner = key.partition(".")
        if name not in fields:
            raise InputError(f"there is no field {check.show(name)}, but {', '.join(fields)}{meant(name, fields)}")
        if not dot:
            values[name] = value
            continue
        whole = values.get(name, getattr(method, name))
        if not isinstance(whole, Mapping):
            raise InputError(f"{name} is not an object, so it has no {check.show(inner)}; it is {check.show(whole)}")
        values[name] = {**whole, inner: value}
    return dataclasses.replace(method, **values)


def changes_of(methods: Mapping[str, Method], name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes of one method among several: those of all, then its own, which win.

    Args:
        methods: all, by name. name: of one of them.
        changes: by `field`, of all, or by `name.field`, of one of them alone.

    Raises:
        InputError: a change of all is of a field that only some of them have.

    Example:
        >>> both = {name: make_method(name) for name in ("d2sac", "sac")}
        >>> changes_of(both, "d2sac", {"gamma": 0.9, "d2sac.steps": 3}), changes_of(both, "sac", {"gamma": 0.9})
        ({'gamma': 0.9, 'steps': 3}, {'gamma': 0.9})
    """
    shared: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for key, value in changes.items():
        whose, field = aimed(methods, key)
        if whose is None:
            _check_shared(methods, key)
            shared[key] = value
        elif whose == name:
            own[field] = value
    return {**shared, **own}


def aimed(methods: Mapping[str, Method] | Sequence[str], key: str) -> tuple[str | None, str]:
    """The method that a key names, None for all, and the field. Args: methods: names. key: of a change."""
    whose = max((name for name in methods if key.startswith(f"{name}.")), key=len, default=None)
    return whose, key if whose is None else key[len(whose) + 1 :]


def _check_shared(methods: Mapping[str, Method], key: str) -> None:
    """Where no method has the field, `changed` says which there are."""
    field = key.partition(".")[0]
    having = [name for name, method in methods.items() if field in {f.name for f in dataclasses.fields(method)}]
    if having and (lacking := [name for name in methods if name not in having]):
        raise InputError(
            f"{', '.join(lacking)} {'has' if len(lacking) == 1 else 'have'} no field {check.show(field)}; to set it in "
            f"one method alone, put its name before it, as in {having[0]}.{key}"
        )
