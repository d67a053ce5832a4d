"""Packages of the extra `hardware`, imported when they are first needed."""

from __future__ import annotations

import importlib
import os
from typing import Any

from diffpolicy.errors import InputError

PACKAGES = ("diffusers", "transformers", "accelerate", "httpx", "pynvml", "tokenizers", "huggingface_hub", "PIL")


def need(module: str) -> Any:
    """A module of the extra.

    Raises:
        InputError: it is not installed.
    """
    # one warning for every fork would drown what the command says
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in PACKAGES:
            raise
        raise InputError("profiling needs the extra 'hardware': pip install -c constraints.txt '.[hardware]'") from None
