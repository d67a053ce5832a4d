"""`Cost`: what is to be small, and what a mean of it is taken over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffpolicy.errors import InputError


@dataclass(frozen=True)
class Cost:
    """What a problem minimises, and what it is counted by.

    Args:
        label: what it is called in tables and plots, such as `delay`.
        unit: e.g. `s`; empty where it has none.
        per: what a mean is taken over: `episode` (an episode's costs are added up), `step` (all agents' and items'
            costs of a step are added up), or `item` (each reward of an item that exists; one that all items of a step
            share counts once, as nobody knows whose part is which).
        column: what it is called in files, e.g. `delay_s`.
        counted: what `per` is called in tables and files; by default `episodes`, `steps` or `items`.

    Raises:
        InputError: `per` is none of these, or the label is empty.

    Example:
        >>> cost = Cost("delay", "s", per="item", column="delay_s")
        >>> cost.titled(), cost.counted
        ('mean delay, s', 'items')
    """

    label: str = "cost"
    unit: str = ""
    per: Literal["episode", "step", "item"] = "episode"
    column: str = "cost"
    counted: str = ""

    def __post_init__(self) -> None:
        if self.per not in ("episode", "step", "item"):
            raise InputError(f"Cost.per must be episode, step or item, got {self.per!r}")
        if not isinstance(self.label, str) or not self.label:
            raise InputError(f"Cost.label must be a word, got {self.label!r}")
        object.__setattr__(self, "counted", self.counted or f"{self.per}s")

    def titled(self, what: str = "mean") -> str:
        """As the head of a column, e.g. `mean delay, s`."""
        return f"{what} {self.label}" + (f", {self.unit}" if self.unit else "")
