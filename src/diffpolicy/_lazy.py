"""Lazy re-exports (PEP 562), so that `diffpolicy --help` loads no torch and `import diffpolicy` no Lightning."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any


def attach(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Module-level `__getattr__` and `__dir__` that import a name from its module when it is first used.

    A name that its module bears too, as `training.fit` does, is the name's object however the module was imported.

    Args:
        package: the package that re-exports, its `__name__`.
        names: public name -> absolute module that defines it.
    """

    class Package(ModuleType):
        def __setattr__(self, name: str, value: Any) -> None:
            # importing a module binds it in its package, where it would hide the object of its name
            if isinstance(value, ModuleType) and names.get(name) == value.__name__:
                value = getattr(value, name)
            super().__setattr__(name, value)

    sys.modules[package].__class__ = Package

    def __getattr__(name: str) -> Any:
        module = names.get(name)
        if module is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(module), name)

    def __dir__() -> list[str]:
        return sorted(names)

    return __getattr__, __dir__
