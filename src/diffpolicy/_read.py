"""Reading files that others wrote: only regular ones, only so much of them, and one sentence where that fails."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Literal

from diffpolicy.errors import InputError

MIB = 2**20
LIMIT = 16 * MIB
"""Bytes of a file of settings. Tables and tensors have bounds of their own."""


def printable(text: str) -> str:
    """A text as it stands in a printed line: what breaks lines, moves a cursor or is no character is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def one_line(message: object, most: int = 1000) -> str:
    """Another library's message as part of ours: on one line, with nothing that moves a cursor, its middle cut out.

    Args:
        message: the exception, or its text. most: characters that are kept.
    """
    text = printable(" ".join(str(message).split()))
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[len(text) - most // 2 :]}"


def show_path(path: str | Path) -> str:
    """A path as it stands in a message: short, on one line, with what cannot be printed escaped."""
    text = printable(str(path)) or "''"
    return text if len(text) <= 500 else f"{text[:200]}...{text[-200:]}"


def what_is(path: str | Path) -> Literal["file", "folder", "device", ""]:
    """What stands at a path: a file, a folder, or a device, pipe or socket; empty where no file is or can be."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # a name too long, in which a null character stands, or a link to itself
        return ""
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "device"


def read_bytes(path: str | Path, what: str, limit: int = LIMIT) -> bytes:
    """The bytes of a regular file.

    A device or a pipe is refused before a byte of it is read, since it may never end or never begin.

    Args:
        path: of the file. what: names its kind in messages. limit: the most bytes that it may have.

    Raises:
        InputError: there is no such file, it is none, it is too large, or it cannot be read.
    """
    name = f"{what} {show_path(path)}"
    try:
        with open(path, "rb", buffering=0, opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{name} is a device, a pipe or a socket, not a file")
            # what the system says of a size need not be so: files of /proc have none
            data = b"" if status.st_size > limit else _at_most(file.fileno(), limit + 1)
            if status.st_size > limit or len(data) > limit:
                raise InputError(f"{name} is larger than {_size(limit)}, the most that is read")
            return data
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{name} does not exist") from None
    except IsADirectoryError:
        raise InputError(f"{name} is a folder, not a file") from None
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror or error}") from None
    except ValueError:
        # a null character, or half of a surrogate pair
        raise InputError(f"{name} cannot be read: no file can have this name") from None


def read_text(path: str | Path, what: str, limit: int = LIMIT) -> str:
    """The text of a regular file in UTF-8, with or without a byte order mark, its line ends as they are.

    Args:
        path: of the file. what: names its kind in messages. limit: the most bytes that it may have.

    Raises:
        InputError: as `read_bytes`, or it is not UTF-8; the sentence names the line.
    """
    return decode(read_bytes(path, what, limit), f"{what} {show_path(path)}")


def decode(data: bytes, name: str) -> str:
    """Bytes of UTF-8, with or without a byte order mark, as text.

    Args:
        data: the bytes. name: of the file, in messages.

    Raises:
        InputError: they are not UTF-8; the sentence names the line.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line = 1 + before.count(b"\n") + before.count(b"\r") - before.count(b"\r\n")
        byte = error.object[error.start]
        raise InputError(f"{name} is not UTF-8 text: line {line} holds the byte 0x{byte:02x}") from None


def _open_without_waiting(path: str, flags: int) -> int:
    """Opening a pipe waits for a writer unless it is told not to."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


def _at_most(handle: int, count: int) -> bytes:
    parts: list[bytes] = []
    while count > 0 and (part := os.read(handle, min(count, 4 * MIB))):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _size(count: int) -> str:
    return f"{count // MIB} MiB" if count % MIB == 0 and count else f"{count} bytes"
