"""`RequestRecorder`: `serve --log FILE`, in the columns that `diffpolicy advise` reads."""

from __future__ import annotations

import csv
import io
import logging
import threading
import time
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import TypeAlias

from diffpolicy.edge.serving.api.log_file import LogFile
from diffpolicy.edge.serving.behind import END_S, WAITING, Behind
from diffpolicy.edge.serving.decider import described
from diffpolicy.edge.serving.events import Answered, Arrived, Cancelled, Event, Failed
from diffpolicy.errors import InputError

logger = logging.getLogger("diffpolicy.serving")
REMEMBERED = 20_000
"""Requests in progress, at most."""
WELL_S = 60.0
"""Without a loss, after which it is said that lines are written again: a disk that is too slow loses now and then."""
SLOW = "its disk does not keep up"
Ended: TypeAlias = Answered | Failed | Cancelled


class RequestRecorder:
    """A listener that adds a line for each request that ended, at once, to a file that it may share with others.

    Times are seconds since 1970, so that a log goes on after a restart. A thread writes the lines, in their order: a
    disk that is slow keeps no request waiting. One that is full, or too slow for all of them, costs lines, counted and
    said once until it is well again, and never an answer.

    Args:
        path: of a log, or of a file that is not there yet.
        now_s: what the clock of the events shows now; None: it is `time.monotonic`.
        most: lines that may wait for the disk.

    Attributes:
        lost: lines that were not written.

    Raises:
        InputError: the file is something else, or cannot be written.
    """

    loses = "log"

    def __init__(self, path: str | Path, now_s: float | None = None, *, most: int = WAITING) -> None:
        self.offset_s = time.time() - (time.monotonic() if now_s is None else now_s)
        self.lost, self._losing = 0, threading.Lock()
        self._lost_s: float | None = None
        """When a line was lost last; None: it was said since then that they are written again."""
        self._asked: OrderedDict[str, Arrived] = OrderedDict()
        self._warned = False
        self._file = LogFile(path)
        self.path = self._file.path
        self._behind = Behind("log", most)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Arrived):
            self._asked[event.number] = event
            if len(self._asked) > REMEMBERED:
                self._asked.popitem(last=False)
        elif isinstance(event, Ended):
            asked = self._asked.pop(event.number, None)
            if asked is not None and not self._behind.submit(partial(self._write, asked, event)):
                self._lose(SLOW)

    def reopen(self) -> None:
        """Has the file opened again, as after a rotation, once the lines before are written."""
        if not self._behind.submit(self._reopen):
            logger.error("the log is not opened again: %s", SLOW)

    def flush(self, within_s: float = END_S) -> None:
        """Waits until all lines are written. Args: within_s: at most so long."""
        self._behind.flush(within_s)

    def close(self, within_s: float = END_S) -> None:
        """Ends, once all lines are written. Args: within_s: at most so long; those that are not by then are lost."""
        left = self._behind.close(within_s)
        if left:
            self._lose(SLOW, left)
        else:
            self._file.close()
        if self.lost:
            logger.error("the log has lost %d lines", self.lost)

    def _reopen(self) -> None:
        try:
            self._file.reopen()
        except InputError as error:
            logger.error("%s; lines go on to where they went", error)

    def _write(self, asked: Arrived, event: Ended) -> None:
        """Writes a line, in the thread."""
        if self._file.old and asked.request and not self._warned:
            self._warned = True
            logger.warning(
                "%s was begun without the column request, so images that are sent one by one look like requests in "
                "it; use a new file for advise",
                self.path,
            )
        try:
            self._file.put(self._line(asked, event))
            self._well()
        except Exception as error:  # whatever it is, the lines after this one are to be written
            why = error.strerror if isinstance(error, OSError) else described(error)
            self._lose(f"cannot write {self.path}: {why}")

    def _line(self, asked: Arrived, event: Ended) -> bytes:
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
                *([] if self._file.old else [asked.request or asked.number]),
            ]
        )
        return text.getvalue().encode("utf-8", "backslashreplace")

    def _lose(self, why: str, lines: int = 1) -> None:
        """Counts lines that are not written. Args: why: is said of the first. lines: how many."""
        with self._losing:
            first, self._lost_s = self._lost_s is None, time.monotonic()
            self.lost += lines
        if first:
            logger.error("the log loses lines: %s", why)

    def _well(self) -> None:
        """A line was written: after a while in which none was lost the next loss is to be said again."""
        with self._losing:
            if self._lost_s is None or time.monotonic() - self._lost_s < WELL_S:
                return
            self._lost_s = None
        logger.warning("the log is written again, after %d lost lines in all", self.lost)

    def _time(self, time_s: float) -> str:
        return f"{time_s + self.offset_s:.6f}"
