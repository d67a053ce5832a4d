"""Tables of methods, made from what they declare, their dataclasses and their presets, when the pages are built.

    ```{capabilities} d2sac lad
    ```

stands for what presets can train, of all that serve any problem where none is named, and

    ```{parameters} d2sac lad
    ```

for every field of these presets' dataclasses: what it is, its default, and what presets say instead.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from importlib import import_module, resources
from typing import Any

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from diffpolicy.experiments.method_names import PRESETS, make_method
from diffpolicy.methods import Method
from diffpolicy.methods.capabilities import ACTIONS, SITUATIONS, Capabilities

ANY = tuple(name for name, package in PRESETS.items() if package == "diffpolicy.methods" and "-plus" not in name)
"""Presets that serve any problem; each beside its form with normalised observations, which can the same."""
SECTIONS = re.compile(r"^(Args|Attributes|Returns|Raises|Example):\s*$", re.MULTILINE)

OF_ANOTHER = re.compile(r"^of `\w+`")
"""Where a docstring leaves it to a base's."""


def capabilities(names: Sequence[str]) -> Iterator[str]:
    """What presets can train, a row each; a reason for each refusal follows. Args: names: of presets."""
    found = {name: Capabilities.of(make_method(name)) for name in names}
    yield f"| preset | {' | '.join(ACTIONS)} | {' | '.join(SITUATIONS)} |"
    yield "| --- " * (1 + len(ACTIONS) + len(SITUATIONS)) + "|"
    for name, can in found.items():
        decides = [_mark(not why) for why in can.refused.values()]
        serves = [_mark(situation in can.serves) for situation in SITUATIONS]
        yield f"| `{name}` | {' | '.join([*decides, *serves])} |"
    reasons: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for name, can in found.items():
        for why in dict.fromkeys(why for why in can.refused.values() if why):
            kinds = tuple(kind for kind, given in can.refused.items() if given == why)
            reasons.setdefault((kinds, why), []).append(f"`{name}`")
    yield ""
    for (kinds, why), whose in reasons.items():
        yield f"* {', '.join(kinds)}: {', '.join(whose)} refuse{'s' * (len(whose) == 1)}, since {why}."


def parameters(names: Sequence[str]) -> Iterator[str]:
    """All fields of presets' dataclasses, a row each. Args: names: of presets."""
    methods = {name: make_method(name) for name in names}
    told = {name: written(name) for name in names}
    every: dict[str, Field[Any]] = {f.name: f for method in methods.values() for f in fields(method) if f.init}
    meaning: dict[str, str] = {}
    for method in methods.values():
        meaning |= {name: text for name, text in meanings(type(method)).items() if name not in meaning}
    yield f"| parameter | what it is | default | {f'`{names[0]}`' if len(names) == 1 else 'presets that differ'} |"
    yield "| --- | --- | --- | --- |"
    for name, field in every.items():
        given = {preset: told[preset][name] for preset in names if name in told[preset]}
        cells = {preset: _value(it, ", ") for preset, it in given.items() if _value(it) != _default(field)}
        yield f"| `{name}` | {meaning[name]} | {_default(field)} | {_of_presets(cells, len(names))} |"


def _of_presets(cells: Mapping[str, str], number: int) -> str:
    """What presets say instead, each value once, with those that have it. Args: number: of all presets."""
    if not cells or (len(cells) == number and len(set(cells.values())) == 1):
        return next(iter(cells.values()), "") + " (all)" * bool(cells and number > 1)
    whose = {value: [name for name, given in cells.items() if given == value] for value in cells.values()}
    return "<br>".join(f"{value} ({', '.join(f'[{x}]{{.kept}}' for x in names)})" for value, names in whose.items())


def written(name: str) -> dict[str, Any]:
    """What a preset's file says. Args: name: of a preset."""
    file = resources.files(import_module(PRESETS[name])) / "presets" / f"{name}.yaml"
    return dict(yaml.safe_load(file.read_text(encoding="utf-8"))["init_args"])


def meanings(kind: type[Method]) -> dict[str, str]:
    """What each field is, as the docstrings of a dataclass and its bases say under `Args`.

    Raises:
        ValueError: names the fields of which none says it.
    """
    names = [f.name for f in fields(kind) if f.init]
    found: dict[str, str] = {}
    for base in kind.__mro__:
        if "__doc__" in vars(base) and base.__module__.startswith("diffpolicy."):
            for name, text in _args(inspect.cleandoc(base.__doc__ or ""), names).items():
                found[name] = OF_ANOTHER.sub(text, found[name]) if name in found else text
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"no docstring says what {', '.join(missing)} of {kind.__name__} are")
    return found


def _args(doc: str, names: Sequence[str]) -> dict[str, str]:
    """`Args: a: of this. b, c: of that.` by name."""
    parts = SECTIONS.split(doc)
    text = next((body for head, body in zip(parts[1::2], parts[2::2], strict=True) if head == "Args"), "")
    one = f"(?:{'|'.join(map(re.escape, names))}|others)"
    cut = re.split(rf"(?:^|(?<=\.)\s)\s*({one}(?:, {one})*): ", " ".join(text.split()))
    result = {}
    for given, what in zip(cut[1::2], cut[2::2], strict=True):
        result |= dict.fromkeys(given.split(", "), what.strip().rstrip("."))
    return {name: what for name, what in result.items() if name in names}


def _mark(yes: bool) -> str:
    return "yes" if yes else "no"


def _default(field: Field[Any]) -> str:
    if field.default is not MISSING:
        return _value(field.default)
    return _value(field.default_factory()) if field.default_factory is not MISSING else "to be given"


def _value(value: Any, between: str = "<br>") -> str:
    """A value as a YAML file has it. Args: between: two entries of a mapping."""
    if isinstance(value, Mapping):
        return between.join(f"`{key}: {_plain(each)}`" for key, each in value.items())
    return f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10**4).removesuffix("\n").removesuffix("\n...")
    return text.rpartition(".")[2] if text.startswith("diffpolicy.") else text


class Table(SphinxDirective):
    """`{capabilities} PRESET...` and `{parameters} PRESET...`."""

    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        names = self.arguments[0].split() if self.arguments else list(ANY)
        make = {"capabilities": capabilities, "parameters": parameters}[self.name]
        if unknown := [name for name in names if name not in PRESETS]:
            raise self.error(f"there is no preset {', '.join(unknown)}")
        try:
            lines = list(make(names))
        except ValueError as error:
            raise self.error(str(error)) from None
        self.env.note_dependency(__file__)
        node = nodes.container(classes=[self.name])
        self.state.nested_parse(StringList(lines, source=__file__), self.content_offset, node)
        return [node]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("capabilities", Table)
    app.add_directive("parameters", Table)
    return {"parallel_read_safe": True}
