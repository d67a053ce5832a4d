"""One writer at a time in a folder of results, so that two runs never mix in it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffpolicy import _files
from diffpolicy.errors import InputError

try:
    import fcntl
except ImportError:  # not on Windows, where two writers of one folder must not meet
    fcntl = None  # type: ignore[assignment]

NAME = ".writing"
"""A file that lies in a folder while it is written to; it holds the writer's process id."""
PATIENCE_S = 3.0
"""For how long the folder of a run that has just been killed is waited for."""
_held: dict[Path, int] = {}
"""Folders that this process writes to, and the thread that does."""


@contextmanager
def alone_in(folder: str | Path | None) -> Iterator[None]:
    """While it lasts, no other process that asks for it writes into the folder; what killed writers left there goes.

    The system lets go of the lock with the process that holds it, however that ends; its file then stays, and the next
    writer takes it over.
    Within the thread that holds it, it may be asked for again. Where the file system has no locks there is none.

    Args:
        folder: made if it is not there; None: nothing is asked for. The processes of a distributed run but the first,
            which write nothing, ask for nothing either.

    Raises:
        InputError: another process, which is named, or another thread is writing there; or nobody can.
    """
    first = all(os.environ.get(rank, "0") == "0" for rank in ("LOCAL_RANK", "NODE_RANK"))
    if folder is None or fcntl is None or not first:
        yield
        return
    shown, folder = folder, _files.writable_folder(folder).resolve()
    if _held.get(folder) == threading.get_ident():
        yield
        return
    if folder in _held:
        raise _refusal(shown, str(os.getpid()))
    handle = _lock(folder, shown)
    _held[folder] = threading.get_ident()
    try:
        _files.remove_abandoned(folder)
        yield
    finally:
        del _held[folder]
        if handle is not None:
            (folder / NAME).unlink(missing_ok=True)
            os.close(handle)


def _lock(folder: Path, shown: str | Path) -> int | None:
    """A handle that holds the lock; None where the file system has none."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            handle = os.open(folder / NAME, os.O_CREAT | os.O_RDWR, 0o666)
        except OSError as error:  # left there by another user, whose run was killed
            raise InputError(f"cannot write to the output folder {shown}: {error.strerror}: '{NAME}'") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(handle, folder / NAME):
                os.ftruncate(handle, 0)
                os.write(handle, str(os.getpid()).encode())
                return handle
        except BlockingIOError:
            if time.monotonic() > end:
                holder = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
                os.close(handle)
                raise _refusal(shown, holder) from None
            time.sleep(0.05)
        except OSError:
            os.close(handle)
            (folder / NAME).unlink(missing_ok=True)
            return None
        os.close(handle)


def _is(handle: int, path: Path) -> bool:
    """Whether a file is still the one of that name: its last holder takes the name away."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _refusal(folder: str | Path, holder: str) -> InputError:
    who = f"process {holder}" if holder.isdigit() else "another process"
    return InputError(f"the output folder {folder} is being written by {who}; wait for it, or give another folder")
