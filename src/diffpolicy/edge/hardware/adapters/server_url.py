"""`ServerUrl`: where images are asked for, from what a user types, and the form of it that may be printed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, quote, urlsplit

from diffpolicy._validate import show
from diffpolicy.errors import InputError

PATH = "/v1/images/generations"
VERSION = re.compile(r"/v\d+[a-z0-9]*$", re.IGNORECASE)
"""What base addresses of OpenAI's API end in."""
SHORTEST_SECRET = 4
"""Shorter values of a query hide nothing, and would be found in every text."""


@dataclass(frozen=True)
class ServerUrl:
    """The address of a server of OpenAI's images API.

    Args:
        endpoint: where images are asked for, without the query. query: what stood after `?`, which may hold a key.
        shown: the endpoint as it may be printed. secrets: texts that may not be.
    """

    endpoint: str
    query: str
    shown: str
    secrets: tuple[str, ...]

    @classmethod
    def parse(cls, url: str) -> ServerUrl:
        """Reads an address: a server, a base that ends in a version such as `/v1`, or all of it.

        Raises:
            InputError: it is no address of a server; the message shows neither its query nor a user.

        Example:
            >>> ServerUrl.parse("http://127.0.0.1:8000/v1/?key=abc").endpoint
            'http://127.0.0.1:8000/v1/images/generations'
        """
        parts = _split(url)
        path = parts.path.rstrip("/")
        if not path.lower().endswith("/images/generations"):
            if path.lower().endswith("/images"):
                path += "/generations"
            else:
                path += PATH.removeprefix("/v1") if VERSION.search(path) else PATH
        endpoint = f"{parts.scheme}://{parts.netloc.lower()}{path}"
        values = {value for _, value in parse_qsl(parts.query)}
        values |= {part.partition("=")[2] for part in parts.query.split("&")}
        secrets = sorted({v for v in (parts.query, *values) if len(v) >= SHORTEST_SECRET}, key=len, reverse=True)
        query = quote(parts.query, safe="%/:?@!$&'()*+,;=[]|")
        return cls(endpoint, query, f"{endpoint}?..." if parts.query else endpoint, tuple(secrets))


def redact(url: object) -> str:
    """An address as a message shows it: no query, no fragment, no user."""
    if not isinstance(url, str):
        return show(url)
    text = re.sub(r"[?#].*", "?...", url, count=1, flags=re.DOTALL)
    return show(re.sub(r"^(\w+://)?[^/]*@", r"\1...@", text))


def _split(url: str) -> SplitResult:
    shown = redact(url)
    if not isinstance(url, str) or not re.match(r"https?://", url, re.IGNORECASE):
        raise InputError(f"url must begin with http:// or https://, got {shown}")
    if re.search(r"[\s\\]", url) or not url.isprintable():
        raise InputError(f"url must hold no spaces, line ends, backslashes or control characters, got {shown}")
    if "#" in url:
        raise InputError(f"url must hold no fragment, the part after #, since no server gets it; got {shown}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise InputError(f"url must name a host, and a port from 1 to 65535 if any, got {shown}") from None
    if "@" in parts.netloc:
        raise InputError(
            "url must hold no user name or password; name an environment variable that holds a key with --api-key-env,"
            " or with api_key_env in a workers file"
        )
    if not host or port == 0 or parts.netloc.endswith(":"):
        raise InputError(f"url must name a host, and a port from 1 to 65535 if any, got {shown}")
    return parts
