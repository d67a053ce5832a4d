"""Entry points: by which other packages add problems and methods, under names of their own."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from diffpolicy._imports import import_attribute

GROUPS = {"problem": "diffpolicy.problems", "method": "diffpolicy.methods"}
"""Groups of entry points, by what they add."""


def entry_names(what: str) -> list[str]:
    """Names that other packages add. Args: what: `problem` or `method`."""
    return sorted({point.name for point in metadata.entry_points(group=GROUPS[what])})


def entry_point(what: str, name: str) -> str | None:
    """What an entry point of a name stands for, `module:attribute`, or None."""
    points = metadata.entry_points(group=GROUPS[what])
    return next((point.value for point in points if point.name == name), None)


def import_named(what: str, text: str, ours: str | None = None) -> Any:
    """The object of a built-in name, of an entry point or of `module:attribute`.

    Args:
        what: `problem` or `method`.
        text: the name.
        ours: where the built-in of that name stands, `module:attribute`; None: there is none.

    Raises:
        InputError: nothing can be imported by that name.
    """
    return import_attribute(ours or entry_point(what, text) or text, what)
