"""Writing so that nothing is ever half-written: aside first, then renamed."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from diffpolicy._read import show_path, what_is
from diffpolicy.errors import InputError

ASIDE = re.compile(r"\.(?P<name>.+)\.(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{16}(\.\w+)?")
"""Names of files that are not written yet; the writer's machine and process tell whether anybody is still at it."""


def machine() -> str:
    """Eight letters for this machine among those that may share a folder, where each counts processes for itself."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def write(path: str | Path, save: Callable[[Path], object]) -> None:
    """Lets `save` write a file beside `path`, and renames it to `path` if that went well.

    What writers of the same file who were killed have left beside it goes.

    Raises:
        InputError: the folder cannot be written to.
    """
    path, aside = Path(path), aside_of(path)
    _check_replaces_file(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # with the mode of any new file: the system takes the umask off, which cannot be read without setting it
        os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
    try:
        save(aside)
        _to_disk(aside)
        aside.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        aside.unlink(missing_ok=True)
    remove_abandoned(path.parent, path.name)


def _check_replaces_file(path: Path) -> None:
    """Refuses to put a file in the place of a folder, or of a device or pipe, which those who use it would miss."""
    there = what_is(path)
    if there in ("folder", "device"):
        raise InputError(
            f"cannot write {show_path(path)}: it is a {'folder' if there == 'folder' else 'device or a pipe'}"
        )


def aside_of(path: str | Path) -> Path:
    """A name beside a path for what is not to have its name yet; `remove_abandoned` knows it."""
    path = Path(path)
    return path.with_name(f".{path.name}.{machine()}-{os.getpid()}-{secrets.token_hex(8)}{path.suffix}")


def _to_disk(path: Path) -> None:
    """Waits until a file's bytes are on the disk, so that after a power cut its new name has them too."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_abandoned(folder: Path, name: str | None = None) -> None:
    """Removes what writers of this machine that are no more have left half-written.

    Args:
        folder: perhaps shared with other machines, whose processes nobody here knows. name: of a file; None: of any.
    """
    here = machine()
    with suppress(OSError):
        for path in folder.iterdir():
            match = ASIDE.fullmatch(path.name)
            if match is None or match["machine"] != here or name not in (None, match["name"]):
                continue
            if not alive(int(match["pid"])):
                path.unlink(missing_ok=True)


def alive(pid: int) -> bool:
    """Whether a process of this id runs on this machine."""
    if os.name == "nt":  # where signal 0 is Ctrl-C, so that nobody can ask without a word
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True


def write_text(path: str | Path, text: str) -> None:
    """Writes a text in UTF-8."""
    write(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def check_writable(path: str | Path) -> None:
    """Refuses, before any work is done, a file that could not be written.

    Raises:
        InputError: the path is a folder, or its folder cannot be written to.
    """
    path = Path(path)
    _check_replaces_file(path)
    if what_is(path.parent) != "folder":
        raise InputError(f"cannot write {path}: the folder {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"cannot write {path}: the folder {path.parent} is not writable")
    try:
        os.lstat(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InputError(f"cannot write {show_path(path)}: {error.strerror}") from None


def check_folder(path: str | Path) -> Path:
    """The folder of results, once it is seen that it can be written to; one that is not there is not made yet.

    Raises:
        InputError: it is a file, or cannot be made or written to.
    """
    with kept_if_filled(path):
        return Path(path)


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
        raise InputError(f"cannot write to the output folder {show_path(path)}: {error.strerror}") from None
    return path


@contextmanager
def kept_if_filled(path: str | Path) -> Iterator[Path]:
    """The folder, made if it is not there; what was made and holds nothing in the end goes again.

    Raises:
        InputError: it is a file, or cannot be made or written to.
    """
    whole = Path(path).absolute()
    missing = [p for p in (whole, *whole.parents) if not what_is(p)]
    try:
        yield writable_folder(path)
    finally:
        with suppress(OSError):
            for each in missing:
                each.rmdir()
