"""The reference of the command line, made from its parser, so that it says what the commands take.

    ```{command} train
    ```

stands for a command's usage, its options in their groups and its examples; `all` for a table of the commands, and
`shared` for the options of every command.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from diffpolicy.cli.known import word_of
from diffpolicy.cli.main import COMMANDS, GROUPS, command_name, parser

SHARED = "common to all commands"


def commands() -> dict[str, argparse.ArgumentParser]:
    """Each command's parser, by its name."""
    return next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction)).choices


def reference(name: str) -> str:
    """What the directive stands for, as Markdown. Args: name: of a command, or `all` or `shared`."""
    if name == "all":
        return "\n".join(overview())
    found = commands()
    if name == "shared":
        return "\n".join(table(options(found["list"], SHARED)))
    if name not in found:
        raise ValueError(f"there is no command {name!r}; there are {', '.join(found)}")
    module = next(module for module in COMMANDS if command_name(module) == name)
    usage = str(found[name].usage).replace("%(prog)s", found[name].prog)
    lines = ["```console", f"$ {usage}", "```", ""]
    for title in (group.title for group in found[name]._action_groups):
        rows = options(found[name], title)
        if title == SHARED or not rows:
            continue
        if title not in ("positional arguments", "options"):
            lines += [f"{title[0].upper()}{title[1:]}:", ""]
        lines += [*table(rows), ""]
    return "\n".join([*lines, "```console", *(f"$ {example}" for example in module.EXAMPLES), "```"])


def overview() -> Iterator[str]:
    """The commands in their groups, with links to their sections."""
    yield from ("| command | does |", "| --- | --- |")
    for title, modules in GROUPS.items():
        yield f"| *{title}* | |"
        for module in modules:
            name = command_name(module)
            yield f"| [`{name}`](#{name}) | {cell(module.HELP)} |"


def options(command: argparse.ArgumentParser, title: str) -> list[tuple[str, str]]:
    """What a group of a command's help shows: how each option is typed, and what it is."""
    group = next(group for group in command._action_groups if group.title == title)
    return [
        (typed(action), str(action.help))
        for action in group._group_actions
        if action.help != argparse.SUPPRESS and not isinstance(action, argparse._HelpAction)
    ]


def typed(action: argparse.Action) -> str:
    """An option with the word that stands for its value."""
    words = "|".join(map(str, action.choices or ())) if not word_of(action) else str(action.metavar)
    value = "" if action.nargs == 0 else words or action.dest.upper()
    value = f"[{value}]" if action.nargs == "?" and value else value
    return " ".join([", ".join(action.option_strings), value]).strip()


def table(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Options as a table."""
    yield from ("| option | what it is |", "| --- | --- |")
    for option, told in rows:
        yield f"| `{cell(option)}` | {cell(told)} |"


def cell(text: str) -> str:
    """A text in a table; an option that it names is code, where no dashes are made of hyphens."""
    plain = text.replace("%%", "%").replace("|", r"\|").replace("<", r"\<")
    return plain if plain.startswith("-") else re.sub(r"(?<![\w`-])--?[a-z][a-z-]*", r"`\g<0>`", plain)


class Command(SphinxDirective):
    """`{command} NAME`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        try:
            text = reference(self.arguments[0])
        except ValueError as error:
            raise self.error(str(error)) from None
        node = nodes.container()
        self.state.nested_parse(StringList(text.splitlines(), source=__file__), self.content_offset, node)
        return node.children


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("command", Command)
    return {"parallel_read_safe": True}
