"""Packages of the extras `hardware` and `serving`, imported when they are first needed."""

from __future__ import annotations

import importlib
import os
from typing import Any

from diffpolicy.errors import InputError

SERVING = ("fastapi", "uvicorn", "prometheus_client", "multipart", "python_multipart", "pydantic", "starlette", "anyio")
PACKAGES = ("diffusers", "transformers", "accelerate", "httpx", "pynvml", "tokenizers", "huggingface_hub", "PIL")


def need(module: str, extra: str = "hardware") -> Any:
    """A module of an extra.

    Args:
        module: its name. extra: `hardware` or `serving`, as whose part it is needed.

    Raises:
        InputError: it is not installed.
    """
    # one warning for every fork would drown what the command says
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in (*PACKAGES, *SERVING):
            raise
        what = {"hardware": "profiling", "serving": "the service"}[extra]
        raise InputError(f"{what} needs the extra '{extra}': pip install -c constraints.txt '.[{extra}]'") from None
