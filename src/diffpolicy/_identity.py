"""What a run is, by content: described as JSON holds it, so that two runs can be compared field by field."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import types
from collections.abc import Iterable, Mapping
from contextlib import suppress
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffpolicy._deprecated import OLD_KEYWORDS, moved
from diffpolicy._validate import show
from diffpolicy.errors import InputError

MISSING = "nothing"
"""How a field that one of two descriptions lacks is shown."""


def describe(value: Any, where: str = "it") -> Any:
    """A value's content, as JSON holds it: equal contents have equal descriptions, in this process or another one.

    Dataclasses become their class and fields, functions and classes `module:qualname`, a `functools.partial` its
    function, arguments and keywords, tensors a digest of their bytes. A function that no name finds, as a lambda or
    one within another function, is told by a digest of its code and of what it encloses.

    Args:
        value: of any of these, and lists and mappings of them. where: names it in messages.

    Raises:
        InputError: it holds what has no name and no content that can be told, as an object of any class; `where`
            names it; or it holds itself.
    """
    try:
        return _described(value, where)
    except RecursionError:
        raise InputError(f"{where} holds itself or is nested too deeply, so no file can describe it") from None


def _described(value: Any, where: str) -> Any:
    if value is None or (isinstance(value, (bool, int, float, str)) and not isinstance(value, Enum)):
        return value
    if isinstance(value, Enum):
        return f"{_name(type(value), where)}.{value.name}"
    if isinstance(value, functools.partial):
        return {
            "partial": _described(value.func, where),
            "args": [_described(x, f"{where}'s argument {k + 1}") for k, x in enumerate(value.args)],
            "keywords": {key: _described(x, f"{where}'s {key}") for key, x in sorted(value.keywords.items())},
        }
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        fields |= {name: x for name, x in getattr(value, "__dict__", {}).items() if name not in fields}
        own = {name: _described(x, name if where == "it" else f"{where}.{name}") for name, x in fields.items()}
        return {"class": _name(type(value), where), **own}
    if isinstance(value, Mapping):
        return {str(key): _described(x, f"{where}.{key}") for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_described(x, f"{where}[{k}]") for k, x in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        return sorted((_described(x, where) for x in value), key=str)
    if isinstance(value, PurePath):
        return f"{value.name} {digest(str(value))[:12]}"  # a checkpoint says nothing of the folders it was made in
    if isinstance(value, (torch.dtype, torch.device)):
        return str(value)
    if isinstance(value, Tensor):
        return {"shape": list(value.shape), "sha256": content_digest(value)}
    if isinstance(value, np.generic) and not value.dtype.hasobject:
        return _described(value.item(), where)
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return {
            "shape": list(value.shape),
            "dtype": str(value.dtype),
            "sha256": hashlib.sha256(value.tobytes()).hexdigest(),
        }
    if isinstance(value, bytes):
        return {"bytes": len(value), "sha256": hashlib.sha256(value).hexdigest()}
    if isinstance(value, types.MethodType):
        return {"method": _name(value.__func__, where), "of": _described(value.__self__, where)}
    if callable(value) and hasattr(value, "__qualname__"):
        return _name(value, where)
    if callable(getattr(value, "to_dict", None)):
        with suppress(TypeError):  # another kind of `to_dict`, that asks for more
            return {"class": _name(type(value), where), "content": _described(value.to_dict(), where)}
    raise InputError(
        f"{where} cannot be described by a file, so a run with it could not be resumed: {show(value)}; "
        "give a function or class of a module, a functools.partial of one, or a dataclass"
    )


def _name(value: Any, where: str) -> str:
    """`module:qualname` of a function or class, and a digest of the code where that name finds nothing."""
    name = f"{getattr(value, '__module__', None) or 'builtins'}:{value.__qualname__}"
    code = getattr(value, "__code__", None)
    if "<" not in name or code is None:
        return name
    cells = [_enclosed(cell, value, where) for cell in value.__closure__ or ()]
    held = _described([value.__defaults__, value.__kwdefaults__], f"a default of {where}")
    return f"{name} {digest([_code(code), cells, held])[:12]}"


def _enclosed(cell: types.CellType, function: Any, where: str) -> Any:
    """What a function encloses by one name: a recursive one itself, and nothing where the name is not bound yet."""
    try:
        content = cell.cell_contents
    except ValueError:
        return "unbound"
    return "itself" if content is function else _described(content, f"what {where} encloses")


def _code(code: types.CodeType) -> list[Any]:
    """What a function does, without the file and lines where it stands."""
    constants = [_code(x) if isinstance(x, types.CodeType) else _constant(x) for x in code.co_consts]
    return [code.co_code.hex(), list(code.co_names), list(code.co_varnames), constants]


def _constant(value: Any) -> str:
    """A constant of a function's code; the order of a set of texts is another one in each process."""
    return f"frozenset {sorted(map(repr, value))}" if isinstance(value, frozenset) else repr(value)


