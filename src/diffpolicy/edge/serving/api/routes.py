"""The two paths of OpenAI's API that give images, as the dispatcher and a worker have them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from diffpolicy.edge.serving.api import schema
from diffpolicy.edge.serving.image_request import EDITS, GENERATIONS
from diffpolicy.edge.serving.limits import Limits


def add_images(app: FastAPI, images: Callable[[Request], Awaitable[Response]], limits: Limits) -> None:
    """Adds them. Args: app: to which. images: answers both. limits: that their description tells."""
    for path, name in ((GENERATIONS, "generate"), (EDITS, "edit")):
        app.add_api_route(
            path,
            images,
            methods=["POST"],
            operation_id=name,
            name=name,
            response_class=JSONResponse,
            response_model=None,
            responses=schema.answers(),
            openapi_extra={"requestBody": schema.body(limits, path == EDITS)},
        )
