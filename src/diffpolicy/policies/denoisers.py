"""How a file describes a policy's denoiser, and how it is made again; a class is looked up, never imported."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from torch import nn

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.networks.denoiser import MLPDenoiser
from diffpolicy.networks.item_denoiser import ItemDenoiser
from diffpolicy.networks.per_agent import PerAgent
from diffpolicy.networks.set_denoiser import SetDenoiser
from diffpolicy.policies.class_names import file_name, importable_module, is_ours, source_file, where

OURS: dict[str, type[nn.Module]] = {
    "ItemDenoiser": ItemDenoiser,
    "MLPDenoiser": MLPDenoiser,
    "SetDenoiser": SetDenoiser,
}
OPTIONS = {"hidden": [20, 20], "act": "relu", "output": "linear", "time": 16}
"""Of an `MLPDenoiser` whose widths are the policy's own, where a file does not tell."""


def describe(denoiser: nn.Module) -> dict[str, Any]:
    """`kind`, and what its class needs to make it again, or `given`: the module must be passed again.

    A class describes itself by `to_dict()` and the class method `from_dict`, or by `config()`, its constructor's
    arguments. Where a subclass has a constructor of its own and inherits these, they need not tell all, and do not
    count.

    Raises:
        InputError: JSON would not give back what it says of itself.
    """
    if isinstance(denoiser, PerAgent):
        return describe(denoiser.each[0])
    cls = type(denoiser)
    name = {"kind": file_name(cls)}
    tell = _telling(cls)
    if tell is None or "<locals>" in cls.__qualname__:
        file = source_file(cls)
        return {**name, "given": True, **({} if file is None else {"file": file})}
    told = getattr(denoiser, tell)()
    try:
        again = json.loads(json.dumps(told))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"no file can hold what {cls.__name__}.{tell}() says of the denoiser: {error}") from None
    if not isinstance(again, dict) or not {"kind", "given"}.isdisjoint(again):
        raise InputError(f"{cls.__name__}.{tell}() must give an object without 'kind' and 'given', got {again!r:.60}")
    return {**name, **again}


def full(description: Any) -> Any:
    """A description that tells the options which it left out, so that two can be compared."""
    if not isinstance(description, Mapping) or "kind" in description:
        return description
    return json.loads(json.dumps({**OPTIONS, **description}))


def rebuild(description: Mapping[str, Any]) -> nn.Module | None:
    """The denoiser that `describe` described, with fresh parameters; None if it has to be given.

    Raises:
        InputError: its class is not imported, or does not take what the file says.
    """
    kind, told = description["kind"], {k: v for k, v in description.items() if k != "kind"}
    if not isinstance(kind, str):
        raise InputError(f"denoiser.kind must name a class, got {check.show(kind)}")
    if told.get("given") is True:
        return None
    cls = OURS.get(kind) or _imported(kind)
    if cls is None:
        raise InputError(f"its denoiser {where(kind, None)}; import it, or pass the denoiser: load(path, denoiser=...)")
    try:
        make = getattr(cls, "from_dict", None)
        denoiser: nn.Module = cls(**told) if make is None else make(told)
    except InputError:
        raise
    except Exception as error:  # a user's class may raise anything
        raise InputError(f"denoiser: {kind} cannot be made from what the file says: {error}") from None
    return denoiser


def _telling(cls: type[nn.Module]) -> str | None:
    """The method by which a class tells all that makes it again, if it has one."""
    order = list(cls.__mro__)

    def depth(name: str) -> int:
        return next((i for i, c in enumerate(order) if name in vars(c)), len(order))

    pairs = (("to_dict", depth("from_dict")), ("config", 0))
    for name, needed in pairs:
        if depth(name) <= depth("__init__") and needed < len(order) and depth(name) < len(order):
            return name
    return None


def _imported(name: str) -> type[nn.Module] | None:
    """A user's class of denoisers that tells all of itself, if its module is imported already."""
    module, _, path = name.partition(":")
    for candidate in (module, "__main__", "__mp_main__"):
        found: Any = sys.modules.get(candidate)
        for part in path.split("."):
            found = getattr(found, "__dict__", {}).get(part)
        if not isinstance(found, type) or not issubclass(found, nn.Module) or is_ours(found):
            continue
        if importable_module(found) == module and _telling(found) is not None:
            return found
    return None
