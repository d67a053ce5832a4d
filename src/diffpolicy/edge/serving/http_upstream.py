"""`HttpUpstream`: a worker that speaks OpenAI's Images API, ours or a foreign one."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from diffpolicy.edge.hardware.adapters.api_key import read_api_key
from diffpolicy.edge.hardware.adapters.server_url import VERSION, ServerUrl
from diffpolicy.edge.serving import headers, health_report
from diffpolicy.edge.serving.http_calls import HttpCalls
from diffpolicy.edge.serving.image_request import EDITS, ImageRequest
from diffpolicy.edge.serving.image_stream import ImageStream
from diffpolicy.edge.serving.limits import Limits
from diffpolicy.edge.serving.room import Room
from diffpolicy.edge.serving.told_images import images_of
from diffpolicy.edge.serving.turns import others_first
from diffpolicy.edge.serving.upstream import Answer, Chunk, Health, UpstreamError
from diffpolicy.edge.serving.worker_spec import WorkerSpec

HEALTH_S = 5.0
"""Longest time in which a worker must say how it is."""
SPARE_CONNECTIONS = 8
"""Beside one for each request, so that its health can always be asked for."""
ABSENT = (401, 403, 404, 405)
"""What a worker answers for what it has not."""
ABSENT_S = 60.0
"""After which a foreign worker is asked again for what it had not: a proxy before it may have said so."""
EVENTS = "text/event-stream"
READ_WHOLE = 2**18
"""Bytes up to which an answer is read as JSON; to read more would keep the event loop, and all other requests, waiting
for milliseconds."""


class HttpUpstream:
    """A worker behind a URL: `diffpolicy worker`, vLLM-Omni, SGLang, or whatever speaks OpenAI's Images API.

    Images come back as base64 unless the client asked for another format that is no URL: a URL resolves only on the
    worker that made it. Nothing is sent twice, and redirects are not followed.

    Args:
        spec: where it is. limits: the longest answer, and how many requests there may be.
        room: where the bytes of answers count while they come.
        transport: takes the place of the network, in tests; one of httpx.

    Raises:
        InputError: the environment variable of its key is not set, its certificates cannot be read, or httpx is not
            installed.

    Example:
        >>> import asyncio, httpx
        >>> transport = httpx.MockTransport(lambda request: httpx.Response(200, json={"data": [{"b64_json": "AA=="}]}))
        >>> worker = HttpUpstream(WorkerSpec("http://127.0.0.1:8001"), transport=transport)
        >>> request = ImageRequest.parse({"prompt": "a cat"}, "r1")
        >>> asyncio.run(worker.call(request, timeout_s=60)).status
        200
    """

    def __init__(
        self, spec: WorkerSpec, limits: Limits | None = None, room: Room | None = None, *, transport: Any = None
    ) -> None:
        self.spec, self._limits, self._room = spec, limits or Limits(), Room() if room is None else room
        address = ServerUrl.parse(spec.url)
        key = None if spec.api_key_env is None else read_api_key(spec.api_key_env)
        self._base = re.sub("/images/generations$", "", address.endpoint, flags=re.IGNORECASE)
        self._root = VERSION.sub("", self._base)
        self._absent: dict[str, float] = {}
        """Until when it is not asked again."""
        self._models: tuple[str, ...] | None = None
        connections = self._limits.queue + (spec.slots or 1) + SPARE_CONNECTIONS
        self._calls = HttpCalls.to(address, key, connections, transport=transport, room=self._room)

    async def call(self, request: ImageRequest, *, timeout_s: float, chunk: Chunk | None = None) -> Answer:
        """Sends a request and waits for its answer; see `Upstream`.

        Args:
            request: what is asked for. timeout_s: until the last byte. chunk: where pieces of a stream go.

        Returns:
            The answer, of status 200 or of one above 399 but 401 and 403.

        Raises:
            UpstreamError: there is no answer, it is too long or no JSON, its status belongs to no images, or the worker
                does not take our key.
        """
        return await self.call_telling(request, timeout_s=timeout_s, chunk=chunk, done=lambda: None)

    async def call_telling(
        self, request: ImageRequest, *, timeout_s: float, done: Callable[[], None], chunk: Chunk | None = None
    ) -> Answer:
        """As `call`; a worker whose answer begins by the seconds that it worked is done with the request then.

        Args:
            request, timeout_s, chunk: of `call`. done: see `TellsEnd`.

        Returns:
            See `call`.

        Raises:
            UpstreamError: see `call`.
        """

        async def begun(status: int, told: Mapping[str, str]) -> None:
            if status == 200 and headers.SERVICE_S in told:
                done()
                await others_first()  # the pictures are read, and looked at, while the worker has the next

        with self._room.share() as share:
            events = None if chunk is None else ImageStream(chunk, share)
            try:
                answer = await self._calls.fetch(
                    "POST",
                    self._base + ("/images/edits" if request.path == EDITS else "/images/generations"),
                    timeout_s=timeout_s,
                    most_bytes=self._limits.response,
                    chunk=None if events is None else events.take,
                    begun=begun,
                    headers=_headers(request, timeout_s),
                    **_content(request),
                )
            except UpstreamError:
                if events is None or events.failed or events.images < request.images:
                    raise
                return Answer(200, {"content-type": EVENTS})  # all of it is there, however the connection ended
            streamed = answer.status == 200 and not answer.body and _kind(answer.headers) == EVENTS
            if events is not None and streamed:
                await events.end()
        _check(answer, streamed=streamed and events is not None)
        return replace(answer, service_s=health_report.seconds(answer.headers.get(headers.SERVICE_S)))

    async def health(self) -> Health:
        """What it says of itself; of a foreign worker whether it answers, its models, and vLLM-Omni's counts.

        Returns:
            What is known.

        Raises:
            UpstreamError: nothing.
        """
        answer = await self._get(self._root + "/health", fresh=True)  # what machine answers is asked, too
        own = health_report.own_health(answer)
        if own is not None:
            return own
        # some servers have no such path: they are well if they answer at all
        usable = answer.status in (200, 204, 404, 405)
        if not usable:
            return Health(False, why=f"its /health answers with status {answer.status}")
        listed, measured = await asyncio.gather(
            self._asked(self._base + "/models"), self._asked(self._root + "/metrics")
        )
        running, waiting = health_report.counts(measured)
        if listed.status == 200 or listed.status in ABSENT:  # otherwise it serves what it did
            self._models = health_report.models(listed)
        return Health(True, models=self._models, running=running, waiting=waiting)

    async def aclose(self) -> None:
        """Ends its connections."""
        await self._calls.aclose()

    async def _get(self, url: str, *, fresh: bool = False) -> Answer:
        return await self._calls.fetch("GET", url, timeout_s=HEALTH_S, most_bytes=health_report.MOST_BYTES, fresh=fresh)

    async def _asked(self, url: str) -> Answer:
        """What a foreign worker need not have; it is not asked again for what it has not, for a while."""
        if time.monotonic() < self._absent.get(url, 0.0):
            return Answer(404)
        try:
            answer = await self._get(url)
        except UpstreamError:
            return Answer(500)
        if answer.status in ABSENT:
            self._absent[url] = time.monotonic() + ABSENT_S
        return answer


def _headers(request: ImageRequest, timeout_s: float) -> dict[str, str]:
    told = {
        headers.REQUEST_ID: request.number,
        headers.HEAD_FIRST: "1",
        "Accept": "text/event-stream, application/json" if request.stream else "application/json",
    }
    return told if math.isinf(timeout_s) else {**told, headers.DEADLINE_S: f"{timeout_s:.3f}"}


def _content(request: ImageRequest) -> dict[str, Any]:
    """The body as httpx takes it: JSON, or a form where there are files."""
    body = dict(request.body)
    if body.get("response_format") in (None, "url"):
        body["response_format"] = "b64_json"
    if body.get("size") in (None, "auto"):  # vLLM-Omni knows neither the word nor fields of width and height
        body.pop("size", None)
        if request.width is not None and request.height is not None:
            body["size"] = f"{request.width}x{request.height}"
    if not request.files:
        return {"json": body}
    fields = {name: _field(value) for name, value in body.items() if value is not None}
    return {"data": fields, "files": [(file.key, (file.name, file.content, file.kind)) for file in request.files]}


def _field(value: Any) -> str | list[str]:
    """A value of a form."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return value
    return json.dumps(value)


