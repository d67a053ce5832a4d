"""`serve_policy`: a service on a port until a signal ends it, whose workers and keys may change meanwhile."""

from __future__ import annotations

import asyncio
import importlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from diffpolicy.edge.serving.events import Event, FileChanged
from diffpolicy.edge.serving.running import run_app
from diffpolicy.edge.serving.watching import EVERY_S, Watched
from diffpolicy.edge.serving.worker_spec import WorkerSpec
from diffpolicy.edge.serving.workers_source import WorkersSource

logger = logging.getLogger("diffpolicy.serving")


class Dispatching(Protocol):
    """What is asked of a service beside what the API asks."""

    clock: Callable[[], float]

    async def start(self) -> None:
        """Begins."""

    async def stop(self, grace_s: float) -> None:
        """Ends what it has, within so many seconds."""

    def replace_workers(self, workers: Sequence[WorkerSpec]) -> None:
        """Takes another fleet."""

    def tell(self, event: Event) -> None:
        """Tells all who listen."""


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
    files: Sequence[Watched[Any]] = (),
    again: Sequence[Callable[[], None]] = (),
    every_s: float = EVERY_S,
) -> None:
    """Serves until SIGINT or SIGTERM.

    Args:
        service: which the app stands before. app: of `make_app`. listening: a socket.
        source: of the workers; a file is looked at again and again, and read when it has changed or on SIGHUP.
        grace_s: seconds in which it ends what it has; meanwhile new requests are answered by 503.
        ready: is called once requests are taken. files: others that are looked at so, as of keys.
        again: are called on SIGHUP too. every_s: between two looks at a file.

    Raises:
        Stopped: a signal came, and everything has ended.
    """
    watching: list[asyncio.Task[None]] = []
    watched = [of_workers(service, source), *files]

    def heard(what: str, taken: bool) -> None:
        service.tell(FileChanged(service.clock(), what, taken))

    def hang_up() -> None:
        for file in watched:
            file.told.ring()
        for each in again:
            each()

    async def start() -> None:
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hang_up)
        await service.start()
        watching.extend(asyncio.ensure_future(file.watch(every_s, heard)) for file in watched)
        ready()

    async def stop(grace_s: float) -> None:
        for task in watching:
            task.cancel()
        await service.stop(grace_s)

    await run_app(app, listening, start=start, stop=stop, grace_s=grace_s, workers=lambda: len(source.workers))


def of_workers(service: Dispatching, source: WorkersSource) -> Watched[Sequence[WorkerSpec]]:
    """What is done with a workers file that has changed. Args: service: with workers. source: of them."""

    def take(workers: Sequence[WorkerSpec]) -> None:
        service.replace_workers(workers)
        logger.info("the workers are %s now", ", ".join(worker.name for worker in workers))

    def changed(always: bool) -> Sequence[WorkerSpec] | None:
        return source.changed(always=always)

    return Watched("workers file", "the workers stay as they were", changed, take)
