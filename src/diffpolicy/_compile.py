"""`compile`: loops of numbers as machine code (numba, extra `fleet`)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from types import CodeType
from typing import Any, TypeVar

import numpy as np
from numba import njit
from numba.extending import is_jitted

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compile(function: _Function) -> _Function:  # noqa: A001
    """Compiles without reordering any sum, and keeps the machine code on disk where there is a folder for it."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    # numba looks for changes in a function's own file alone, and would find yesterday's code of what it calls elsewhere
    function.__qualname__ += "_" + made_of(function)[:12]
    try:
        return njit(cache=True, **options)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # neither the package's folder nor the user's cache can be written to
        return njit(**options)(function)  # type: ignore[no-any-return]


def made_of(function: Any) -> str:
    """A digest of a function's code, and of all constants and compiled functions that it names, wherever they stand."""
    code: CodeType = function.__code__
    parts = [code.co_code.hex(), *(x.co_code.hex() if isinstance(x, CodeType) else repr(x) for x in code.co_consts)]
    for name in code.co_names:
        value: Any = function.__globals__.get(name)
        if is_jitted(value):
            parts.append(value.py_func.__qualname__)
        elif isinstance(value, np.ndarray):
            parts.append(value.tobytes().hex())
        elif isinstance(value, int | float | tuple):
            parts.append(repr(value))
        elif isinstance(value, type):
            parts.append(repr(getattr(value, "_fields", ())))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
