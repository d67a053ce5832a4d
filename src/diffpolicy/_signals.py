"""Ending on request: the first SIGINT or SIGTERM asks for a stop, a second one stops at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """Work was ended at once by a signal. Args: number: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def exit_status(number: int) -> int:
    """What a process that signal `number` ended tells its shell: 130 for SIGINT (Ctrl-C), 143 for SIGTERM."""
    return 128 + number


def name(number: int) -> str:
    """A signal's name as a user knows it."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


class StopRequests:
    """Listens for SIGINT and SIGTERM: `with StopRequests() as stop: ... if stop.number is not None: ...`.

    The first signal is only noted, in `number`, so that work can end where nothing is lost; a second one raises
    `Stopped` wherever the main thread is. The handlers that were there before come back at the end. Python takes
    signals in the main thread only: in any other thread nothing is installed and nothing is heard.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.at_once = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequests:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.getsignal(number) for number in NUMBERS}
            self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}

    def listen(self) -> None:
        """Takes the signals again, where something else has installed its own handlers since."""
        if self._previous:
            for number in NUMBERS:
                signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            self.at_once, self.number = True, number
            raise Stopped(number)
        self.number = number


@contextmanager
def terminated_at_once() -> Iterator[None]:
    """SIGTERM raises `Stopped` in the main thread, so that what is open is closed; as Ctrl-C does without our help."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def end_on_signals(*numbers: int) -> None:
    """From now on a signal ends this process at once, with the status that tells its shell of it.

    While an interpreter shuts down nothing else would listen, and the process would end by the signal itself, of which
    some shells and supervisors are told otherwise.

    Args:
        numbers: which signals.
    """

    def end(number: int, frame: FrameType | None) -> None:
        os._exit(exit_status(number))

    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            signal.signal(number, end)


def end_with(parent: int, *, every_s: float = 0.1) -> None:
    """Ends this process soon after its parent is gone, however that went: a process that nobody waits for trains on.

    Args:
        parent: the parent's process id, as the parent knows it. every_s: between two looks, seconds.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every_s)
        os._exit(exit_status(signal.SIGTERM))

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
