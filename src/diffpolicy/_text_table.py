"""Tables as plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffpolicy._read import printable

WIDTH = 100
"""Columns of a terminal that a table takes at most, as far as its figures allow."""


def render(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as plain text, at most `WIDTH` wide where its figures alone are not wider.

    The first column is flush left; a name that is too long for it has a line of its own, above its figures. Names stand
    in it as they are: brackets are no markup, colons no emoji, and what cannot be printed is escaped.
    """
    widths = [max(cell_len(printable(row[i])) for row in (columns, *rows)) for i in range(len(columns))]
    room = max(20, WIDTH - sum(widths[1:]) - 2 * len(widths) - 1)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True)
    for i, name in enumerate(columns):
        table.add_column(_cell(name), justify="left" if i == 0 else "right", no_wrap=True)
    apart = {k: printable(row[0]) for k, row in enumerate(rows) if cell_len(printable(row[0])) > room}
    for k, row in enumerate(rows):
        table.add_row(*map(_cell, ("", *row[1:]) if k in apart else row))
    console = Console(width=sum(widths) + 4 * len(widths), color_system=None, highlight=False, force_jupyter=False)
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().rstrip().splitlines()]
    head, body = lines[: len(lines) - len(rows)], lines[len(lines) - len(rows) :]
    body = [line for k, each in enumerate(body) for line in ([f"  {apart[k]}"] if k in apart else []) + [each]]
    told = textwrap.wrap(printable(title), WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join([*told, *head, *body])


def _cell(text: str) -> Text:
    return Text(printable(text))
