"""Pipelines from a checkpoint: a local folder, or a hub's id that may have been downloaded."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffpolicy._read import show_path
from diffpolicy._validate import read_json, show
from diffpolicy.edge.hardware.optional import need
from diffpolicy.errors import InputError

if TYPE_CHECKING:
    import torch

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
T5 = "text_encoder_3"
HEADER = 100 * 2**20
"""Bytes of a safetensors file's header, at most: the bound of the format itself."""


def check_source(source: str) -> None:
    """Refuses what is neither a folder with a pipeline nor could be a hub's id."""
    path = Path(source)
    if source and path.is_dir():
        if not (path / "model_index.json").is_file():
            raise InputError(f"model folder {source} has no model_index.json, so it is not a diffusers pipeline")
    elif source and path.exists():
        raise InputError(f"model {source} is a file; a folder that diffusers wrote is needed")
    elif not HUB_ID.fullmatch(source):
        raise InputError(
            f"model {show(source)} is neither a built-in architecture, nor a folder, nor a hub id (OWNER/NAME)"
        )


def count_checkpoint(source: str) -> dict[str, int] | None:
    """Parameters by component, from the headers of a folder's safetensors files; None for other files."""
    counts: dict[str, int] = {}
    for folder in sorted(Path(source).iterdir()) if Path(source).is_dir() else []:
        files = [file for file in folder.glob("*.safetensors") if file.name.count(".") == 1] if folder.is_dir() else []
        if files:
            counts[folder.name] = sum(_header_count(file) for file in files)
    return counts or None


def load_pipeline(source: str, dtype: torch.dtype, *, t5: bool) -> Any:
    """The pipeline in host memory.

    Args:
        source: a folder or a hub's id. t5: keep SD3's third text encoder.

    Raises:
        InputError: it cannot be found, read or downloaded, or has no T5 that was asked for.
    """
    from torch import OutOfMemoryError

    diffusers = need("diffusers")
    local = Path(source).is_dir()
    try:
        if local:
            index = read_json(Path(source) / "model_index.json", "model index")
        else:
            index = diffusers.DiffusionPipeline.load_config(source, local_files_only=_offline())
        kept = isinstance(index, dict) and index.get(T5, [None, None])[1] is not None
        if t5 and not kept:
            raise InputError(f"model {source} has no T5 text encoder")
        drop = {T5: None, "tokenizer_3": None} if T5 in index and not t5 else {}
        return diffusers.DiffusionPipeline.from_pretrained(
            source, torch_dtype=dtype, local_files_only=local or _offline(), **drop
        )
    except InputError:
        raise
    except OutOfMemoryError:
        raise InputError(f"model {source} does not fit into memory") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"model {source} cannot be loaded: {reason[:300]}") from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No advice of diffusers and transformers on stderr, which is for the command's own words."""
    logs = [need(f"{name}.utils").logging for name in ("transformers", "diffusers")]
    before = [log.get_verbosity() for log in logs]
    for log in logs:
        log.set_verbosity_error()
    bars = [log.disable_progress_bar for log in logs], [log.enable_progress_bar for log in logs]
    for off in bars[0]:
        off()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, before, strict=True):
            log.set_verbosity(level)
        for on in bars[1]:
            on()


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _header_count(file: Path) -> int:
    """Numbers in a safetensors file: 8 bytes of length, then JSON with shapes."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > HEADER:
                raise InputError(
                    f"weights file {show_path(file)} has a header of {length} bytes, at most {HEADER} are read"
                )
            header = json.loads(stream.read(length))
        return sum(_count(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, struct.error, RecursionError):
        raise InputError(f"weights file {show_path(file)} cannot be read") from None


def _count(shape: Any) -> int:
    """Numbers in a tensor of this shape. Raises ValueError where it is none."""
    if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
        raise ValueError(f"no shape: {show(shape)}")
    return math.prod(shape)
