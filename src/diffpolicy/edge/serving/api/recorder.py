"""`RequestRecorder`: `serve --log FILE`, in the columns that `diffpolicy advise` reads."""

from __future__ import annotations

import csv
import errno
import io
import logging
import os
import time
from collections import OrderedDict
from pathlib import Path

from diffpolicy import _files
from diffpolicy.edge.serving.events import Answered, Arrived, Cancelled, Event, Failed
from diffpolicy.errors import InputError

logger = logging.getLogger("diffpolicy.serving")
OLD = ("arrival_s", "server", "start_s", "end_s", "model", "width", "height", "steps", "images", "status")
COLUMNS = (*OLD, "request")
HEADER, OLD_HEADER = (",".join(columns) + "\n" for columns in (COLUMNS, OLD))
"""A log that was begun without the column `request` goes on without it."""
REMEMBERED = 20_000
"""Requests in progress, at most."""


class RequestRecorder:
    """A listener that adds a line for each request that ended, at once, to a file that it may share with others.

    Times are seconds since 1970, so that a log goes on after a restart. A line that a killed process left unfinished
    is cut off, and so is one of which a full disk took a part. A disk that is full costs lines, said once, and never an
    answer.

    Args:
        path: of a log, or of a file that is not there yet.
        now_s: what the clock of the events shows now; None: it is `time.monotonic`.

    Raises:
        InputError: the file is something else, or cannot be written.
    """

    def __init__(self, path: str | Path, now_s: float | None = None) -> None:
        self.path = Path(path)
        self.offset_s = time.time() - (time.monotonic() if now_s is None else now_s)
        self.lost = 0
        self._cut, self._old, self._warned = False, False, False
        self._asked: OrderedDict[str, Arrived] = OrderedDict()
        self._handle = -1
        self.reopen()

    def reopen(self) -> None:
        """Opens the file again, as after a rotation.

        Raises:
            InputError: see above.
        """
        _files.check_writable(self.path)
        self.close()
        self._cut = self._old = False
        try:
            self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            self._begin()
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror}") from None

    def _begin(self) -> None:
        """Writes the header, or sees that it is there, and cuts off a line without an end."""
        head = os.read(self._handle, len(HEADER))
        if not head:
            if os.write(self._handle, HEADER.encode()) < len(HEADER):
                os.ftruncate(self._handle, 0)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return
        self._old = head.replace(b"\r\n", b"\n").startswith(OLD_HEADER.encode())
        if not self._old and head.replace(b"\r\n", b"\n") != HEADER.encode():
            self.close()
            raise InputError(f"{self.path} is not a log of requests: its first line must be {HEADER.strip()}")
        size = os.fstat(self._handle).st_size
        tail = os.pread(self._handle, 4096, max(size - 4096, 0))
        if not tail.endswith(b"\n"):
            os.ftruncate(self._handle, max(size - len(tail), 0) + tail.rfind(b"\n") + 1)

    def close(self) -> None:
        """Ends."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __call__(self, event: Event) -> None:
        if isinstance(event, Arrived):
            self._asked[event.number] = event
            if len(self._asked) > REMEMBERED:
                self._asked.popitem(last=False)
        elif isinstance(event, (Answered, Failed, Cancelled)):
            asked = self._asked.pop(event.number, None)
            if asked is not None:
                self._write(asked, event)

    def _write(self, asked: Arrived, event: Answered | Failed | Cancelled) -> None:
        if self._old and asked.request and not self._warned:
            self._warned = True
            logger.warning(
                "%s was begun without the column request, so images that are sent one by one look like requests in "
                "it; use a new file for advise",
                self.path,
            )
        arrival, end = asked.time_s, max(event.time_s, asked.time_s)
        start, status = "", "cancelled"
        if isinstance(event, Answered):
            start = self._time(min(max(event.start_s, arrival), end))
        if not isinstance(event, Cancelled):
            status = "ok" if event.status < 300 else str(event.status)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(
            [
                self._time(arrival),
                event.server or "",
                start,
                self._time(end),
                asked.model,
                asked.width,
                asked.height,
                asked.steps,
                asked.images,
                status,
                *([] if self._old else [asked.request or asked.number]),
            ]
        )
        line = text.getvalue().encode("utf-8", "backslashreplace")
        try:
            self._put(b"\n" + line if self._cut else line)
        except OSError as error:
            self.lost += 1
            if self.lost == 1:
                logger.error("the log loses lines: cannot write %s: %s", self.path, error.strerror)

    def _put(self, line: bytes) -> None:
        """Writes a line whole or not at all; where a part stays, the next line begins anew, so that it is not lost too.

        Raises:
            OSError: it was not written.
        """
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

    def _time(self, time_s: float) -> str:
        return f"{time_s + self.offset_s:.6f}"
