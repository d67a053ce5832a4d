"""`serve_policy`: a service on a port until a signal ends it, whose workers may change meanwhile."""

from __future__ import annotations

import asyncio
import importlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Protocol

from diffpolicy.edge.serving.aside import Aside
from diffpolicy.edge.serving.bell import Bell
from diffpolicy.edge.serving.decider import described
from diffpolicy.edge.serving.running import run_app
from diffpolicy.edge.serving.worker_spec import WorkerSpec
from diffpolicy.edge.serving.workers_source import WorkersSource
from diffpolicy.errors import InputError

logger = logging.getLogger("diffpolicy.serving")
EVERY_S = 1.0
"""Between two looks at the workers file."""


class Dispatching(Protocol):
    """What is asked of a service beside what the API asks."""

    async def start(self) -> None:
        """Begins."""

    async def stop(self, grace_s: float) -> None:
        """Ends what it has, within so many seconds."""

    def replace_workers(self, workers: Sequence[WorkerSpec]) -> None:
        """Takes another fleet."""


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine, on uvloop where that is installed: a request takes a fourth less of the processor there.

    Args:
        main: it.
    """
    try:
        uvloop: Any = importlib.import_module("uvloop")
    except ModuleNotFoundError:
        asyncio.run(main)
    else:
        uvloop.run(main)


async def serve_policy(
    service: Dispatching,
    app: Any,
    listening: socket.socket,
    source: WorkersSource,
    *,
    grace_s: float,
    ready: Callable[[], None],
    again: Sequence[Callable[[], None]] = (),
    every_s: float = EVERY_S,
) -> None:
    """Serves until SIGINT or SIGTERM.

    Args:
        service: which the app stands before. app: of `make_app`. listening: a socket.
        source: of the workers; a file is looked at again and again, and read when it has changed or on SIGHUP.
        grace_s: seconds in which it ends what it has; meanwhile new requests are answered by 503.
        ready: is called once requests are taken. again: are called on SIGHUP too.
        every_s: between two looks at the file.

    Raises:
        Stopped: a signal came, and everything has ended.
    """
    watching: list[asyncio.Task[None]] = []
    told = Bell()

    def hang_up() -> None:
        told.ring()
        for each in again:
            try:
                each()
            except InputError as error:
                logger.error("%s", error)

    async def start() -> None:
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hang_up)
        await service.start()
        watching.append(asyncio.ensure_future(_watch(service, source, every_s, told)))
        ready()

    async def stop(grace_s: float) -> None:
        for task in watching:
            task.cancel()
        await service.stop(grace_s)

    await run_app(app, listening, start=start, stop=stop, grace_s=grace_s)


async def _watch(service: Dispatching, source: WorkersSource, every_s: float, told: Bell) -> None:
    """Looks at the file now and then, in a thread: a disk that is slow, or gone, keeps no request waiting."""
    aside = Aside("workers-file")
    try:
        while True:
            await told.wait(every_s)
            always = told.rung
            told.clear()
            try:
                read = aside.submit(partial(source.changed, always=always))
                _take(service, await asyncio.wrap_future(read))
            except InputError as error:  # said once for each state of the file
                logger.error("%s; the workers stay as they were", error)
            except Exception as error:  # whatever it is, the next change of the file must be seen
                logger.error("the workers file could not be loaded: %s", described(error))
    finally:
        aside.close()


def _take(service: Dispatching, workers: Sequence[WorkerSpec] | None) -> None:
    """Takes another fleet. Args: service: with workers. workers: None: those that it has."""
    if workers is not None:
        service.replace_workers(workers)
        logger.info("the workers are %s now", ", ".join(worker.name for worker in workers))
