"""Failures as OpenAI's clients read them, whatever they come from: ours, the framework's, a worker's."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.upstream import Answer

PASSED_ON = ("content-type", "retry-after", "x-should-retry")
"""Headers of a worker that clients get."""
LONGEST = 2000
"""Characters of what a worker says of an error."""
DEEP = 8
"""Levels of lists and objects in which that is looked for."""


def error_response(error: ApiError) -> Response:
    """The answer instead of an image. Args: error: what to say."""
    headers = error.headers()
    if error.status == 413:
        headers["connection"] = "close"  # nobody reads the rest of that body
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(error.body(), error.status, headers)


def answer_errors(app: FastAPI) -> None:
    """Gives whatever an app refuses OpenAI's shape. Args: app: of the service, or of a worker."""

    @app.exception_handler(HTTPException)
    async def of_framework(request: Request, error: HTTPException) -> Response:
        return error_response(of_http(error.status_code, error.detail))

    @app.exception_handler(RequestValidationError)
    async def of_validation(request: Request, error: RequestValidationError) -> Response:
        first: Any = next(iter(error.errors()), {})
        param = str(first.get("loc", ["request"])[-1])
        return error_response(ApiError(400, f"{param}: {first.get('msg')}", param=param, code="invalid_value"))

    @app.exception_handler(ApiError)
    async def of_ours(request: Request, error: ApiError) -> Response:
        return error_response(error)


def of_http(status: int, detail: object) -> ApiError:
    """An error of the framework's, such as a path that does not exist.

    Args:
        status: of HTTP. detail: what the framework says; it knows no prompt.
    """
    words = {404: "there is no such path", 405: "this path does not take that method"}
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "invalid_request")
    return ApiError(status, words.get(status, str(detail)), code=code)


def answer_response(answer: Answer) -> Response:
    """A worker's answer as it goes to the client; of its errors those get OpenAI's shape that have another.

    Args:
        answer: of whatever status.
    """
    headers = {name: answer.headers[name] for name in PASSED_ON if name in answer.headers}
    if answer.status < 400:
        return Response(answer.body, answer.status, headers)
    headers.pop("content-type", None)
    status = 400 if answer.status == 422 else answer.status
    return JSONResponse(error_body(answer), status, headers)


def error_body(answer: Answer) -> dict[str, Any]:
    """What a worker's error says, in OpenAI's shape.

    Args:
        answer: with a status of at least 400.

    Example:
        >>> error_body(Answer(422, {}, b'{"detail": [{"loc": ["body", "size"], "msg": "too large"}]}'))["error"]
        {'message': 'size: too large', 'type': 'invalid_request_error', 'param': None, 'code': 'of_worker'}
    """
    try:
        said: Any = json.loads(answer.body)
    except (ValueError, RecursionError):
        said = None
    error = said.get("error") if isinstance(said, dict) else None
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return {"error": error}
    status = 400 if answer.status == 422 else answer.status
    message = _told(error if isinstance(error, str) else said) or f"the worker answered {answer.status}"
    return ApiError(status, message[:LONGEST], code="of_worker").body()


def _told(said: Any, deep: int = DEEP) -> str:
    """What other servers say of an error: a text, FastAPI's list of details, or a field that holds one of them."""
    if isinstance(said, str):
        return said
    if deep == 0:
        return ""
    if isinstance(said, list):
        return "; ".join(filter(None, (_told(part, deep - 1) for part in said[:8])))
    if not isinstance(said, dict):
        return ""
    if isinstance(said.get("msg"), str):
        where = said.get("loc")
        names = [str(part) for part in where[1:]] if isinstance(where, list) else []
        return ": ".join([".".join(names), said["msg"]] if names else [said["msg"]])
    return next((text for key in ("detail", "message") if (text := _told(said.get(key), deep - 1))), "")
