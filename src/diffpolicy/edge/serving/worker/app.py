"""`make_worker_app`: OpenAI's Images API over one engine, as an ASGI app."""

from __future__ import annotations

import asyncio
import re
from contextlib import ExitStack
from dataclasses import asdict

from fastapi import FastAPI, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diffpolicy._version import __version__
from diffpolicy.edge.serving import headers
from diffpolicy.edge.serving.api import schema
from diffpolicy.edge.serving.api.asking import ask
from diffpolicy.edge.serving.api.errors import answer_errors
from diffpolicy.edge.serving.api.guard import Guard
from diffpolicy.edge.serving.api.paced import Paced
from diffpolicy.edge.serving.api.routes import add_images
from diffpolicy.edge.serving.api.settings import ApiSettings
from diffpolicy.edge.serving.api.stream import HeldStream, taking
from diffpolicy.edge.serving.api.waiting import until_any
from diffpolicy.edge.serving.room import Room
from diffpolicy.edge.serving.worker.desk import Desk
from diffpolicy.edge.serving.worker.head_first import HeadFirst
from diffpolicy.edge.serving.worker.metrics import KIND, WorkerMetrics
from diffpolicy.edge.serving.worker.work import head_of

NUMBER = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def make_worker_app(desk: Desk, settings: ApiSettings | None = None) -> FastAPI:
    """Makes the worker's ASGI app; whoever made the desk starts and stops it.

    Args:
        desk: takes the requests. settings: bounds and keys; None: the defaults of `ApiSettings`.

    Returns:
        An ASGI app without documentation pages, which would load scripts from elsewhere; `/openapi.json` is there.

    Example:
        >>> app = make_worker_app(Desk(make_engine("emulate:tiny-cpu")))
        >>> sorted(app.openapi()["paths"])
        ['/health', '/live', '/metrics', '/v1/images/edits', '/v1/images/generations', '/v1/models']
    """
    own = settings or ApiSettings()
    app = FastAPI(title="diffpolicy worker", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False)
    answer_errors(app)
    _images(app, desk, own)
    app.add_middleware(Guard, hosts=own.hosts)
    app.add_middleware(Stamp, desk=desk)
    _looks(app, desk, own)
    return app


class Stamp:
    """Around the whole app: every answer says how the worker stands, and bears the number that was sent.

    Args:
        app: what it stands around. desk: of the worker.
    """

    def __init__(self, app: ASGIApp, desk: Desk) -> None:
        self.app, self.desk = app, desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        number = sent_number(Headers(scope=scope))

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                own, now = MutableHeaders(raw=message.setdefault("headers", [])), self.desk.standing()
                own[headers.BOOT] = now.boot
                own[headers.RUNNING] = str(now.running + now.waiting)
                if now.remaining_s is not None:
                    own[headers.REMAINING_S] = f"{now.remaining_s:.6f}"
                if number is not None:
                    own[headers.REQUEST_ID] = number
            await send(message)

        await self.app(scope, receive, told)


def sent_number(sent: Headers) -> str | None:
    """The name that the client gave its request, to the letter; None where it gave none. Args: sent: its headers."""
    number = sent.get(headers.REQUEST_ID)
    return number if number is not None and NUMBER.fullmatch(number) else None


def takes_head_first(request: Request) -> bool:
    """Whether the client asks for a head without a length and a status that cannot be taken back, as our dispatcher.

    HTTP/1.0 has no chunks, so an answer that breaks off would look whole there. Args: request: with its headers.
    """
    return headers.HEAD_FIRST in request.headers and request.scope["http_version"] not in ("0.9", "1.0")


def _images(app: FastAPI, desk: Desk, settings: ApiSettings) -> None:
    """Adds the paths that give images."""
    room = Room(settings.held_bytes)

    async def images(request: Request) -> Response:
        number = sent_number(request.headers) or request.state.number
        with ExitStack() as stack:
            share = stack.enter_context(room.share())
            asked = await ask(request, number, settings, share)
            if not asked.stream:
                claim = desk.submit(asked)
                made, done = claim.ends
                await until_any(claim, request.receive, made, done)
                if not done.done() and takes_head_first(request):
                    return HeadFirst(claim, head_of(made.result()), settings.stall_s, share, stack.pop_all())
                answer = await claim.answer()
                share.add(len(answer.body))
                response = Response(answer.body, answer.status, dict(answer.headers))
                return Paced(response, settings.stall_s, stack.pop_all())
            pieces: asyncio.Queue[bytes] = asyncio.Queue()
            event = f"image_{'edit' if asked.files else 'generation'}.completed"
            held = HeldStream(pieces, comment_s=settings.comment_s, stall_s=settings.stall_s, event=event)
            held.take(desk.submit(asked, taking(pieces, share)), share, stack.pop_all())
            return held

    add_images(app, images, settings.limits)


def _looks(app: FastAPI, desk: Desk, settings: ApiSettings) -> None:
    """Adds what is looked at: models, health, metrics."""
    metrics = WorkerMetrics(desk)

    def admit(request: Request) -> None:
        settings.keys.client(request.headers.get("authorization"))

    @app.get("/live", operation_id="live", responses=schema.looked(403))
    async def live() -> Response:
        return JSONResponse({"status": "live"})

    @app.get("/health", operation_id="health", responses=schema.looked(403, others="it loads or drains"))
    async def health() -> Response:
        now = desk.standing()
        return JSONResponse(asdict(now), 200 if now.status == "ready" else 503)

    @app.get("/v1/models", operation_id="models", responses=schema.looked(401, 403))
    async def models(request: Request) -> Response:
        admit(request)
        listed = [{"id": m, "object": "model", "created": 0, "owned_by": "diffpolicy"} for m in desk.standing().models]
        return JSONResponse({"object": "list", "data": listed})

    @app.get(
        "/metrics",
        operation_id="metrics",
        response_class=Response,
        responses=schema.looked(401, 403, kind="text/plain"),
    )
    async def of_metrics(request: Request) -> Response:
        admit(request)
        return Response(metrics.text(), media_type=KIND)
