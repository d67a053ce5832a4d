"""What files call classes: ours by the bare name, a user's with its module, so neither hides the other."""

from __future__ import annotations

import sys
from pathlib import Path

_MAIN = ("__main__", "__mp_main__")
"""How the script that runs is called, and how a process that it spawned calls it."""


ELSEWHERE = {"FleetPolicy": "diffpolicy.edge.pricing.policy"}
"""Our policies that stand in layers above, and their modules; texts, since the layers here know nothing of those."""


def is_ours(cls: type) -> bool:
    """Whether a class comes with this package."""
    return cls.__module__.split(".")[0] == "diffpolicy"


def file_name(cls: type) -> str:
    """`Class` of ours, `module:Class` of others; a running script is called as another one would import it."""
    return cls.__name__ if is_ours(cls) else f"{importable_module(cls)}:{cls.__qualname__}"


def importable_module(cls: type) -> str:
    """A class's module, under the name by which another script may import it; `__main__` in an interactive session."""
    if cls.__module__ not in _MAIN:
        return cls.__module__
    main = sys.modules.get(cls.__module__)
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name not in _MAIN:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return "__main__" if file is None else Path(file).stem


def source_file(cls: type) -> str | None:
    """The bare name of the file that defines a user's class, a hint to who looks for it."""
    file = None if is_ours(cls) else getattr(sys.modules.get(cls.__module__), "__file__", None)
    return None if file is None else Path(file).name


def where(name: str, file: object) -> str:
    """How to come by a class that a file names and nobody has imported, for a message. Args: file: `source_file`."""
    module, _, qualname = name.partition(":")
    hint = f" ({file})" if isinstance(file, str) else ""
    if "<locals>" in qualname:
        return f"{qualname} is made inside a function of {module}{hint}, where no import reaches it"
    if module == "__main__":
        return f"{qualname} was defined in a script or an interactive session{hint}"
    return f"{qualname} of the module {module}{hint} is not imported here"
