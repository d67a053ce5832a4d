"""Keeps a number and what follows it on one line: no break around the sign of an interval."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx

SIGN, KEPT = " ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"


def keep_together(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Replaces the spaces around each ± of the text; code stays as it is."""
    for text in list(tree.findall(nodes.Text)) if app.builder.format == "html" else ():
        if SIGN in text and not isinstance(text.parent, nodes.literal | nodes.literal_block):
            text.parent.replace(text, nodes.Text(text.replace(SIGN, KEPT)))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-resolved", keep_together)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
