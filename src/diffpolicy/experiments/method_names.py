"""From what a user types to a method: a preset's name, a YAML file, an entry point or `module:attribute`.

Names are looked at without loading torch, so that a command can refuse a wrong one at once; only `make_method` imports
what they name.
"""

from __future__ import annotations

import os
from dataclasses import MISSING, fields
from importlib import import_module, resources
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from diffpolicy import _validate as check
from diffpolicy._imports import is_attribute, meant_attribute
from diffpolicy._read import what_is
from diffpolicy._suggest import meant
from diffpolicy.errors import InputError
from diffpolicy.experiments.entry_points import entry_names, entry_point, import_named

if TYPE_CHECKING:
    from diffpolicy.methods.method import Method

PRESETS = {
    name: package
    for package, names in (
        (
            "diffpolicy.methods",
            (
                "d2sac",
                "d2sac-plus",
                "sac",
                "sac-plus",
                "dqn",
                "dqn-plus",
                "lad",
                "lad-plus",
                "ppo",
                "diffusion-ppo",
                "bc",
                "bc-plain",
                "qvpo",
                "qvpo-plain",
                "rl-d2",
                "rl-d2-onpolicy",
                "rl-d2-plain",
                "rl-d2-reverse",
                "rl-d2-reverse-plain",
                "qdfm",
                "qdfm-plain",
                "distill",
                "distill-plain",
                "fql",
                "fql-plain",
                "fpo",
                "dppo",
            ),
        ),
        (
            "diffpolicy.edge",
            (
                "lad-ts",
                "lad-ts-released",
                "d2sac-ts",
                "sac-ts",
                "dqn-ts",
                "lad-ts-plus",
                "plus-one-step",
                "plus-no-chain",
            ),
        ),
    )
    for name in names
}
"""Presets of methods, and the package in whose folder `presets` each lies."""
METHOD_NAMES = tuple(PRESETS)


def check_method(text: str | PathLike[str]) -> str:
    """What kind of method a text names, `preset`, `file`, `entry point` or `attribute`, without loading torch.

    Raises:
        InputError: none.
    """
    text = _method_text(text)
    if text in PRESETS:
        return "preset"
    if Path(text).suffix in (".yaml", ".yml"):
        if what_is(text) != "file":
            raise InputError(f"method file {text} does not exist")
        return "file"
    if entry_point("method", text) is not None:
        return "entry point"
    if is_attribute(text):
        return "attribute"
    raise InputError(
        f"method {check.show(text)} is neither a preset ({', '.join([*PRESETS, *entry_names('method')])}), "
        f"nor a YAML file, nor module:attribute"
        f"{_yaml_beside(text) or meant_attribute(text) or meant(text, [*PRESETS, *entry_names('method')])}"
    )


def _method_text(text: str | PathLike[str]) -> str:
    """What names a method as a text. Args: text: or the path of a file."""
    plain = os.fspath(text) if isinstance(text, PathLike) else text
    if not isinstance(plain, str):
        raise InputError(f"a method must be a Method or the name of one, got {check.show(text)}")
    return plain


def _yaml_beside(text: str) -> str:
    """`; did you mean mine.yaml?` where there is such a file. Args: text: a name without its end."""
    there = [f"{text}{end}" for end in (".yaml", ".yml") if what_is(f"{text}{end}") == "file"]
    return f"; did you mean {there[0]}?" if there else ""


def make_method(source: str | PathLike[str]) -> Method:
    """Makes a training method from its name, a YAML file or `module:attribute`.

    Args:
        source: a preset's name, a YAML file, an entry point of the group `diffpolicy.methods`, or `module:attribute`.

    Returns:
        The method, whose fields are what the file says; `dataclasses.replace` changes one.

    Raises:
        InputError: nothing of that name, or a file that does not describe a method.

    Example:
        >>> make_method("lad-ts").steps
        5
    """
    source = _method_text(source)
    kind = check_method(source)
    from diffpolicy.methods.files import parse_method
    from diffpolicy.methods.method import Method

    if kind in ("attribute", "entry point"):
        method = import_named("method", source)
        if isinstance(method, type) and issubclass(method, Method):
            _check_defaults(source, method)
            method = method()
        if not isinstance(method, Method):
            raise InputError(f"method {source} must be a diffpolicy.methods.Method, got {check.show(method)}")
        return method
    path = Path(source)
    if kind == "preset":
        path = Path(str(resources.files(import_module(PRESETS[source])) / "presets" / f"{source}.yaml"))
    return parse_method(check.read_text(path, "method file"), str(path))


def _check_defaults(source: str, kind: type[Method]) -> None:
    """Refuses a class that is not made without arguments. Args: source: what named it."""
    lacking = [f.name for f in fields(kind) if f.init and f.default is MISSING and f.default_factory is MISSING]
    if lacking:
        raise InputError(
            f"method {source}: {kind.__name__} has no default of {', '.join(lacking)}; name an instance of it, as in "
            f"{source.partition(':')[0]}:method after method = {kind.__name__}({lacking[0]}=...), or a YAML file"
        )
