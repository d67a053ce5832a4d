"""What an object's constructor was given, as far as its attributes tell."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from diffpolicy._identity import describe
from diffpolicy.errors import InputError


def kept_arguments(value: object, besides: Sequence[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """Arguments of a constructor that stand in attributes of their names, with or without a leading underscore.

    Args:
        value: whose class has the constructor, as a dataclass or any other. besides: arguments that are left out.

    Returns:
        Their contents by name, as JSON holds them; and the names of the others, of which no attribute tells.
    """
    kept: dict[str, Any] = {}
    for name in (names := sorted(set(_taken(type(value))) - set(besides))):
        for attribute in (name, f"_{name}"):
            if attribute in vars(value):
                with suppress(InputError):  # it has no content that can be told
                    kept[name] = describe(vars(value)[attribute], name)
    return kept, [name for name in names if name not in kept]


def _taken(kind: type) -> list[str]:
    """Names of what a constructor takes."""
    taken = list(inspect.signature(kind.__init__).parameters.values())[1:]  # type: ignore[misc]
    return [p.name for p in taken if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
