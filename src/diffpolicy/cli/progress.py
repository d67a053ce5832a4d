"""How far a long command is, on stderr: a bar where that is a terminal, lines with `-v`, nothing otherwise."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from diffpolicy.cli.options import say

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Bar:
    """Total, share and remaining time of some work; silent unless somebody looks.

    Args:
        label: of the bar. total: of what is counted. shown: whether a bar is drawn.
        spoken: whether lines are printed. named: whether what is at hand is printed, where there is no bar.
    """

    def __init__(self, label: str, total: float, *, shown: bool, spoken: bool, named: bool) -> None:
        self.label, self.spoken, self.named = label, spoken, named
        self.done, self.what = 0.0, ""
        self.progress: Progress | None = None
        self.task: TaskID | None = None
        if shown:
            self.progress = _rich()
            self.task = self.progress.add_task(label, total=total)

    def advance(self, amount: float, what: str = "") -> None:
        """So much more is done. Args: amount: of the total. what: is at hand."""
        if self.progress is None and self.named and what != self.what:
            say(f"{self.label} {what}")
        self.done, self.what = self.done + amount, what
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, completed=self.done, description=f"{self.label}  {what}".rstrip())

    def tell(self, text: str) -> None:
        """A line, above the bar."""
        if self.progress is not None:
            self.progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
        elif self.spoken:
            say(text)


@contextmanager
def bar(options: argparse.Namespace, label: str, total: float, *, spoken: bool = False) -> Iterator[Bar]:
    """A bar over some work.

    Args:
        options: with `-q` or `--json` no bar is drawn, with `-v` lines are printed where it is not.
        label: of it. total: of what is counted. spoken: whether its lines are printed without `-v` too.
    """
    quiet = options.quiet or options.json
    shown = not quiet and sys.stderr.isatty()
    loud = options.verbose
    made = Bar(label, total, shown=shown, spoken=spoken or loud, named=loud)
    if made.progress is None:
        yield made
        return
    with made.progress:
        yield made


def _rich() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("left", markup=False),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)
