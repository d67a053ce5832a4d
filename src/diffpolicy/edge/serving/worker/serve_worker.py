"""`serve_worker`: one engine on one port."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any

from diffpolicy.edge.serving.api.settings import ApiSettings
from diffpolicy.edge.serving.running import run_app
from diffpolicy.edge.serving.watching import Watched
from diffpolicy.edge.serving.worker.app import make_worker_app
from diffpolicy.edge.serving.worker.dead_time import check_scale, dead_time_s
from diffpolicy.edge.serving.worker.desk import Desk, Standing
from diffpolicy.edge.serving.worker.emulated import EmulatedEngine
from diffpolicy.edge.serving.worker.engine import Engine


async def serve_worker(
    engine: Engine,
    listening: socket.socket,
    *,
    queue: int,
    settings: ApiSettings,
    grace_s: float,
    ready: Callable[[Standing], None],
    files: Sequence[Watched[Any]] = (),
) -> None:
    """Serves until a signal comes.

    Args:
        engine: makes the images. listening: a socket. queue: requests that may wait. settings: bounds and keys.
        grace_s: seconds in which it ends what it has. ready: is told once it takes requests.
        files: are looked at again and again meanwhile, as of keys.

    Raises:
        Stopped: a signal came, and everything has ended.
        InputError: the model cannot be loaded, or the time scale is too small for this machine.
    """
    desk = Desk(engine, queue)
    watching = [asyncio.ensure_future(file.watch()) for file in files]

    async def start() -> None:
        if isinstance(engine, EmulatedEngine) and engine.scale < 1:
            check_scale(engine, await dead_time_s(engine))
        await desk.start()
        ready(desk.standing())

    try:
        await run_app(make_worker_app(desk, settings), listening, start=start, stop=desk.stop, grace_s=grace_s)
    finally:
        for task in watching:
            task.cancel()
