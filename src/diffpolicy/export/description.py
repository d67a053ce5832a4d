"""What stands beside an exported decision, `FILE.json`: checked field by field before the file itself is loaded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffpolicy import _validate as check
from diffpolicy._decision_input import DecisionInput
from diffpolicy._pairs import Pair
from diffpolicy._read import show_path
from diffpolicy.errors import InputError

SCHEMA = "diffpolicy.decision/1"
SUFFIX = {"onnx": ".onnx", "aoti": ".pt2"}
DTYPES = ("float32", "int64", "bool")
_ARCHIVE = b"PK\x03\x04"
"""What an AOTInductor package begins with, as every zip archive does, and no ONNX file."""
_RANK, _WIDEST = 8, 2**31


@dataclass(frozen=True)
class Described:
    """A checked description and its file. Args: format: `onnx` or `aoti`. data: all of the JSON. content: the file."""

    format: str
    inputs: tuple[DecisionInput, ...]
    outputs: tuple[DecisionInput, ...]
    data: dict[str, Any]
    content: bytes


def description_path(path: str | Path) -> Path:
    """Where the description of an exported file stands: beside it, with `.json` added."""
    return Path(f"{path}.json")


def pair_of(path: str | Path) -> Pair:
    """An exported file and its description."""
    return Pair(Path(path), description_path(path), "file_sha256", "decision file")


def write(path: str | Path, description: dict[str, Any], content: bytes) -> None:
    """Writes an exported file and its description, as one.

    Raises:
        InputError: the folder cannot be written to.
    """
    signature = {"signature_sha256": _signature(description)}
    pair_of(path).write({"schema": SCHEMA, **description, **signature}, content)


def read(path: str | Path) -> Described:
    """An exported file and what describes it, once it is seen that they fit.

    Raises:
        InputError: a file is missing, a field of the description is wrong, or the file is not the one described.
    """
    pair = pair_of(path)
    found = pair.read()
    data = found.description
    try:
        described = _checked(data, found.data)
    except InputError as error:
        raise InputError(f"decision file {show_path(pair.text)}: {error}") from None
    if not found.whole:
        raise InputError(
            f"decision file {show_path(path)} cannot be read: it is not the one that its description was written with "
            "(its SHA-256 is another); bring both from the same folder, or export the policy again"
        )
    _check_content(described, Path(path))
    return described


def _checked(data: dict[str, Any], content: bytes) -> Described:
    """The description as what it means; old ones have no digests."""
    if data.get("schema") != SCHEMA:
        raise InputError(f"schema must be '{SCHEMA}', got {check.show(data.get('schema'))}")
    form = data.get("format")
    if not isinstance(form, str) or form not in SUFFIX:
        raise InputError(f"format must be one of {', '.join(SUFFIX)}, got {check.show(form)}")
    inputs, outputs = (_specs(data.get(name), name) for name in ("inputs", "outputs"))
    if outputs[0].name != "action":
        raise InputError(f"outputs[0].name must be 'action', got {check.show(outputs[0].name)}")
    for name, kind in {"version": str, "policy": dict, "file_sha256": str, "signature_sha256": str}.items():
        if not isinstance(data.get(name, kind()), kind):
            raise InputError(f"{name} must be {_CALLED[kind]}, got {check.show(data[name])}")
    check.number(data.get("largest_difference", 0), "largest_difference", least=0)
    if data.get("signature_sha256", signature := _signature(data)) != signature:
        raise InputError("format, inputs or outputs are not those that it was written with; export the policy again")
    return Described(form, inputs, outputs, data, content)


def _specs(value: Any, name: str) -> tuple[DecisionInput, ...]:
    specs = tuple(_spec(entry, f"{name}[{k}]") for k, entry in enumerate(check.sequence(value, name)))
    if not specs:
        raise InputError(f"{name} must hold at least one entry, got []")
    names = [spec.name for spec in specs]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice is not None:
        raise InputError(f"{name} has the name {check.show(twice)} twice")
    return specs


def _spec(value: Any, where: str) -> DecisionInput:
    entry = check.mapping(
        value, where, allowed=("name", "shape", "dtype", "meaning"), required=("name", "shape", "dtype")
    )
    name, dtype, meaning = entry["name"], entry["dtype"], entry.get("meaning", "")
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(f"{where}.name must be a name, got {check.show(name)}")
    if dtype not in DTYPES:
        raise InputError(f"{where}.dtype must be one of {', '.join(DTYPES)}, got {check.show(dtype)}")
    if not isinstance(meaning, str):
        raise InputError(f"{where}.meaning must be a string, got {check.show(meaning)}")
    shape = check.sequence(entry["shape"], f"{where}.shape")
    if len(shape) > _RANK:
        raise InputError(f"{where}.shape must have at most {_RANK} entries, got {len(shape)}")
    for k, size in enumerate(shape):
        free = isinstance(size, str) and size.isidentifier()
        fixed = isinstance(size, int) and not isinstance(size, bool) and 1 <= size < _WIDEST
        if not free and not fixed:
            raise InputError(f"{where}.shape[{k}] must be a size or the name of one, got {check.show(size)}")
    return DecisionInput(name, tuple(shape), dtype, meaning)


def _check_content(described: Described, path: Path) -> None:
    """Refuses a file of another format than its description tells: machine code is loaded only as what it is."""
    name, form = show_path(path), described.format
    other = next((f for f, suffix in SUFFIX.items() if path.suffix == suffix and f != form), None)
    if other is not None:
        raise InputError(f"decision file {name}: its description says {form}, and its name says {other}")
    if described.content.startswith(_ARCHIVE) != (form == "aoti"):
        raise InputError(f"decision file {name}: its description says {form}, and its content is none")
    if form == "aoti" and not {"file_sha256", "signature_sha256"} <= described.data.keys():
        raise InputError(
            f"decision file {name} is machine code of an earlier version, whose description has no SHA-256 of it; "
            "export the policy again"
        )


def _signature(data: dict[str, Any]) -> str:
    """SHA-256 of what a caller of the file relies on: its format, and names, shapes and types in their order."""
    sides = [[[s["name"], list(s["shape"]), s["dtype"]] for s in data[side]] for side in ("inputs", "outputs")]
    return hashlib.sha256(json.dumps([data["format"], *sides]).encode()).hexdigest()


_CALLED = {str: "a string", dict: "an object"}
