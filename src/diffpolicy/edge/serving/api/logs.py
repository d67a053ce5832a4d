"""What `serve` says on stderr: lines for people, or a JSON object an event."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from diffpolicy._read import printable
from diffpolicy.edge.serving.api.feed import kind_of, plain
from diffpolicy.edge.serving.events import Event, Failed, FellBack, Refused, Retried, WorkerChanged

FORMATS = ("text", "json")
TROUBLE = (Refused, Retried, Failed, FellBack, WorkerChanged)
"""What people are told, besides what the package's own messages say: what goes wrong, and how workers are, which may
be that one is well again. The rest is routine."""


class EventLog:
    """A listener that writes a line an event; no prompt is in any.

    A stream that takes no more, as of a full disk or a reader that left, costs lines, counted in `lost`, and never an
    answer: nobody is left to be told of it.

    Args:
        format_: one of `FORMATS`. every: whether routine is written too. stream: None: stderr.
    """

    loses = "stderr"

    def __init__(self, format_: str, *, every: bool, stream: TextIO | None = None) -> None:
        self.format, self.every, self.stream = format_, every, stream
        self.lost = 0

    def __call__(self, event: Event) -> None:
        if not (self.every or isinstance(event, TROUBLE)):
            return
        said = {"time": _now(), "event": kind_of(event), **_since(plain(event))}
        self.write(json.dumps(said) if self.format == "json" else _text(said))

    def write(self, line: str) -> None:
        """One line. Args: line: without its end."""
        stream: TextIO | None = self.stream or sys.stderr
        if stream is None:  # as of a process that was started without one
            self.lost += 1
            return
        try:
            stream.write(line + "\n")
            stream.flush()
        except (OSError, ValueError):  # a closed stream raises ValueError
            self.lost += 1

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
    try:
        for logger, handler in zip(loggers, handlers.values(), strict=True):
            logger.handlers, logger.propagate = [handler], False
            logger.setLevel(logging.INFO if logger.name == "diffpolicy.serving" else logging.WARNING)
        yield
    finally:
        for logger, (logger.handlers, logger.propagate, level) in zip(loggers, before, strict=True):
            logger.setLevel(level)


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
