"""The parser of commands: one sentence for what it refuses, old spellings that are still read, and types of values."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy._read import printable
from diffpolicy._suggest import meant

MOST = 2**31 - 2
"""The greatest whole number that an option takes: what every generator here can draw up to."""


class Help(argparse.RawDescriptionHelpFormatter):
    """Help that is at most 100 columns wide, whose texts before and after the options stand as they are."""

    def __init__(self, prog: str, **options: Any) -> None:
        width = min(shutil.get_terminal_size().columns, 100) - 2
        super().__init__(prog, **{"max_help_position": 30, "width": width, **options})


class Parser(argparse.ArgumentParser):
    """An argument parser that refuses with one sentence.

    Args:
        after: makes the text after the options, when help is asked for. options: of argparse's.
    """

    def __init__(self, *, after: Callable[[], str] | None = None, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, "formatter_class": Help, **options})
        self.after = after

    def format_help(self) -> str:
        if self.after is not None:
            self.epilog = self.after()
        return super().format_help()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's; a command refuses itself what it does not know, so that the sentence is of that command."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            word = unknown[0].split("=", 1)[0]
            if word.startswith("-"):
                self.error(f"there is no option {check.show(word)}{meant(word, self.spellings())}")
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def spellings(self) -> list[str]:
        """The options that help shows, as they are typed."""
        return [
            spelling
            for action in self._actions
            if action.help != argparse.SUPPRESS
            for spelling in action.option_strings
        ]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            words = [str(word) for word in action.choices]
            raise argparse.ArgumentError(
                action, f"must be one of {', '.join(words)}, got {check.show(value)}{meant(str(value), words)}"
            )

    def error(self, message: str) -> NoReturn:
        """Prints the sentence and exits with 2."""
        text = one_line(message)
        see = f" See {self.prog} --help" if text.endswith("?") else f"; see {self.prog} --help"
        self.exit(2, f"{self.prog}: {text}{see}\n")


class OldSpelling(argparse.Action):
    """An option of earlier versions, which help no longer shows: it is read, and a sentence says what is typed now.

    Args:
        instead: what is typed now. dest: of the option that it stands for.
    """

    def __init__(self, option_strings: Sequence[str], dest: str, *, instead: str, **options: Any) -> None:
        super().__init__(option_strings, dest, **{**options, "help": argparse.SUPPRESS, "default": argparse.SUPPRESS})
        self.instead = instead

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        self.take(namespace, self.const if self.nargs == 0 else values)

    def take(self, namespace: argparse.Namespace, value: Any) -> None:
        """Sets what it stands for, and remembers that it was used."""
        setattr(namespace, self.dest, value)
        sentence = f"{self.option_strings[0]} is now spelled {self.instead}; the old spelling will be removed"
        namespace.old = [*vars(namespace).get("old", []), sentence]


def one_line(message: object) -> str:
    """A message on one line, in which nothing can move a terminal's cursor or colour its text."""
    return printable(" ".join(str(message).split()))


def whole(least: int, most: int = MOST) -> Callable[[str], int]:
    """An option's type: a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number, got {check.show(text)}") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {text}")
        if value > most:
            raise argparse.ArgumentTypeError(f"must be at most {most}, got {text}")
        return value

    return parse


def positive(text: str) -> float:
    """An option's type: a finite number above 0, within the bounds of `_limits`."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got {check.show(text)}") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a finite number above 0, got {text}")
    if not _limits.LEAST <= value <= _limits.MOST:
        raise argparse.ArgumentTypeError(f"must be from {_limits.LEAST:g} to {_limits.MOST:g}, got {text}")
    return value


def bounds(text: str) -> tuple[int, int]:
    """An option's type: LO:HI."""
    lo, _, hi = text.partition(":")
    try:
        return int(lo), int(hi)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be LO:HI in whole numbers, got {check.show(text)}") from None


def names(text: str) -> list[str]:
    """An option's type: A,B,C."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise argparse.ArgumentTypeError(f"must be names with commas between them, got {check.show(text)}")
    return parts


def columns(text: str) -> dict[str, str]:
    """An option's type: NAME=COLUMN,NAME=COLUMN."""
    pairs = [part.partition("=") for part in names(text)]
    for name, sign, column in pairs:
        if not (name.strip() and sign and column.strip()):
            raise argparse.ArgumentTypeError(f"must be NAME=COLUMN with commas between them, got {text!r}")
    columns = {name.strip(): column.strip() for name, _, column in pairs}
    if len(columns) < len(pairs):
        raise argparse.ArgumentTypeError(f"must name each NAME once, got {text!r}")
    return columns
