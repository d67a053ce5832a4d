"""Tables as plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffpolicy._read import printable

WIDTH = 100
"""Columns of a terminal that a table takes at most, as far as its figures allow."""


def render(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as plain text, at most `WIDTH` wide where names alone make it wider: these go on in the next line.

    The first column is flush left. Names stand in it as they are: brackets are no markup, colons no emoji, and what
    cannot be printed is escaped.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True)
    widths = [max(cell_len(printable(row[i])) for row in (columns, *rows)) for i in range(len(columns))]
    others = sum(widths[1:]) + 2 * len(widths) + 1
    for i, name in enumerate(columns):
        first: dict[str, Any] = (
            {"max_width": max(20, WIDTH - others), "overflow": "fold"} if i == 0 else {"no_wrap": True}
        )
        table.add_column(_cell(name), justify="left" if i == 0 else "right", **first)
    for row in rows:
        table.add_row(*map(_cell, row))
    console = Console(width=sum(widths) + 4 * len(widths), color_system=None, highlight=False, force_jupyter=False)
    with console.capture() as captured:
        console.print(table)
    head = textwrap.wrap(printable(title), WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join([*head, *(line.rstrip() for line in captured.get().rstrip().splitlines())])


def _cell(text: str) -> Text:
    return Text(printable(text))
