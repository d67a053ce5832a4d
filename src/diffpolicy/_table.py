"""Tables as plain text."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffpolicy._read import printable


def render(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as plain text, as wide as it needs to be; the first column is flush left.

    Names stand in it as they are: brackets are no markup, colons no emoji, and what cannot be printed is escaped.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for i, name in enumerate(columns):
        table.add_column(_cell(name), justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(_cell, row))
    width = sum(max(cell_len(printable(row[i])) for row in (columns, *rows)) + 4 for i in range(len(columns)))
    console = Console(width=width, color_system=None, highlight=False, force_jupyter=False)
    with console.capture() as captured:
        console.print(table)
    return "\n".join([printable(title), *(line.rstrip() for line in captured.get().rstrip().splitlines())])


def _cell(text: str) -> Text:
    return Text(printable(text))
