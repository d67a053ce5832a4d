"""`send`: asks a service for images, each when its time has come, whatever became of those before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from diffpolicy.edge.hardware.adapters.server_url import ServerUrl
from diffpolicy.edge.hardware.optional import need
from diffpolicy.edge.serving.load.plan import Ask
from diffpolicy.edge.serving.load.report import LoadReport, Outcome

CONNECT_S = 30.0


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
    for being slow. There are as many connections as requests.

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
        >>> picture = {"data": [{"b64_json": "aGk="}]}
        >>> transport = httpx.MockTransport(lambda request: httpx.Response(200, json=picture))
        >>> asyncio.run(send("http://127.0.0.1:8000", plan(5), transport=transport)).row()["ok"]
        5
    """
    httpx = need("httpx", "serving")
    endpoint = ServerUrl.parse(url).endpoint
    query = ServerUrl.parse(url).query
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    client = httpx.AsyncClient(
        limits=unlimited,
        timeout=httpx.Timeout(None, connect=CONNECT_S),
        trust_env=False,
        headers=headers,
        transport=transport,
    )
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
            error = await _ask(client, httpx, f"{endpoint}?{query}" if query else endpoint, ask, timeout_s)
        finally:
            if gate is not None:
                gate.release()
        ended = time.perf_counter()
        ends[0] = max(ends[0], ended)
        outcome = outcomes[place] = Outcome(ask, (ended - due) / scale, late / scale, error)
        if done is not None:
            done(outcome)

    begun = time.perf_counter()
    async with client:
        await asyncio.gather(*(one(place) for place in range(len(asks))))
    first = begun if gate is not None or not asks else begun + asks[0].at_s * scale
    return LoadReport([x for x in outcomes if x is not None], (ends[0] - first) / scale, within_s)


async def _ask(client: Any, httpx: Any, endpoint: str, ask: Ask, timeout_s: float) -> str:
    """Sends one request. Returns: what went wrong, "" for nothing."""
    try:
        answer = await asyncio.wait_for(client.post(endpoint, json=ask.body()), timeout_s)
    except (TimeoutError, asyncio.TimeoutError):
        return "time-out"
    except httpx.ConnectError:
        return "no connection"
    except (httpx.HTTPError, httpx.StreamError):
        return "dropped"
    if answer.status_code != 200:
        return str(answer.status_code)
    try:
        images = answer.json()["data"]
        whole = len(images) == ask.images and all(x.get("b64_json") or x.get("url") for x in images)
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    return "" if whole else "no images"
