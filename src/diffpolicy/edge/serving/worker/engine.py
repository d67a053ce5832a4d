"""`Engine`: what makes images, and `Run`: what it hears and tells while it does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from diffpolicy.edge.serving.worker.job import Job, Standard


class StoppedError(Exception):
    """Nobody waits for the images any more.

    Example:
        >>> issubclass(StoppedError, Exception)
        True
    """


class Run:
    """One request at work.

    Args:
        begin_s: from when it counts, of the event loop's clock.
        show: takes a picture on the way and its index; called in the event loop.

    Example:
        >>> run = Run(begin_s=0.0)
        >>> run.step(1), run.steps, run.stopped
        (None, 1, False)
    """

    def __init__(self, begin_s: float, show: Callable[[int, bytes], None] | None = None) -> None:
        self.begin_s, self._show = begin_s, show
        self._stopped = asyncio.Event()
        self.freed: Callable[[], None] = lambda: None
        """Is told when the device is free; of whoever had it made."""
        self.steps = 0
        """Denoising steps that are done."""

    def stop(self) -> None:
        """Asks for its end, between two steps."""
        self._stopped.set()

    def go_on(self) -> None:
        """Takes that back, if it did not end yet."""
        self._stopped.clear()

    @property
    def stopped(self) -> bool:
        """Whether its end is asked for; may be read in any thread."""
        return self._stopped.is_set()

    def step(self, done: int) -> None:
        """Is called between denoising steps, in any thread.

        Args:
            done: how many there were.

        Raises:
            StoppedError: it is to end.
        """
        self.steps = done
        if self.stopped:
            raise StoppedError

    def show(self, index: int, picture: bytes) -> None:
        """A picture on the way. Args: index: from 0. picture: its file."""
        if self._show is not None:
            self._show(index, picture)

    def made(self) -> None:
        """The images are made, and the device is free for the next: what is left is to write files. In the event loop.

        An engine need not say so; it is then free when it gives the files.
        """
        self.freed()

    async def stop_asked(self) -> None:
        """Returns when its end is asked for."""
        await self._stopped.wait()


@runtime_checkable
class Engine(Protocol):
    """One model on one device. All of it is called in the event loop.

    Attributes:
        model: its name.
        standard: what it makes where a request does not say.
        kinds: formats that it writes, the first by default.
        edits: whether it takes images.
        slots: requests at once, at most.

    Example:
        >>> isinstance(make_engine("emulate:tiny-cpu"), Engine)
        True
    """

    model: str
    standard: Standard
    kinds: tuple[str, ...]
    edits: bool
    slots: int

    async def load(self) -> None:
        """Makes it ready.

        Raises:
            InputError: it cannot be.
        """

    def expected_s(self, job: Job) -> float | None:
        """Seconds that a job should take; None: nobody knows yet. Args: job: any."""

    async def generate(self, job: Job, run: Run) -> list[bytes]:
        """The images' files.

        Args:
            job: what is to be made. run: is told each step, and tells when to end.

        Raises:
            StoppedError: it was asked to end.
            ApiError: the model cannot make that.
        """