def difference(before: Any, now: Any, where: str = "") -> tuple[str, Any, Any] | None:
    """The first field in which two descriptions differ, its value in the one and in the other; None if there is none.

    Args:
        before, now: of `describe`. where: path of the field that they are, such as `method.learning_rates`.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        before = {OLD_KEYWORDS[key] if OLD_KEYWORDS.get(key) in now else key: x for key, x in before.items()}
        for key in [*before, *(key for key in now if key not in before)]:
            path = f"{where}.{key}" if where else str(key)
            found = difference(before.get(key, MISSING), now.get(key, MISSING), path)
            if found is not None:
                return found
        return None
    if before == MISSING and now is None:  # a field that earlier versions had not, and that changes nothing
        return None
    if isinstance(before, str) and ":" in before:
        before = as_now(before)
    same = type(before) is type(now) or {type(before), type(now)} == {int, float}
    return None if same and _equal(before, now) else (where, before, now)


def _equal(a: Any, b: Any) -> bool:
    """Whether two values of JSON are one; NaN, which no number equals, is one with NaN."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    return bool(a == b or (a != a and b != b))


def as_now(name: str) -> str:
    """`module:qualname` of a function or class as it is called today."""
    module, _, rest = name.partition(":")
    path = moved(f"{module}.{rest}")
    parts, depth = path.split("."), rest.count(".") + 1
    return f"{'.'.join(parts[:-depth])}:{'.'.join(parts[-depth:])}"


def check_same(before: Any, now: Any, source: str) -> None:
    """Refuses to take one run for another.

    Args:
        before: the description that was saved. now: this run's. source: where the first comes from, as the sentence
            begins.

    Raises:
        InputError: they differ; names the first field and both values.
    """
    found = difference(before, now)
    if found is not None:
        where, old, new = found
        if not where:
            raise InputError(f"{source} belongs to another run: {_said(old)}, and this one is {_said(new)}")
        for outer in ("run.", "method."):
            where = where.removeprefix(outer) if where != "method.class" else "method"
        raise InputError(f"{source} was trained with {where} {_said(old)}, and this run has {_said(new)}")


def _said(value: Any) -> str:
    """A value within a sentence: names bare, digests short, of a dataclass the class."""
    if isinstance(value, dict) and "class" in value:
        value = value["class"]
    if isinstance(value, str):
        digest = len(value) == 64 and set(value) <= set("0123456789abcdef")
        return value[:12] if digest else show(value)[1:-1] if value else "''"
    return show(value)


def digest(description: Any) -> str:
    """SHA-256 of a description, hexadecimal."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def content_digest(value: Any) -> str:
    """SHA-256 of everything in nested dictionaries and lists, tensors by their bytes: what a damaged file changes.

    What stands in several places is looked at once, and no tensor is made larger than its storage: a file cannot make
    this take longer or more memory than reading it took.

    Args:
        value: of what `torch.load(weights_only=True)` gives: mappings, lists, tensors, numbers, texts.

    Raises:
        RecursionError: it is nested too deeply, or holds itself.
    """
    return _content(value, {}).hex()


def _content(value: Any, seen: dict[int, bytes]) -> bytes:
    """SHA-256 of a value out of those of its parts. Args: seen: by the identity of what was looked at."""
    if id(value) in seen:
        return seen[id(value)]
    parts: Iterable[bytes]
    if isinstance(value, Tensor):
        kind, parts = f"{value.dtype} {list(value.shape)}", [_tensor_bytes(value)]
    elif isinstance(value, Mapping):
        kind = f"mapping {len(value)}"
        parts = (part for key, x in value.items() for part in (_content(key, seen), _content(x, seen)))
    elif isinstance(value, (list, tuple)):
        kind, parts = f"list {len(value)}", (_content(x, seen) for x in value)
    else:
        told = value is None or isinstance(value, (bool, int, float, str, bytes))
        kind, parts = type(value).__name__, [repr(value).encode("utf-8", "surrogatepass")] if told else []
    total = hashlib.sha256(kind.encode())
    for part in parts:
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    if isinstance(value, (Mapping, list, tuple)):
        seen[id(value)] = total.digest()
    return total.digest()


def _tensor_bytes(x: Tensor) -> bytes:
    """What a tensor holds: its elements in order, or its storage and steps where it repeats elements."""
    if x.numel() == 0:
        return b""
    x = x.detach().cpu()
    storage = x.untyped_storage()
    if x.numel() * x.element_size() > storage.nbytes():
        whole = torch.empty(0, dtype=torch.uint8).set_(storage)
        return f"{x.stride()} {x.storage_offset()}".encode() + whole.numpy().tobytes()
    return x.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
