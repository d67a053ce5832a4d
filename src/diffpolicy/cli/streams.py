"""stdin, stdout and stderr as a command needs them: there, able to hold any name, and broken in one sentence."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Any

PLAIN = {"±": "+-", "─": "-", "╶": "-", "╴": "-", "…": "..."}
"""What tables are drawn with, where the terminal's encoding has it not."""


class OutputError(Exception):
    """Nothing more can be printed on stdout. Args: reason: why. broken_pipe: whether its reader has gone."""

    def __init__(self, reason: str, *, broken_pipe: bool) -> None:
        super().__init__(reason)
        self.broken_pipe = broken_pipe


class Output(io.TextIOWrapper):
    """stdout, whose errors are told from those of files that a command writes.

    Raises:
        OutputError: what was printed cannot be written.
    """

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise _failed(error) from None

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise _failed(error) from None


class Progress(io.TextIOWrapper):
    """stderr: where nobody reads it any more, work goes on without it."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            _discard(2)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            _discard(2)


def prepare() -> None:
    """Gives this process three open streams, in which any name can be printed.

    A stream that was closed reads and writes nothing: otherwise the next file that is opened takes its number, and
    what is printed lands in it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    codecs.register_error("diffpolicy", _plainly)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = _stream(Output, sys.stdout, 1)
    sys.stderr = _stream(Progress, sys.stderr, 2)


def discard_stdout() -> None:
    """Lets nothing more be written, so that the interpreter, which flushes at its end, does not fail again."""
    _discard(sys.stdout.fileno())


def _discard(number: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)


def _stream(kind: type[Any], old: Any, number: int) -> Any:
    """A stream of our kind over a process's own one, or over its number where Python found it closed."""
    if old is None:
        return kind(open(number, "wb", closefd=False), encoding="utf-8", errors="diffpolicy")
    if not isinstance(old, io.TextIOWrapper):  # put there by whoever runs this process
        return old
    # under `python -u` and PYTHONUNBUFFERED, as in containers, nothing waits for the end of a line or of the process
    waits = {"line_buffering": old.line_buffering, "write_through": old.write_through}
    return kind(old.detach(), encoding=old.encoding, errors="diffpolicy", **waits)


def _failed(error: OSError) -> OutputError:
    return OutputError(error.strerror or str(error), broken_pipe=isinstance(error, BrokenPipeError))


def _plainly(error: UnicodeError) -> tuple[str | bytes, int]:
    """What stands for characters that the encoding has not: a plain sign, or the character's escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    plain = (
        PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in error.object[error.start : error.end]
    )
    return "".join(plain), error.end
