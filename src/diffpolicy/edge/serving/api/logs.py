"""What `serve` says on stderr: lines for people, or a JSON object an event."""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TextIO

from diffpolicy._read import printable
from diffpolicy.edge.serving.api.feed import kind_of, plain
from diffpolicy.edge.serving.behind import END_S, WAITING, Behind
from diffpolicy.edge.serving.events import Event, Failed, FellBack, Refused, Retried, WorkerChanged

FORMATS = ("text", "json")
TROUBLE = (Refused, Retried, Failed, FellBack, WorkerChanged)
"""What people are told, besides what the package's own messages say: what goes wrong, and how workers are, which may
be that one is well again. The rest is routine."""
STDERR = 2
"""Its number among the files of each process."""
FULL_S = 1.0
"""For which a stream that takes nothing now, and says so, is waited for."""


class EventLog:
    """A listener that writes a line an event; no prompt is in any.

    A stream that takes no more, as of a full disk or a reader that left, costs lines, counted in `lost`, and never an
    answer: nobody is left to be told of it. Between `begin` and `close` a thread writes to the process's own stderr,
    since a reader that stands still, as of a pipe, would keep all requests waiting.

    Args:
        format_: one of `FORMATS`. every: whether routine is written too. stream: None: stderr.
        most: lines that may wait for stderr.
    """

    loses = "stderr"

    def __init__(self, format_: str, *, every: bool, stream: TextIO | None = None, most: int = WAITING) -> None:
        self.format, self.every, self.stream, self._most = format_, every, stream, most
        self.lost, self._losing = 0, threading.RLock()
        self._behind: Behind | None = None

    def __call__(self, event: Event) -> None:
        if not (self.every or isinstance(event, TROUBLE)):
            return
        said = {"time": _now(), "event": kind_of(event), **_since(plain(event))}
        self.write(json.dumps(said) if self.format == "json" else _text(said))

    def write(self, line: str) -> None:
        """One line. Args: line: without its end."""
        stream: TextIO | None = self.stream or sys.stderr
        if stream is None:  # as of a process that was started without one
            self._lose()
            return
        behind = self._behind
        if behind is not None and _is_own(stream):
            # below Python's stream, whose lock a thread that stands still would hold when the process ends
            data = (line + "\n").encode(stream.encoding or "utf-8", "backslashreplace")
            if not behind.submit(partial(self._put, data)):
                self._lose()
            return
        try:
            stream.write(line + "\n")
            stream.flush()
        except (OSError, ValueError):  # a closed stream raises ValueError
            self._lose()

    def _put(self, data: bytes) -> None:
        """Writes to stderr, in the thread. Args: data: a line with its end."""
        try:
            while data:
                try:
                    data = data[os.write(STDERR, data) :]
                except BlockingIOError:  # another process that shares it has it so
                    if not select.select([], [STDERR], [], FULL_S)[1]:
                        raise
        except OSError:
            self._lose()

    def _lose(self, lines: int = 1) -> None:
        with self._losing:
            self.lost += lines

    def begin(self) -> None:
        """From now on a thread writes."""
        self._behind = Behind("stderr", self._most)

    def close(self, within_s: float = END_S) -> None:
        """No thread writes any more, once all lines are written. Args: within_s: at most so long."""
        behind, self._behind = self._behind, None
        if behind is not None:
            self._lose(behind.close(within_s))

    def handler(self) -> logging.Handler:
        """What the package's and the server's own messages go through."""
        return _Handler(self)


@contextmanager
def messages_to(log: EventLog) -> Iterator[None]:
    """Within it what this package and the server say goes to a log, and what a reader of forms says nowhere.

    Args:
        log: takes them, warnings and errors alone of the server.
    """
    # a reader of forms shows bytes of broken ones, whose senders are told by a status what is wrong
    handlers = {
        "diffpolicy.serving": log.handler(),
        "uvicorn": log.handler(),
        "python_multipart": logging.NullHandler(),
    }
    loggers = [logging.getLogger(name) for name in handlers]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    log.begin()
    try:
        for logger, handler in zip(loggers, handlers.values(), strict=True):
            logger.handlers, logger.propagate = [handler], False
            logger.setLevel(logging.INFO if logger.name == "diffpolicy.serving" else logging.WARNING)
        yield
    finally:
        for logger, (logger.handlers, logger.propagate, level) in zip(loggers, before, strict=True):
            logger.setLevel(level)
        log.close()


def _is_own(stream: TextIO) -> bool:
    """Whether a stream is the process's stderr, and no other that takes its place."""
    try:
        return stream.fileno() == STDERR
    except (AttributeError, OSError, ValueError):  # none of a process, or closed
        return False


class _Handler(logging.Handler):
    """A message as a line; never with a traceback, whose last line may hold what a client sent."""

    def __init__(self, log: EventLog) -> None:
        super().__init__()
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        said = {"time": _now(), "event": record.levelname.lower(), "message": record.getMessage()}
        self.log.write(json.dumps(said) if self.log.format == "json" else _text(said))


def _since(told: dict[str, Any]) -> dict[str, Any]:
    """An event with times of the dispatcher's clock, which nobody else has, as seconds before it happened."""
    now = told.pop("time_s")
    for key in ("start_s", "freed_s"):
        then = told.pop(key, None)
        if then is not None:
            told[key.replace("_s", "_ago_s")] = now - then
    return told


def _now() -> str:
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"


def _text(said: Mapping[str, object]) -> str:
    """A line for people, on which nothing can move a cursor."""
    words = [f"{key}={_short(value)}" for key, value in said.items() if key not in ("time", "event", "message")]
    begin = [str(said[key]) for key in ("time", "event", "message") if key in said]
    return printable(" ".join([*begin, *words]))


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return json.dumps(text) if " " in text or not text else text
