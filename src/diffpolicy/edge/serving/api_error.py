"""`ApiError`: a refusal or failure in the shape that clients of OpenAI's API read."""

from __future__ import annotations

import math
from typing import Any

KINDS = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
"""OpenAI's word for a status; of others `server_error`."""


class ApiError(Exception):
    """What a client is answered instead of an image.

    Args:
        status: of HTTP. message: one sentence that names the parameter and the value, never a prompt.
        param: name of the parameter that was wrong. code: a word for programs.
        retry_after_s: when asking again may help, seconds.
        again: whether the client may ask again by itself; None leaves it to the status. The official client repeats
            409, 429 and all of 5xx unless it is told not to.

    Example:
        >>> error = ApiError(429, "the queue is full (1000 requests)", code="queue_full", retry_after_s=2.2)
        >>> error.body()["error"]["type"], error.headers()
        ('rate_limit_error', {'retry-after': '3'})
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
        again: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after_s, self.again = retry_after_s, again

    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        kind = KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Headers that tell when, and whether, to ask again."""
        told = {}
        if self.retry_after_s is not None:
            told["retry-after"] = str(max(math.ceil(self.retry_after_s), 1))
        if self.again is not None:
            told["x-should-retry"] = str(self.again).lower()
        return told
