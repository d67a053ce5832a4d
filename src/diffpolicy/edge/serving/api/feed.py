"""`Feed`: what happened last, numbered, so that a page can ask for what it has not seen."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from typing import Any

from diffpolicy.edge.serving.events import Event

KEPT = 400
"""Events."""


class Feed:
    """A listener that keeps the last events. Args: kept: how many."""

    def __init__(self, kept: int = KEPT) -> None:
        self.events: deque[tuple[int, Event]] = deque(maxlen=kept)
        self.last = 0

    def __call__(self, event: Event) -> None:
        self.last += 1
        self.events.append((self.last, event))

    def since(self, after: int) -> list[dict[str, Any]]:
        """Events with greater numbers, oldest first. Args: after: a number; 0 for all that are kept."""
        return [{"kind": kind_of(event), **plain(event)} for number, event in self.events if number > after]


def kind_of(event: Event) -> str:
    """An event's name. Args: event: any."""
    return type(event).__name__


def plain(value: Any) -> Any:
    """What JSON can hold of a value: dataclasses as objects, and null for a number that is not finite.

    Args:
        value: any.

    Example:
        >>> plain({"a": (1.0, float("inf"))})
        {'a': [1.0, None]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
