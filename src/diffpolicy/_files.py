"""Writing so that nothing is ever half-written: aside first, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from diffpolicy.errors import InputError


def write(path: str | Path, save: Callable[[Path], object]) -> None:
    """Lets `save` write a file beside `path`, and renames it to `path` if that went well.

    Raises:
        InputError: the folder cannot be written to.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
    aside = Path(name)
    try:
        save(aside)
        aside.chmod(0o666 & ~_umask())
        aside.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes a text in UTF-8."""
    write(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def check_writable(path: str | Path) -> None:
    """Refuses, before any work is done, a file that could not be written.

    Raises:
        InputError: the path is a folder, or its folder cannot be written to.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder")
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: the folder {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"cannot write {path}: the folder {path.parent} is not writable")


def writable_folder(path: str | Path) -> Path:
    """The folder, made if it is not there, once it is seen that files can be written to it.

    Raises:
        InputError: it is a file, or cannot be made or written to.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(f"cannot write to the output folder {path}: {error.strerror}") from None
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
