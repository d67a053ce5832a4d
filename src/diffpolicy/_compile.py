"""`compile`: loops of numbers as machine code (numba, extra `fleet`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compile(function: _Function) -> _Function:  # noqa: A001
    """Compiles without reordering any sum, and keeps the machine code on disk where there is a folder for it."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # neither the package's folder nor the user's cache can be written to
        return njit(**options)(function)  # type: ignore[no-any-return]
