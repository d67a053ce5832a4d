"""`Guard`: around the whole app, so that every answer is in OpenAI's shape, bears a number, and tells no secret."""

from __future__ import annotations

import logging
import traceback
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diffpolicy.edge.serving import headers
from diffpolicy.edge.serving.api.asking import new_number
from diffpolicy.edge.serving.api.errors import error_response
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.heads import MOST_HEAD, too_long

logger = logging.getLogger("diffpolicy.serving")
ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""Headers of every answer, unless it has its own: what a worker sends is not to become a page of this address."""


NUMBER = headers.REQUEST_ID.encode()


class Guard:
    """Names each request, refuses odd heads and foreign pages, and answers 500 where anything is raised.

    Args:
        app: what it stands around. hosts: see `ApiSettings`.
    """

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...] | None) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent = Headers(scope=scope)
        number = new_number(sent.get(headers.REQUEST_ID))
        scope.setdefault("state", {})["number"] = number
        begun = False

        async def told(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                own = [pair for pair in message.get("headers", ()) if pair[0] != NUMBER]
                names = {name for name, _ in own}
                own += [(NUMBER, number.encode()), *(pair for pair in ALWAYS if pair[0] not in names)]
                message["headers"] = own
            await send(message)

        try:
            odd = odd_head(scope, sent)
            refused = odd or self.foreign(sent)
            if refused is not None:
                response = error_response(refused)
                if odd is not None:
                    response.headers["connection"] = "close"  # what follows is not to be trusted either
                await response(scope, receive, told)
                return
            await self.app(scope, receive, told)
        except Exception as error:
            # where it was raised, and not what it says, which may hold a prompt
            at = " <- ".join(f"{f.filename}:{f.lineno}" for f in reversed(traceback.extract_tb(error.__traceback__)))
            logger.error("request %s failed: %s at %s", number, type(error).__name__, at)
            if not begun:  # otherwise the server closes the connection, and the client sees that it lacks the end
                message = f"the dispatcher failed; its log says more about request {number}"
                await error_response(ApiError(500, message, code="internal_error", again=False))(scope, receive, told)

    def foreign(self, sent: Headers) -> ApiError | None:
        """Why a request is not taken that a page of another site sends, or that asks for another host.

        Args:
            sent: its headers.
        """
        if self.hosts is None:
            return None
        host = _split(f"//{sent.get('host', '')}")
        if host is None or host.hostname not in self.hosts:
            message = "without an API key only requests to a name of this machine are answered; see --token-file"
            return ApiError(403, message, code="foreign_host", again=False)
        origin = sent.get("origin")
        asks = None if origin is None else _split(origin)
        if origin is not None and (asks is None or asks.netloc != sent.get("host")):
            return ApiError(403, "pages of other sites may not ask without an API key", code="foreign_origin")
        return None


def odd_head(scope: Scope, sent: Headers) -> ApiError | None:
    """Why a request is refused by its head alone, whoever sends it.

    Args:
        scope: of the request. sent: its headers.
    """
    size = len(scope.get("raw_path") or b"") + len(scope.get("query_string", b""))
    size += sum(len(name) + len(value) + len(b": \r\n") for name, value in sent.raw)
    if size > MOST_HEAD:
        return too_long()
    hosts = len(sent.getlist("host"))
    # of two a proxy before us may go by the one, and we by the other; HTTP/1.0 had none (RFC 9112, section 3.2)
    if hosts > 1 or (not hosts and scope.get("http_version") == "1.1"):
        message = f"a request has one header Host, this one has {hosts or 'none'}"
        return ApiError(400, message, code="invalid_host", again=False)
    return None


def _split(address: str) -> SplitResult | None:
    """An address in its parts; None for what is none, such as `http://[`, and so is nobody's that is known here."""
    try:
        return urlsplit(address)
    except ValueError:
        return None
