"""A folder that `TensorDict.memmap` wrote, read as copies: each file must have the size that its description says.

TensorDict's own reader lengthens a file that is shorter than the description says, and gives zeros.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import torch
from tensordict import TensorDict
from torch import Tensor

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy._memory import check_free
from diffpolicy._read import show_path
from diffpolicy.errors import InputError

TYPES = {
    f"torch.{name}": getattr(torch, name)
    for name in ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
}
DEEPEST = 8
"""Folders in folders."""
UNREAD = (".pkl", ".pickle", ".pt")


def read_folder(path: Path, what: str) -> TensorDict:
    """The tensors of a folder and of the folders in it; nothing is unpickled and nothing is written.

    Args:
        path: of the folder. what: names its kind in messages.

    Returns:
        Of the batch that the folder tells, with which every tensor's shape begins.

    Raises:
        InputError: names the folder, and the entry that is wrong.
    """
    name = f"{what} {show_path(path)}"
    try:
        other = next((p for p in sorted(path.rglob("*")) if p.suffix in UNREAD), None)
    except (OSError, ValueError) as error:
        raise InputError(f"{name} cannot be read: {error}") from None
    if other is not None:
        raise InputError(f"{name} holds {show_path(other.name)}, which is not read: only tensors are")
    described = _description(path, what)
    batch = _shape(described.get("shape"), f"{name}: shape")
    return TensorDict(_entries(path, what, described, batch, DEEPEST), batch_size=batch)


def _description(path: Path, what: str) -> dict[str, Any]:
    if not (path / "meta.json").exists():
        raise InputError(f"{what} {show_path(path)} holds no meta.json, so no TensorDict.memmap wrote it")
    described = check.read_json(path / "meta.json", what)
    if not isinstance(described, dict):
        raise InputError(f"{what} {show_path(path / 'meta.json')} must be an object, got {check.show(described)}")
    return described


def _entries(
    path: Path, what: str, described: Mapping[str, Any], batch: tuple[int, ...], deepest: int
) -> dict[str, Any]:
    """What a folder holds, by key."""
    files = {unquote(p.stem if p.suffix == ".memmap" else p.name): p for p in path.iterdir()}
    found: dict[str, Any] = {}
    for key, entry in described.items():
        if not isinstance(entry, dict):
            continue  # of the folder itself
        file, name = files.get(key), f"{what} {show_path(path)}: {check.show(key)}"
        if "type" in entry:
            if file is None or not file.is_dir() or not deepest:
                raise InputError(f"{name} must be a folder of tensors beside meta.json, at most {DEEPEST} deep")
            inner = _entries(file, what, _description(file, what), batch, deepest - 1)
            found[key] = TensorDict(inner, batch_size=batch)
        else:
            found[key] = _tensor(file, name, entry, batch)
    return found


def _tensor(file: Path | None, name: str, entry: Mapping[str, Any], batch: tuple[int, ...]) -> Tensor:
    dtype = TYPES.get(str(entry.get("dtype")))
    if dtype is None or entry.get("is_nested"):
        raise InputError(f"{name} must be a tensor of {', '.join(TYPES)}, got {check.show(entry.get('dtype'))}")
    shape = _shape(entry.get("shape"), f"{name}: shape")
    if shape[: len(batch)] != batch:
        raise InputError(f"{name} must have a shape that begins with {list(batch)}, got {list(shape)}")
    count = prod(shape)
    if count > _limits.REPLAYED:
        raise InputError(f"{name} must have at most {_limits.REPLAYED:,} numbers, got {list(shape)}")
    if not count:
        return torch.empty(shape, dtype=dtype)
    has = None if file is None else file.stat()
    if file is None or has is None or not stat.S_ISREG(has.st_mode):
        raise InputError(f"{name} has no file beside meta.json")
    if has.st_size != count * dtype.itemsize:
        said = f"{count * dtype.itemsize} bytes, {list(shape)} of {dtype}"
        raise InputError(f"{name} must have {said}, and its file has {has.st_size}")
    check_free(has.st_size, name)
    # any other byte than 0 and 1 is no bool, and means something else to each operation
    stored = torch.uint8 if dtype == torch.bool else dtype
    values = torch.from_file(str(file), shared=False, size=count, dtype=stored).reshape(shape)
    return values != 0 if dtype == torch.bool else values.clone()


def _shape(value: object, key: str) -> tuple[int, ...]:
    sizes = check.sequence(value, key)
    if len(sizes) > 16:
        raise InputError(f"{key} must have at most 16 numbers, got {len(sizes)}")
    return tuple(check.integer(n, f"{key}[{i}]", least=0, most=_limits.REPLAYED) for i, n in enumerate(sizes))
