"""A policy on disk: `policy.safetensors` and `policy.json` in a folder; nothing is pickled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from diffpolicy import _files
from diffpolicy import _validate as check
from diffpolicy._pairs import Pair
from diffpolicy._read import show_path, what_is
from diffpolicy._version import __version__
from diffpolicy.errors import InputError

SCHEMA = "diffpolicy.policy/1"
NAMES = ("policy.json", "policy.safetensors")


@dataclass(frozen=True)
class PolicyFile:
    """What a folder says of its policy.

    Args:
        description: class, config, trained. tensors: by name.
        whole: whether the tensors are those that the description was written with.
    """

    description: dict[str, Any]
    tensors: dict[str, Tensor]
    whole: bool


def write(folder: str | Path, description: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    """Writes both files, as one: whoever is interrupted here leaves the old policy or the new one.

    Args:
        folder: made if it is not there.
        description: what JSON holds: class, config, trained.
        tensors: by name.

    Raises:
        InputError: JSON cannot hold the description, or the folder cannot be written to.
    """
    for key, value in description.items():
        check_json(value, key)
    folder = _files.writable_folder(folder)
    _pair(folder).write({"schema": SCHEMA, "version": __version__, **description}, safetensors.torch.save(tensors))
    return folder


def read(path: str | Path) -> PolicyFile:
    """Description and tensors of a policy.

    Args:
        path: its folder, or either of its files.

    Raises:
        InputError: a file is missing or damaged, or the schema is another one.
    """
    pair = _pair(folder_of(path))
    content = pair.read()
    schema = content.description.get("schema")
    if schema != SCHEMA:
        raise InputError(f"policy file {show_path(pair.text)}: schema must be '{SCHEMA}', got {check.show(schema)}")
    try:
        tensors = safetensors.torch.load(content.data)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"policy file {show_path(pair.data)} cannot be read: {reason[:300]}") from None
    return PolicyFile(content.description, tensors, content.whole)


def folder_of(path: str | Path) -> Path:
    """The folder of a policy that is named by it or by either of its files.

    Raises:
        InputError: there is none of that name, or another file has it.
    """
    name = show_path(path)
    if not str(path):
        raise InputError("a policy's folder must be named, got ''")
    path = check.path(path, "a policy's folder")
    if what_is(path) == "folder":
        if not any((path / file).exists() for file in NAMES):
            raise InputError(f"policy folder {name} has no policy.json")
        return path
    if path.name in NAMES and any(what_is(path.parent / file) for file in NAMES):
        return path.parent
    if what_is(path):
        raise InputError(f"a policy's files are called {' and '.join(NAMES)}, got {name}")
    raise InputError(f"policy {name} does not exist")


def check_json(value: Any, name: str) -> None:
    """Raises InputError, which names the entry, if JSON would not give a value back as it is; tuples become lists."""
    if isinstance(value, dict):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise InputError(f"{name} has the key {check.show(key)}, which is not a string, so no file can hold it")
            check_json(entry, f"{name}.{key}")
    elif isinstance(value, (list, tuple)):
        for i, entry in enumerate(value):
            check_json(entry, f"{name}[{i}]")
    elif not (value is None or isinstance(value, (str, int, float))):
        raise InputError(f"{name} is {check.show(value)}, which no file can hold; make it a string or a number")


def portable(value: Any) -> Any:
    """A value of JSON whose texts name no folder of this machine: of an absolute path its last part is left.

    Whoever is given the file learns nothing of who made it where, and the same training gives the same bytes.
    """
    if isinstance(value, Mapping):
        return {key: portable(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [portable(entry) for entry in value]
    if isinstance(value, PurePath):
        value = str(value)
    if not isinstance(value, str):
        return value
    return last_part(value) if _is_absolute(value) else _ABSOLUTE.sub(lambda m: last_part(m.group()), value)


def last_part(path: str) -> str:
    """Of a path of any system; the path itself where it has no name."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] or path


def _is_absolute(text: str) -> bool:
    return "\n" not in text and (text.startswith(("/", "~/")) or PureWindowsPath(text).drive != "")


_PART = r"(?:[/\\][^\s'\"=,;:/\\)\]]+)"
_ABSOLUTE = re.compile(rf"(?<![^\s'\"=,;:(\[])(?:(?:~|[A-Za-z]:){_PART}+|{_PART}{{2,}})[/\\]?")
"""A path from the root, the home or a drive on, within a text such as a command; `/s` alone is a unit, and stays."""


def _pair(folder: Path) -> Pair:
    return Pair(folder / "policy.safetensors", folder / "policy.json", "tensors_sha256", "policy file")
