"""`ApiKeys`: who may use the API, and by which name fair share knows them."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.errors import InputError

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
SHORTEST, LONGEST = 16, 4096
"""Characters of a token."""
MOST = 1000
"""Tokens of a file."""
ADMIN = "admin"
"""The name whose token alone sees what all clients do, where there is one."""
SALT = secrets.token_bytes(16)
"""Of the names of clients whose token nobody has named: they cannot be looked up, and change with each start."""


class Keys(Protocol):
    """Who may use the API, as it is asked for each request: `ApiKeys`, or those that a file holds by now."""

    @property
    def needed(self) -> bool:
        """Whether one must be shown."""

    def client(self, authorization: str | None) -> str:
        """See `ApiKeys`."""

    def admit_to_all(self, authorization: str | None) -> None:
        """See `ApiKeys`."""


@dataclass(frozen=True)
class ApiKeys:
    """Tokens that are accepted, by the names of their clients.

    Args:
        tokens: token -> name; "" for one without a name. Never printed.

    Example:
        >>> keys = ApiKeys.parse("shop=0123456789abcdef", "keys")
        >>> keys.client("Bearer 0123456789abcdef")
        'shop'
    """

    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def needed(self) -> bool:
        """Whether one must be shown."""
        return bool(self.tokens)

    @property
    def has_admin(self) -> bool:
        """Whether one is named `admin`."""
        return ADMIN in self.tokens.values()

    def client(self, authorization: str | None) -> str:
        """The name of who asks; of a token that has none a salted hash of it, and "" without a token.

        Every token is compared, each in constant time, so that the time tells nothing of how much was right.

        Args:
            authorization: the header.

        Raises:
            ApiError: with status 401, when a token is needed and this is none.
        """
        scheme, _, sent = (authorization or "").partition(" ")
        token = sent.strip().encode("utf-8", "replace") if scheme.lower() == "bearer" else b""
        found = None
        for known, name in self.tokens.items():
            if secrets.compare_digest(known.encode(), token):
                found = name
        if self.needed and found is None:
            what = "is not one of those that are accepted" if token else "is missing: Authorization: Bearer TOKEN"
            raise ApiError(401, f"the API key {what}", code="invalid_api_key", again=False)
        return found or (f"key-{hmac.digest(SALT, token, 'sha256').hex()[:12]}" if token else "")

    def admit_to_all(self, authorization: str | None) -> None:
        """Lets in who may see what all clients do: the token named `admin`, or any where none has that name.

        Args:
            authorization: the header.

        Raises:
            ApiError: with status 401 or 403.
        """
        name = self.client(authorization)
        if name != ADMIN and self.has_admin:
            raise ApiError(403, f"only the API key named {ADMIN} may see this", code="not_admin", again=False)

    @classmethod
    def parse(cls, text: str, where: str) -> ApiKeys:
        """Tokens, one a line, `name=token` or a token alone; empty lines and `#` comments are skipped.

        Args:
            text: of the file or variable. where: names it in a message, which shows no token.

        Raises:
            InputError: a line is no token, or there is none.
        """
        tokens: dict[str, str] = {}
        for number, line in enumerate(text.splitlines(), 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            name, equals, token = line.partition("=")
            # base64 ends in "=", after which no token stands
            named = bool(equals) and len(token.strip()) >= SHORTEST
            name, token = (name.strip(), token.strip()) if named else ("", line)
            at = f"{where}, line {number}"
            if named and NAME.fullmatch(name) is None:
                raise InputError(f"{at}: a client's name has 1 to 64 letters, digits, dots, dashes or underscores")
            if not SHORTEST <= len(token) <= LONGEST or re.fullmatch(r"[!-~]+", token) is None:
                raise InputError(f"{at}: a token has {SHORTEST} to {LONGEST} printable ASCII characters and no spaces")
            if token in tokens or (name and name in tokens.values()):
                raise InputError(f"{at} repeats a token or a name")
            tokens[token] = name
        if not tokens:
            raise InputError(f"{where} holds no token")
        if len(tokens) > MOST:
            raise InputError(f"{where} must hold at most {MOST} tokens, got {len(tokens)}")
        return cls(tokens)
