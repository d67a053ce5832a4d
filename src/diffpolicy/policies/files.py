"""A policy on disk: `policy.safetensors` and `policy.json` in a folder; nothing is pickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffpolicy import _files
from diffpolicy import _validate as check
from diffpolicy._version import __version__
from diffpolicy.errors import InputError

SCHEMA = "diffpolicy.policy/1"


def write(folder: str | Path, description: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    """Writes both files, the description last, so that an interrupted writing leaves no policy that looks whole.

    Args:
        folder: made if it is not there.
        description: what JSON holds: class, config, trained.
        tensors: by name.

    Raises:
        InputError: the folder cannot be written to.
    """
    folder = _files.writable_folder(folder)
    text = json.dumps({"schema": SCHEMA, "version": __version__, **description}, indent=1) + "\n"
    _files.write(folder / "policy.safetensors", lambda aside: save_file(tensors, aside))
    _files.write_text(folder / "policy.json", text)
    return folder


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Description and tensors of a policy.

    Args:
        path: its folder, or either of its files.

    Raises:
        InputError: a file is missing or damaged, or the schema is another one.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    json_path, tensor_path = folder / "policy.json", folder / "policy.safetensors"
    data = check.read_json(json_path, "policy file")
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        found = data.get("schema") if isinstance(data, dict) else data
        raise InputError(f"policy file {json_path}: schema must be '{SCHEMA}', got {check.show(found)}")
    try:
        return data, load_file(tensor_path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"policy file {tensor_path} cannot be read: {error}") from None
