"""The two paths of OpenAI's API that give images, as the dispatcher and a worker have them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from diffpolicy.edge.serving.api import schema
from diffpolicy.edge.serving.api.bodies import ClientGoneError
from diffpolicy.edge.serving.api.errors import error_response
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.image_request import EDITS, GENERATIONS
from diffpolicy.edge.serving.limits import Limits

GONE = 499
"""nginx's status for a client that left; nobody reads it."""


class Shortcut:
    """Answers the two paths before the framework does, whose routing takes longer than the policy.

    Args:
        app: what answers all other paths. images: answers these two.
    """

    def __init__(self, app: ASGIApp, images: Callable[[Request], Awaitable[Response]]) -> None:
        self.app, self.images = app, images

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in (GENERATIONS, EDITS):
            await self.app(scope, receive, send)
            return
        response = await self.images(Request(scope, receive, send))
        await response(scope, receive, send)


def add_images(app: FastAPI, images: Callable[[Request], Awaitable[Response]], limits: Limits) -> None:
    """Adds them, to what stands inside of all that is added later.

    Args:
        app: to which. images: answers both, or raises what their client is told. limits: that their description tells.
    """

    async def answer(request: Request) -> Response:
        try:
            return await images(request)
        except ApiError as error:
            return error_response(error)
        except ClientGoneError:
            return Response(status_code=GONE)

    app.add_middleware(Shortcut, images=answer)
    for path, name in ((GENERATIONS, "generate"), (EDITS, "edit")):
        app.add_api_route(
            path,
            answer,
            methods=["POST"],
            operation_id=name,
            name=name,
            response_class=JSONResponse,
            response_model=None,
            responses=schema.answers(),
            openapi_extra={"parameters": schema.sent_headers(), "requestBody": schema.body(limits, path == EDITS)},
        )
