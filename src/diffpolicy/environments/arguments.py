"""What an object's constructor was given, as far as its attributes tell."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

from diffpolicy._identity import describe
from diffpolicy.errors import InputError


def kept_arguments(value: object, besides: Collection[str] = ()) -> tuple[dict[str, Any], dict[str, str]]:
    """Arguments of a constructor that stand in attributes of their names, with or without a leading underscore.

    Args:
        value: whose class has the constructor, as a dataclass or any other. besides: arguments that are left out.

    Returns:
        Their contents by name, as JSON holds them; and of the others by name why they have none here.
    """
    kept: dict[str, Any] = {}
    others: dict[str, str] = {}
    for name in sorted(set(taken_by(type(value))) - set(besides)):
        found = [attribute for attribute in (name, f"_{name}") if attribute in vars(value)]
        try:
            if found:
                kept[name] = describe(vars(value)[found[0]], name)
            else:
                others[name] = "no attribute of that name keeps it"
        except InputError:
            others[name] = f"no file can tell the content of a {type(vars(value)[found[0]]).__name__}"
    return kept, others


def taken_by(kind: type) -> list[str]:
    """Names of what a constructor takes; of one that hands on what it does not know, those of the next in line too."""
    names: list[str] = []
    for each in kind.__mro__:
        if "__init__" not in vars(each) or each is object:
            continue
        taken = list(inspect.signature(each.__init__).parameters.values())[1:]  # type: ignore[misc]
        names += [p.name for p in taken if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        if not any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in taken):
            break
    return names
