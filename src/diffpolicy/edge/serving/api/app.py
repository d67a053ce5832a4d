"""`make_app`: OpenAI's Images API over a service, as an ASGI app."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from functools import partial

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from diffpolicy._validate import show
from diffpolicy._version import __version__
from diffpolicy.edge.serving.api import schema
from diffpolicy.edge.serving.api.asking import ask, read_timeout_s
from diffpolicy.edge.serving.api.errors import answer_errors, answer_response
from diffpolicy.edge.serving.api.feed import Feed, plain
from diffpolicy.edge.serving.api.guard import Guard
from diffpolicy.edge.serving.api.metrics import KIND, Metrics
from diffpolicy.edge.serving.api.paced import Paced
from diffpolicy.edge.serving.api.page import PAGE, POLICY
from diffpolicy.edge.serving.api.routes import add_images
from diffpolicy.edge.serving.api.served import Served
from diffpolicy.edge.serving.api.settings import ApiSettings
from diffpolicy.edge.serving.api.stream import HeldStream, taking
from diffpolicy.edge.serving.api.waiting import until_answered
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.aside import Aside
from diffpolicy.edge.serving.events import Refused
from diffpolicy.edge.serving.room import Room


def make_app(service: Served, settings: ApiSettings | None = None, room: Room | None = None) -> FastAPI:
    """Makes the dispatcher's ASGI app, which listens to the service's events from now on.

    Args:
        service: which it stands before; whoever made it starts and stops it.
        settings: None: the defaults of `ApiSettings`.
        room: of what is held, where the service and its upstreams count what they hold there, too; its bound takes
            the place of `held_bytes`. None: one of that many bytes, in which bodies and answers to clients alone count.

    Returns:
        An ASGI app without documentation pages, which would load scripts from elsewhere; `/openapi.json` is there.

    Example:
        >>> app = make_app(Service([WorkerSpec("http://127.0.0.1:8001")], HttpUpstream, Held(), "shortest-first"))
        >>> [path for path in app.openapi()["paths"] if path.startswith("/v1/images")]
        ['/v1/images/generations', '/v1/images/edits']
    """
    own = settings or ApiSettings()
    app = FastAPI(
        title="diffpolicy serve",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    feed, metrics = Feed(), Metrics(service.snapshot, service.listeners)
    service.listeners += [feed, metrics]
    answer_errors(app)
    _images(app, service, own, Room(own.held_bytes) if room is None else room)
    app.add_middleware(Guard, hosts=own.hosts)
    _looks(app, service, own, feed, metrics)
    return app


def _images(app: FastAPI, service: Served, settings: ApiSettings, room: Room) -> None:
    """Adds the paths that give images."""

    def refused(number: str, error: ApiError) -> None:
        service.tell(Refused(number, time.monotonic(), error.status, error.code or ""))

    async def images(request: Request) -> Response:
        number: str = request.state.number
        with ExitStack() as stack:
            share = stack.enter_context(room.share())
            try:
                asked = await ask(request, number, settings, share)
            except ApiError as error:
                refused(number, error)
                raise
            if not asked.stream:
                answer = await until_answered(service.submit(asked), request.receive)
                share.add(len(answer.body))
                return Paced(answer_response(answer), settings.stall_s, stack.pop_all())
            pieces: asyncio.Queue[bytes] = asyncio.Queue()
            limit = read_timeout_s(request)
            held = HeldStream(
                pieces,
                comment_s=settings.comment_s if limit is None else min(settings.comment_s, limit / 2),
                stall_s=settings.stall_s,
                event=f"image_{'edit' if asked.files else 'generation'}.completed",
            )
            held.take(service.submit(asked, taking(pieces, share)), share, stack.pop_all())
            return held

    add_images(app, images, settings.limits)


def _looks(app: FastAPI, service: Served, settings: ApiSettings, feed: Feed, metrics: Metrics) -> None:
    """Adds what is looked at: models, health, metrics, the live page."""

    def admit(request: Request) -> None:
        settings.keys.client(request.headers.get("authorization"))

    def state() -> str:
        return "draining" if service.draining else "ready" if service.usable else "no-worker"

    @app.get("/v1/models", operation_id="models", responses=schema.looked(401, 403))
    async def models(request: Request) -> Response:
        admit(request)
        listed = [{"id": m, "object": "model", "created": 0, "owned_by": "diffpolicy"} for m in service.models()]
        return JSONResponse({"object": "list", "data": listed})

    @app.get("/v1/models/{model:path}", operation_id="model", responses=schema.looked(400, 401, 403, 404))
    async def of_model(model: str, request: Request) -> Response:
        admit(request)
        if model not in service.models():
            raise ApiError(404, f"no worker serves model {show(model)}", param="model", code="model_not_found")
        return JSONResponse({"id": model, "object": "model", "created": 0, "owned_by": "diffpolicy"})

    @app.get("/live", operation_id="live", responses=schema.looked(403))
    async def live() -> Response:
        return JSONResponse({"status": "live"})

    @app.get("/health", operation_id="health", responses=schema.looked(403, others="no request is taken now"))
    async def health() -> Response:
        told = state()
        return JSONResponse({"status": told}, 200 if told == "ready" else 503)

    @app.get(
        "/metrics",
        operation_id="metrics",
        response_class=Response,
        responses=schema.looked(401, 403, kind="text/plain"),
    )
    async def of_metrics(request: Request) -> Response:
        settings.keys.admit_to_all(request.headers.get("authorization"))
        aside = Aside("metrics")  # asyncio's own threads may all wait for names that do not resolve
        try:
            text = await asyncio.wrap_future(aside.submit(partial(metrics.text, service.snapshot())))
        finally:
            aside.close()
        return Response(text, media_type=KIND)

    @app.get("/snapshot", operation_id="snapshot", responses=schema.looked(401, 403))
    async def snapshot(request: Request) -> Response:
        settings.keys.admit_to_all(request.headers.get("authorization"))
        after = request.query_params.get("after", "0")
        since = int(after) if after.isdecimal() and len(after) < 16 else 0
        shown = {"state": state(), "snapshot": plain(service.snapshot()), "events": feed.since(since)}
        return JSONResponse({**shown, "last": feed.last, "about": settings.about, "version": __version__})

    @app.get("/", operation_id="page", include_in_schema=False)
    async def page() -> Response:
        return Response(PAGE, media_type="text/html", headers={"content-security-policy": POLICY})
