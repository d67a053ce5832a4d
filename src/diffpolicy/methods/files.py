"""A method from its YAML form. Such a file is code: it names a class and functions, which are imported and called."""

from __future__ import annotations

import inspect
import types
from argparse import ArgumentError
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from diffpolicy import _validate as check
from diffpolicy import _yaml
from diffpolicy._deprecated import moved, moved_in_file
from diffpolicy._imports import import_module, working_folder
from diffpolicy._read import one_line, show_path
from diffpolicy.errors import InputError
from diffpolicy.methods.method import Method

FAMILIES = tuple(
    f"diffpolicy.methods.{name}"
    for name in (
        "sac",
        "diffusion_sac",
        "dqn",
        "ppo",
        "imitation",
        "qvpo",
        "mirror_descent",
        "qdfm",
        "distillation",
        "fql",
        "fpo",
        "dppo",
    )
)
"""Modules of ours whose classes a file may name without their modules."""


def parse_method(text: str, source: str) -> Method:
    """Makes a method from its YAML form, `class_path` and `init_args` as in LightningCLI.

    The class is imported first, and nothing else before it is known to be a `Method` whose fields these are. Modules
    are looked for in the working folder first.

    Args:
        text: of the file.
        source: names it in messages.

    Returns:
        The method, with the fields that the file gives.

    Raises:
        InputError: not YAML, not a method, or an argument of another type.

    Example:
        >>> text = "{class_path: DQNMethod, init_args: {learning_rates: {critic: 0.001}}}"
        >>> method = parse_method(text, "mine.yaml")
        >>> method.learning_rates, method.double
        ({'critic': 0.001}, False)
        >>> parse_method("hidden: [20]", "mine.yaml")
        Traceback (most recent call last):
        diffpolicy.errors.InputError: method file mine.yaml must hold 'class_path' and 'init_args', got {'hidden': [20]}
    """
    import jsonargparse

    name = f"method file {show_path(source)}"
    data = _yaml.parse(text, name)
    if not isinstance(data, dict) or "class_path" not in data:
        raise InputError(f"{name} must hold 'class_path' and 'init_args', got {check.show(data)}")
    data = check.mapping(data, name, allowed=("class_path", "init_args"))
    with working_folder():
        kind = _class(data["class_path"], name)
        known = [f.name for f in fields(kind) if f.init]
        given = check.mapping(data.get("init_args") or {}, f"{name}: init_args", allowed=known)
        if given.get("transitions") is not None:
            _function(given["transitions"], f"{name}: transitions")
            given["transitions"] = moved(given["transitions"])
        parser = jsonargparse.ArgumentParser(exit_on_error=False)
        parser.add_argument("--method", type=Method)
        path = f"{kind.__module__}.{kind.__qualname__}"
        try:
            made = parser.instantiate(parser.parse_object({"method": {"class_path": path, "init_args": given}}))
        except InputError as error:
            raise InputError(f"{name}: {one_line(error)}") from None
        except (ArgumentError, TypeError, ValueError, ArithmeticError, ImportError, RecursionError) as error:
            _check_types(kind, given, name)
            problem = str(error).replace('Parser key "method":', "")
            raise InputError(f"{name}: {one_line(problem)}") from None
    return made.method  # type: ignore[no-any-return]


def _check_types(kind: type[Method], given: dict[str, Any], name: str) -> None:
    """Refuses, in our words, the first value of a file that is not of its field's type."""
    import jsonargparse

    try:
        hints = get_type_hints(kind)
    except (NameError, TypeError):  # of a class whose module hides what it names
        return
    for key, value in given.items():
        parser = jsonargparse.ArgumentParser(exit_on_error=False)
        parser.add_argument("--value", type=hints[key])
        try:
            parser.parse_object({"value": value})
        except (ArgumentError, TypeError, ValueError, ArithmeticError, RecursionError):
            raise InputError(f"{name}: {key} must be {_words(hints[key])}, got {check.show(value)}") from None


def _words(hint: Any) -> str:
    """What a field takes, as a user calls it. Args: hint: its type."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin in (Union, types.UnionType):
        return ", or ".join(_words(arg) for arg in args)
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "a string", type(None): "null"}
    if hint in plain:
        return plain[hint]
    base = origin or hint
    if isinstance(base, type) and issubclass(base, Mapping):
        return "an object" + (
            f" whose values are each {_words(args[1])}" if len(args) == 2 and args[1] in plain else ""
        )
    if isinstance(base, type) and issubclass(base, (list, tuple)):
        return "a list" + (f" whose entries are each {_words(args[0])}" if args and args[0] in plain else "")
    return f"a {getattr(base, '__name__', base)}"


def _class(path: Any, name: str) -> type[Method]:
    """The class of a method that `class_path` names, by its import path or the bare name of one that is known."""
    for family in FAMILIES:
        import_module(family, name)
    found: Any = next((kind for kind in _kinds(Method) if kind.__name__ == path), None)  # type: ignore[type-abstract]
    if found is None:
        found = _attribute(path, f"{name}: class_path")
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise InputError(f"{name}: class_path must name a diffpolicy.methods.Method, got {check.show(path)}")
    if inspect.isabstract(found):
        raise InputError(f"{name}: class_path {check.show(path)} is abstract: it names no method")
    return found


def _function(path: Any, name: str) -> None:
    """Refuses what is not the import path of a function."""
    found = _attribute(path, name)
    if not callable(found) or isinstance(found, type):
        raise InputError(f"{name} must name a function, got {check.show(path)}")


def _attribute(path: Any, name: str) -> Any:
    """The object of an import path, `package.module.thing`."""
    if not isinstance(path, str) or not all(part.isidentifier() for part in path.split(".")) or "." not in path:
        raise InputError(f"{name} must be an import path, package.module.thing, got {check.show(path)}")
    module, _, attribute = moved_in_file(path, name).rpartition(".")
    name = f"{name} {show_path(path)}"
    value = import_module(module, name)
    if not hasattr(value, attribute):
        raise InputError(f"{name}: {show_path(module)} has no attribute '{show_path(attribute)}'")
    return getattr(value, attribute)


def _kinds(kind: type[Method]) -> Iterator[type[Method]]:
    """A class and all that derive from it."""
    yield kind
    for sub in kind.__subclasses__():
        yield from _kinds(sub)
