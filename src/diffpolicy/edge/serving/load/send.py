"""`send`: asks a service for images, each when its time has come, whatever became of those before."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Sequence
from typing import Any

from diffpolicy.edge.hardware.adapters.image_answer import BYTES_A_PIXEL, MOST_BYTES, SPARE_BYTES, document
from diffpolicy.edge.hardware.adapters.server_url import ServerUrl
from diffpolicy.edge.serving.http_calls import HttpCalls
from diffpolicy.edge.serving.load.plan import Ask
from diffpolicy.edge.serving.load.report import LoadReport, Outcome
from diffpolicy.edge.serving.upstream import UpstreamError

CONNECT_S = 30.0
"""Longest wait for a connection: a burst of all requests at once is a burst of connections."""
PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF")
"""What PNG, JPEG and WebP begin with. Whole pictures are not decoded: that would keep the next requests waiting."""


async def send(
    url: str,
    asks: Sequence[Ask],
    *,
    key: str | None = None,
    timeout_s: float = 3600.0,
    scale: float = 1.0,
    at_once: int | None = None,
    within_s: float | None = None,
    done: Callable[[Outcome], None] | None = None,
    transport: Any = None,
) -> LoadReport:
    """Sends a load and waits for all answers.

    A request is sent at its own time and its delay counts from there, so that a slow service is not asked less often
    for being slow. There are as many connections as requests. An answer without the pictures that were asked for, or
    one longer than they can be, has failed, however fast it was.

    Args:
        url: of a service of OpenAI's Images API. asks: what is asked when, in order of time. key: of the API.
        timeout_s: of each request, from when it is sent.
        scale: of time: arrivals come so much closer together, and delays are divided by it.
        at_once: so many requests are kept under way instead, each sent when another has ended (a closed loop); their
            times are not read. within_s: see `LoadReport`.
        done: takes each outcome as it comes. transport: in place of the network, in tests.

    Returns:
        What came of it; seconds are divided by `scale`.

    Raises:
        InputError: the address is none, or httpx is not installed.

    Example:
        >>> import asyncio, httpx
        >>> picture = {"data": [{"b64_json": "iVBORw0KGgo="}]}
        >>> transport = httpx.MockTransport(lambda request: httpx.Response(200, json=picture))
        >>> asyncio.run(send("http://127.0.0.1:8000", plan(5), transport=transport)).row()["ok"]
        5
    """
    address = ServerUrl.parse(url)
    calls = HttpCalls.to(address, key, max(len(asks), 1), transport=transport, connect_s=CONNECT_S)
    outcomes: list[Outcome | None] = [None] * len(asks)
    gate = None if at_once is None else asyncio.Semaphore(at_once)
    ends = [0.0]

    async def one(place: int) -> None:
        ask = asks[place]
        if gate is None:
            due = begun + ask.at_s * scale
            await asyncio.sleep(due - time.perf_counter())
        else:
            await gate.acquire()
            due = time.perf_counter()
        late = time.perf_counter() - due
        try:
            error = await _ask(calls, address.endpoint, ask, timeout_s)
        finally:
            if gate is not None:
                gate.release()
        ended = time.perf_counter()
        ends[0] = max(ends[0], ended)
        outcome = outcomes[place] = Outcome(ask, (ended - due) / scale, late / scale, error)
        if done is not None:
            done(outcome)

    begun = time.perf_counter()
    try:
        await asyncio.gather(*(one(place) for place in range(len(asks))))
    finally:
        await calls.aclose()
    first = begun if gate is not None or not asks else begun + asks[0].at_s * scale
    return LoadReport([x for x in outcomes if x is not None], (ends[0] - first) / scale, within_s)


async def _ask(calls: HttpCalls, endpoint: str, ask: Ask, timeout_s: float) -> str:
    """Sends one request. Returns: what went wrong, "" for nothing."""
    pixels = ask.images * (ask.width or 0) * (ask.height or 0)
    most = min(MOST_BYTES, SPARE_BYTES + BYTES_A_PIXEL * pixels) if pixels else MOST_BYTES
    try:
        answer = await calls.fetch("POST", endpoint, timeout_s=timeout_s, most_bytes=most, json=ask.body())
    except UpstreamError as error:
        return "time-out" if error.late else "dropped" if error.reached else "no connection"
    if answer.status != 200:
        return str(answer.status)
    told = document(answer.body)
    images = told.get("data") if isinstance(told, dict) else None
    if not isinstance(images, list) or len(images) != ask.images:
        return "no images"
    return "" if all(map(_is_picture, images)) else "no images"


def _is_picture(entry: Any) -> bool:
    """Whether an entry of an answer's `data` holds a picture, by its first bytes, or tells where one is."""
    if not isinstance(entry, dict):
        return False
    text = entry.get("b64_json")
    if not isinstance(text, str) or not text:
        return bool(entry.get("url")) and isinstance(entry["url"], str)
    try:
        return base64.b64decode(text[:16], validate=True).startswith(PICTURES)
    except ValueError:
        return False