def _check(answer: Answer, *, streamed: bool) -> None:
    """Refuses what no client should get. Args: streamed: its events were looked at as they came."""
    if 300 <= answer.status < 400:
        raise UpstreamError(f"answers with status {answer.status}; redirects are not followed", reached=False)
    if answer.status in (401, 403):
        raise UpstreamError(f"does not take our key (status {answer.status})", reached=False)
    if 200 < answer.status < 300:  # an empty 204 at once would make it look like the fastest of all
        raise UpstreamError(f"answers with status {answer.status}; images come with 200", reached=True)
    if answer.status != 200 or streamed:
        return
    if _kind(answer.headers) == EVENTS:
        raise UpstreamError("answers with a stream of events, which was not asked for", reached=True)
    if not _looks_like_images(answer.body):
        raise UpstreamError(
            "answers with status 200, but with no JSON object that has images in 'data'",
            reached=True,
            answered=_emptied(answer.body),
        )


def _kind(told: Mapping[str, str]) -> str:
    return told.get("content-type", "").partition(";")[0].strip().lower()


def _looks_like_images(body: bytes) -> bool:
    """Whether a body is a JSON object with an image in `data`; of a long one only its ends are looked at."""
    if len(body) <= READ_WHOLE:
        return bool(images_of(health_report.as_object(body)))
    return body[:64].lstrip()[:1] == b"{" and body[-64:].rstrip()[-1:] == b"}" and b'"data"' in body


def _emptied(body: bytes) -> bool:
    """Whether a body that holds no images has entries in `data` for them, as where a filter took them out."""
    listed = health_report.as_object(body).get("data") if len(body) <= READ_WHOLE else None
    return isinstance(listed, list) and bool(listed)
