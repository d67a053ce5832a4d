"""`read_api_key`: a bearer token from the environment."""

from __future__ import annotations

import os
import re

from diffpolicy import _validate as check
from diffpolicy.errors import InputError


def read_api_key(name: str) -> str:
    """The key that an environment variable holds; no message shows it, nor a name that could be a key itself.

    Args:
        name: of the variable.

    Raises:
        InputError: it is not set, or holds what no header can.
    """
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", name):
        shown = "the variable that api_key_env names"
    else:
        shown = f"environment variable {check.show(name)}"
    token = os.environ.get(name) if name.isprintable() else None
    if not token:
        raise InputError(f"{shown}, which should hold the API key, is not set")
    if not re.fullmatch(r"[!-~]+", token):
        raise InputError(
            f"{shown} holds a space, a line end or another character that no HTTP header can, so it is not an API key"
        )
    return token
