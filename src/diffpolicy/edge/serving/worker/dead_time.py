"""How long this machine leaves a worker idle between two requests, beside which emulated times must be long."""

from __future__ import annotations

import asyncio
import json
import math

from diffpolicy.edge.serving.image_request import GENERATIONS
from diffpolicy.edge.serving.running import listen, serving
from diffpolicy.edge.serving.worker.app import make_worker_app
from diffpolicy.edge.serving.worker.desk import Desk
from diffpolicy.edge.serving.worker.emulated import EmulatedEngine
from diffpolicy.edge.serving.worker.job import Job
from diffpolicy.errors import InputError

MOST = 0.005
"""Share of a request's mean time above which dead time would change what a held queue gains."""
TRIES = 24
SHORT_S = 0.005
"""Service of a try."""


async def dead_time_s(engine: EmulatedEngine) -> float:
    """Seconds that a request takes beyond its service: a sleep that ends too late, and HTTP over an open connection.

    The least of some tries, which is the machine's own: one that is busy for a moment is not slow.

    Args:
        engine: whose profile is tried.
    """
    model = engine.standard
    whole_s = engine.expected_s(Job("", model.width, model.height, model.steps))
    short = EmulatedEngine(engine.profile, speed=engine.speed, scale=engine.scale * SHORT_S / whole_s)
    desk = Desk(short)
    await desk.start()
    listening = listen("127.0.0.1", 0)
    async with serving(make_worker_app(desk), listening):
        calls_s = await _calls_s(listening.getsockname()[1])
    return min(calls_s) - SHORT_S


async def _calls_s(port: int) -> list[float]:
    """Seconds of some calls, one after the other."""
    body = json.dumps({"prompt": "dead time"}).encode()
    head = f"POST {GENERATIONS} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    loop, took = asyncio.get_running_loop(), []
    try:
        for _ in range(TRIES):
            begun = loop.time()
            writer.write(request)
            told = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = next(line for line in told.split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            took.append(loop.time() - begun)
    finally:
        writer.close()
    return took


def check_scale(engine: EmulatedEngine, dead_s: float) -> None:
    """Refuses a time scale at which dead time is no longer small.

    Args:
        engine: whose times are scaled. dead_s: of this machine.

    Raises:
        InputError: it says from which scale on it would be.

    Example:
        >>> check_scale(make_engine("emulate:mlenergy-h100-sd3-medium", scale=0.05), dead_s=0.0003)
    """
    if engine.scale < 1 and dead_s > MOST * engine.mean_s:
        least = engine.scale * dead_s / (MOST * engine.mean_s)
        raise InputError(
            f"--time-scale {engine.scale:g} makes a request {1000 * engine.mean_s:.3g} ms on average, and this machine "
            f"adds {1000 * dead_s:.2g} ms to each, more than {100 * MOST:g} %, which would change what a dispatcher "
            f"gains; use at least {math.ceil(1000 * least) / 1000:g}"
        )
