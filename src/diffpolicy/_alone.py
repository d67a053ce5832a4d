"""One writer at a time in a folder of results, so that two runs never mix in it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffpolicy import _files
from diffpolicy._lock import Lock, acquire
from diffpolicy._read import one_line
from diffpolicy.errors import InputError

NAME = ".writing"
"""A file that lies in a folder while it is written to; it holds the writer's process id and machine."""
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
    A folder that was made for it, and that nothing was written into, goes again.

    Args:
        folder: made if it is not there; None: nothing is asked for. The processes of a distributed run but the first,
            which write nothing, ask for nothing either.

    Raises:
        InputError: another process, which is named, or another thread is writing there; or nobody can.
    """
    first = all(os.environ.get(rank, "0") == "0" for rank in ("LOCAL_RANK", "NODE_RANK"))
    if folder is None or not first:
        yield
        return
    with _files.kept_if_filled(folder) as made:
        yield from _alone_in(made.resolve(), folder)


def _alone_in(folder: Path, shown: str | Path) -> Iterator[None]:
    """`alone_in` of a folder that is there. Args: shown: as the user named it."""
    if _held.get(folder) == threading.get_ident():
        yield
        return
    if folder in _held:
        raise _refusal(shown, _name())
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
    if os.name == "nt":  # where two writers of one folder must not meet
        return None
    while True:
        try:
            handle = os.open(folder / NAME, os.O_CREAT | os.O_RDWR, 0o666)
        except OSError as error:  # left there by another user, whose run was killed
            raise InputError(f"cannot write to the output folder {shown}: {error.strerror}: '{NAME}'") from None
        found = acquire(handle, PATIENCE_S, 0.05)
        if found is Lock.HELD and _is(handle, folder / NAME):
            os.ftruncate(handle, 0)
            os.write(handle, _name().encode())
            return handle
        holder = os.pread(handle, 300, 0).decode("utf-8", "replace").strip()
        os.close(handle)
        if found is Lock.OTHERS:
            raise _refusal(shown, holder)
        if found is Lock.NONE:
            (folder / NAME).unlink(missing_ok=True)
            return None


def _name() -> str:
    """This process, among those of all machines that share the folder."""
    return f"{os.getpid()} {socket.gethostname()}"


def _is(handle: int, path: Path) -> bool:
    """Whether a file is still the one of that name: its last holder takes the name away."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _refusal(folder: str | Path, holder: str) -> InputError:
    """Args: folder: as the user named it. holder: what the lock's file says."""
    pid, _, machine = holder.partition(" ")
    who = f"process {pid}" if pid.isdigit() else "another process"
    if machine and machine != socket.gethostname():
        who += f" of {one_line(machine, 100)}"
    return InputError(f"the output folder {folder} is being written by {who}; wait for it, or give another folder")
