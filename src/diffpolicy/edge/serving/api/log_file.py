"""`LogFile`: a log of requests on a disk, to which whole lines are added."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from diffpolicy import _files
from diffpolicy.errors import InputError

OLD = ("arrival_s", "server", "start_s", "end_s", "model", "width", "height", "steps", "images", "status")
COLUMNS = (*OLD, "request")
HEADER, OLD_HEADER = (",".join(columns) + "\n" for columns in (COLUMNS, OLD))
"""A log that was begun without the column `request` goes on without it."""


class LogFile:
    """A file that others may write to as well, line by line.

    A line that a killed process left unfinished is cut off, and so is one of which a full disk took a part.

    Args:
        path: of a log, or of a file that is not there yet.

    Attributes:
        old: whether it was begun without the column `request`.

    Raises:
        InputError: the file is something else, or cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.old, self._cut, self._handle = False, False, -1
        self.reopen()

    def reopen(self) -> None:
        """Opens the file again, as after a rotation; where it cannot be, lines go on to where they went.

        Raises:
            InputError: see above.
        """
        _files.check_writable(self.path)
        handle = -1
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            old = self._begin(handle)
        except (OSError, InputError) as error:
            if handle >= 0:
                os.close(handle)
            if isinstance(error, InputError):
                raise
            raise InputError(f"cannot write {self.path}: {error.strerror}") from None
        self.close()
        self._handle, self.old, self._cut = handle, old, False

    def _begin(self, handle: int) -> bool:
        """Writes the header, or sees that it is there, and cuts off a line without an end. Returns: as `old`."""
        head = os.read(handle, len(HEADER))
        if not head:
            if os.write(handle, HEADER.encode()) < len(HEADER):
                os.ftruncate(handle, 0)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return False
        old = head.replace(b"\r\n", b"\n").startswith(OLD_HEADER.encode())
        if not old and head.replace(b"\r\n", b"\n") != HEADER.encode():
            raise InputError(f"{self.path} is not a log of requests: its first line must be {HEADER.strip()}")
        size = os.fstat(handle).st_size
        tail = os.pread(handle, 4096, max(size - 4096, 0))
        if not tail.endswith(b"\n"):
            os.ftruncate(handle, max(size - len(tail), 0) + tail.rfind(b"\n") + 1)
        return old

    def put(self, line: bytes) -> None:
        """Writes a line whole or not at all; where a part stays, the next line begins anew, so that it is not lost too.

        Args:
            line: with its end.

        Raises:
            OSError: it was not written.
        """
        line = b"\n" + line if self._cut else line
        count = os.write(self._handle, line)
        if count == len(line):
            self._cut = False
            return
        before, self._cut = self._cut, True
        end = os.lseek(self._handle, 0, os.SEEK_CUR)
        if os.fstat(self._handle).st_size == end:  # otherwise it would be somebody else's line that is cut off
            os.ftruncate(self._handle, end - count)
            self._cut = before
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Ends."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
