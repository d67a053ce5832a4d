"""Lazy re-exports (PEP 562), so that `diffpolicy --help` loads no torch and `import diffpolicy` no Lightning."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from diffpolicy._deprecated import OldNames


def attach(package: str, names: Mapping[str, str]) -> None:
    """Lets a package import a name from its module when it is first used.

    A name that its module bears too, as `training.fit` does, is the name's object however the module was imported. The
    package gets no `__getattr__` of its own, since type checkers would then take any name for one of its.

    Args:
        package: the package that re-exports, its `__name__`.
        names: public name -> absolute module that defines it.
    """

    class Package(OldNames):
        def __setattr__(self, name: str, value: Any) -> None:
            # importing a module binds it in its package, where it would hide the object of its name
            if isinstance(value, ModuleType) and names.get(name) == value.__name__:
                value = getattr(value, name)
            super().__setattr__(name, value)

        def __getattr__(self, name: str) -> Any:
            module = names.get(name)
            return super().__getattr__(name) if module is None else getattr(importlib.import_module(module), name)

        def __dir__(self) -> list[str]:
            return sorted(names)

    sys.modules[package].__class__ = Package
