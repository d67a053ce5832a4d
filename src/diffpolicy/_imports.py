"""Importing what a name in a file or on the command line stands for. That runs the module: such names are code."""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from diffpolicy._read import one_line, read_text, show_path, what_is
from diffpolicy._suggest import meant
from diffpolicy.errors import InputError


@contextmanager
def working_folder(*, last: bool = False) -> Iterator[None]:
    """Lets modules be found in the working folder, and takes it from `sys.path` again, where it was not before.

    Args:
        last: whether it comes after all other places, so that no file in it hides a module that somebody else imports.
    """
    try:
        folder = os.getcwd()
    except OSError:  # it has been removed
        yield
        return
    added = folder not in sys.path if last else sys.path[:1] != [folder]
    if added:
        sys.path.insert(len(sys.path) if last else 0, folder)
    try:
        yield
    finally:
        if added and folder in sys.path:
            sys.path.remove(folder)


def import_module(name: str, where: str, hint: str = "") -> ModuleType:
    """Imports a module by its full name.

    Args:
        name: of the module. where: what names it, in messages. hint: what may have been meant, where there is none.

    Raises:
        InputError: there is no such module, or it fails; the sentence names the line in which it does.
    """
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise InputError(f"{where}: there is no module '{show_path(name)}'{hint}") from None
        raise InputError(f"{where}: importing '{show_path(name)}' fails: {_reason(error)}") from error


def meant_attribute(text: str, wanted: str = "") -> str:
    """`; did you mean mine:problem?` where a text names a Python file, `mine.py:problem`; empty of any other.

    Args:
        text: what was typed; also a name alone, `mine`, if `mine.py` is in the working folder.
        wanted: what such a file probably calls what is meant; it is named if it stands there.

    Example:
        >>> meant_attribute("mine.py:problem"), meant_attribute("mine.py"), meant_attribute("mine:problem")
        ('; did you mean mine:problem?', '; did you mean mine:NAME, of what stands there?', '')
    """
    file, _, name = text.partition(":")
    module = file.removeprefix("./").removesuffix(".py").replace("/", ".")
    path = f"{module.replace('.', '/')}.py"
    if not name and what_is(path) == "file":
        file = path
        with suppress(InputError):
            name = wanted if wanted and _stands(wanted, read_text(Path(path), "module")) else ""
    named = f"{module}:{name or 'NAME'}"
    if not file.endswith(".py") or not is_attribute(named):
        return ""
    return f"; did you mean {named}{'' if name else ', NAME being a name in that file'}?"


def _stands(name: str, source: str) -> bool:
    """Whether a name is assigned, defined or imported at a file's top, which is not run for that."""
    made = rf"(?:(?:def|class) )?{name}\b *[=:(]"
    brought = rf"(?:from \S+ )?import (?:\([^)]*|[^(\n#]*)(?<![\w.]){name}\b(?! +as\b)"
    return re.search(rf"^(?:{made}|{brought})", source, re.MULTILINE) is not None


def is_attribute(text: str) -> bool:
    """Whether a text has the form `module:attribute`."""
    module, _, attribute = text.partition(":")
    return bool(attribute) and all(part.isidentifier() for part in f"{module}.{attribute}".split("."))


def import_attribute(text: str, what: str) -> Any:
    """The object that `module:attribute` names; modules are looked for in the working folder first.

    Importing a module runs it. What it draws from global generators is always the same; these and `sys.path` are left
    as they were.

    Args:
        text: the name. what: it is of, in messages.

    Raises:
        InputError: no such module or attribute, or the module fails.
    """
    module_name, _, path = text.partition(":")
    from diffpolicy._global_draws import global_draws

    with working_folder(), global_draws(seed=0):
        module = import_module(module_name, f"{what} {text}", meant_attribute(text))
    value: Any = module
    for name in path.split("."):
        try:
            value = getattr(value, name)
        except AttributeError:
            near = meant(name, vars(value)) if hasattr(value, "__dict__") else ""
            raise InputError(f"{what} {text}: {module_name} has no attribute {path!r}{near}") from None
    return value


def _reason(error: BaseException) -> str:
    """What went wrong and where, on one line."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    place = f" in line {frames[-1].lineno} of {os.path.basename(frames[-1].filename)}" if len(frames) > 1 else ""
    said = one_line(error)
    return f"{type(error).__name__}{f': {said}' if said else ''}{place}"
