"""Sections of docstrings, and `Args` in which several arguments share a line: each gets one of its own on the page."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HEADER = re.compile(r"(Args|Attributes|Returns|Yields|Raises|Example|Keys):")
NAMES = r"\*{0,2}[A-Za-z_]\w*(?:, [A-Za-z_]\w*)*"
FIRST = re.compile(rf"({NAMES}):(?: |$)")
LETTER = re.compile(r"\w\.(?: |$)")
FURTHER = re.compile(rf"(?<=[.;] )({NAMES}): ")


def sections(text: str) -> dict[str, list[str]]:
    """The lines of each section of a docstring, without their indentation; what stands before them under `""`."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for line in inspect.cleandoc(text).splitlines():
        header = HEADER.fullmatch(line)
        if header:
            name = header[1]
            found[name] = []
        elif name and line and not line.startswith(" "):
            found[""].append(line)
            name = ""
        else:
            found[name].append(line.removeprefix("    ") if name else line)
    return found


def entries(lines: list[str], known: Collection[str]) -> list[tuple[list[str], str]]:
    """Names and text of each argument. One that shares a line begins a sentence, and its name is `known`."""
    found: list[tuple[list[str], str]] = []
    for line in lines:
        first = FIRST.match(line)
        if first:
            found.append((first[1].lstrip("*").split(", "), line[first.end() :].strip()))
        elif found and line.strip():
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}".strip())
    apart: list[tuple[list[str], str]] = []
    for names, text in found:
        cuts = [m for m in FURTHER.finditer(text) if set(m[1].split(", ")) <= set(known)]
        ends = [m.start() for m in cuts] + [len(text)]
        apart.append((names, text[: ends[0]].strip()))
        apart += [(m[1].split(", "), text[m.end() : end].strip()) for m, end in zip(cuts, ends[1:], strict=True)]
    return apart


def parameters(thing: Any) -> dict[str, inspect.Parameter]:
    """What a function, or the constructor of a class of this package, takes."""
    if isinstance(thing, type):
        made = next((c for c in thing.__mro__ if "__init__" in vars(c) or "__new__" in vars(c)), object)
        maker = vars(made).get("__init__") or vars(made).get("__new__")
        if not made.__module__.startswith("diffpolicy") or getattr(thing, "_is_protocol", False):
            return {}
        rest = list(inspect.signature(maker).parameters.values())[1:] if inspect.isfunction(maker) else []
        return {p.name: p for p in rest}
    return dict(inspect.signature(thing).parameters)


def one_a_line(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Gives each argument a line of its own in the section `Args`, which may stand on the first line."""
    if not callable(thing):
        return
    try:
        taken = [each for each in parameters(thing) if each not in ("self", "cls")]
    except (TypeError, ValueError):
        return
    known = {*taken, "others"}
    if lines and " Args: " in lines[0]:
        head, told = lines[0].split(" Args: ", 1)
        if not FIRST.match(told):  # "of `kernel`; i: 1..I.": of all that are not named apart
            apart = {name for cut in FURTHER.finditer(told) for name in cut[1].split(", ")}
            told = f"{', '.join(each for each in taken if each not in apart)}: {told.removeprefix('both ')}"
        if FIRST.match(told):
            lines[:1] = [head, "", "Args:", f"    {told}"]
    if "Args:" not in lines:
        return
    begin = lines.index("Args:") + 1
    end = next((n for n in range(begin, len(lines)) if lines[n] and not lines[n].startswith(" ")), len(lines))
    given = [line.removeprefix("    ") for line in lines[begin:end]]
    if not FIRST.match(given[0]) or any(not line.strip() for line in given[:-1]):  # text, whose lines matter
        return
    told = [(names, f"\\{text}" if LETTER.match(text) else text) for names, text in entries(given, known)]  # no list
    lines[begin:end] = [f"    {', '.join(names)}: {text}" for names, text in told] + [""]


def whole(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Puts the docstring of a property together again; napoleon takes what stands before its first colon for a type."""
    at = next((k for k, line in enumerate(lines) if line.startswith(":type: ")), 0)
    if at and what in {"property", "attribute", "data"}:
        lines[0] = f"{lines.pop(at).removeprefix(':type: ')}: {lines[0]}"


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", one_a_line, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", whole, priority=600)  # behind it
    return {"parallel_read_safe": True, "parallel_write_safe": True}
