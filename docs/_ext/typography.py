"""What may break and what may not: the sign of an interval, formulas, code, and the cells of tables.

A cell of a few characters (a number, a name) stays on one line, and one of a sentence has room to be read; the page's
style does it by the classes `short` and `long`. A session of Python ends with an empty line where doctest reads it,
and without one where people do.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

SIGN, KEPT = " ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"
ESCAPED = re.compile(r"\\(\W)")
POINT = re.compile(r"(?<=[\w)\]][./=])(?=\w{3})")
PUNCTUATION = re.compile(r"[,.;:)\]]+")
TINY, SHORT, LONG = 10, 24, 40
"""Characters up to which a cell stays on one line always, or where there is room; beyond the last it is a sentence."""
PART, WORD = 16, 32
"""Characters of a word of code that stay on one line: in a cell of a table, and elsewhere, on a phone too."""

PRINTED, RULE, COLUMNS = "sphx-glr-script-out", "\N{BOX DRAWINGS LIGHT HORIZONTAL}" * 2, 100
"""The class of what a tutorial printed, what stands below the head of a table, and how wide tables are."""


def keep_together(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Replaces the spaces around each ± of the text; code stays as it is."""
    for text in list(tree.findall(nodes.Text)) if app.builder.format == "html" else ():
        if SIGN in text and not isinstance(text.parent, nodes.literal | nodes.literal_block):
            text.parent.replace(text, nodes.Text(text.replace(SIGN, KEPT)))


def keep_punctuation(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Keeps a formula and the comma or bracket behind it on one line; browsers break before it, as after a picture."""
    for formula in list(tree.findall(nodes.math)) if app.builder.format == "html" else ():
        after = formula.next_node(descend=False, siblings=True)
        if isinstance(after, nodes.Text) and (mark := PUNCTUATION.match(after)):
            parent, kept = formula.parent, nodes.inline(classes=["kept"])
            parent.replace(after, nodes.Text(after[mark.end() :]))
            parent.replace(formula, kept)
            kept += [formula, nodes.Text(mark.group())]


def keep_code(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Tells by `whole` and `breaks` which words of code may break; browsers would break `--seeds` behind its dashes."""
    for code in list(tree.findall(nodes.literal)) if app.builder.format == "html" else ():
        longest = max(map(len, code.astext().split()), default=0)
        code["classes"] += ["whole"] if longest <= PART else ["breaks"] if longest > WORD else []
        if longest > PART:
            _break_behind_points(code)


def keep_names(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Lets the module before a name that is described break behind its points."""
    for module in list(tree.findall(addnodes.desc_addname)) if app.builder.format == "html" else ():
        _break_behind_points(module)


def _break_behind_points(element: nodes.TextElement) -> None:
    """Marks where a long name may break, by an empty part that the page's style lets a line end at."""
    for text in [child for child in element if isinstance(child, nodes.Text)]:
        parts = POINT.split(text)
        marked = [each for part in parts for each in (nodes.Text(part), nodes.inline(classes=["may-end"]))]
        element.replace(text, marked[:-1])


def keep_formulas(app: Sphinx, tree: nodes.document) -> None:
    """Makes the indented lines of a docstring, which are formulas, a block whose lines stay as they stand there."""
    for quote in list(tree.findall(nodes.block_quote)):
        texts = [child.rawsource for child in quote if isinstance(child, nodes.paragraph)]
        if "docstring of" in (quote.source or "") and len(texts) == len(quote):
            text = ESCAPED.sub(r"\1", "\n\n".join(texts))
            quote.replace_self(nodes.literal_block(text, text, language="text"))


def end_sessions(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Takes the empty lines from the end of each block of code."""
    for block in list(tree.findall(nodes.literal_block)) if app.builder.format == "html" else ():
        if block.rawsource == block.astext() != block.rawsource.rstrip():
            block.rawsource = block.rawsource.rstrip()
            block[:] = [nodes.Text(block.rawsource)]


def wrap_sentences(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Gives what a tutorial printed the class `sentences` where it is too long for a line and no table."""
    for block in list(tree.findall(nodes.literal_block)) if app.builder.format == "html" else ():
        text = block.astext()
        if PRINTED in block["classes"] and RULE not in text and max(map(len, text.splitlines()), default=0) > COLUMNS:
            block["classes"].append("sentences")


def mark_cells(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Gives each cell of a table its class by the length of its text; a formula is of no known length."""
    for cell in list(tree.findall(nodes.entry)) if app.builder.format == "html" else ():
        parts = [part.strip() for part in cell.astext().splitlines()]
        length = max(map(len, parts), default=0)
        if not any(True for _ in cell.findall(nodes.math)) and not isinstance(cell.parent.parent, nodes.thead):
            cell["classes"] += ["short"] if length <= SHORT else ["long"] if length > LONG else []
            cell["classes"] += ["kept"] if length <= TINY else []


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", keep_formulas)
    app.connect("doctree-resolved", keep_together)
    app.connect("doctree-resolved", keep_punctuation)
    app.connect("doctree-resolved", keep_code)
    app.connect("doctree-resolved", keep_names)
    app.connect("doctree-resolved", end_sessions)
    app.connect("doctree-resolved", wrap_sentences)
    app.connect("doctree-resolved", mark_cells)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
