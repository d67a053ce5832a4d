"""Beside every HTML page the same page as Markdown, and `llms.txt`, which lists them for readers that are programs.

`llms.txt` follows https://llmstxt.org: the project's name, a sentence, and the pages under the captions of the tree.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import docname_join
from sphinx.util.display import status_iterator
from sphinx_markdown_builder.builder import MarkdownBuilder
from sphinx_markdown_builder.translator import MarkdownTranslator


class PageTranslator(MarkdownTranslator):
    """What Markdown has no form for, such as a card or an abbreviation, keeps its content."""

    def unknown_visit(self, node: nodes.Node) -> None:
        pass

    def unknown_departure(self, node: nodes.Node) -> None:
        pass

    def visit_image(self, node: nodes.Element) -> None:
        """A picture, as the HTML page finds it: the build has copied it to `_images`."""
        uri = node.get("uri", "").lstrip("/")
        if "://" not in uri:
            up = "../" * self.builder.current_doc_name.count("/")
            uri = f"{up}_images/{self.builder.images.get(uri, PurePosixPath(uri).name)}"
        self.ensure_eol(2)
        self.add(f"![{node.get('alt', 'picture')}]({uri})")
        self.ensure_eol(2)

    def visit_imgsgnode(self, node: nodes.Element) -> None:
        """A picture of sphinx-gallery."""
        self.visit_image(node)

    def visit_code_links_block(self, node: nodes.Element) -> None:
        """Python of sphinx-gallery, whose names are links on the HTML page: here it is to be copied."""
        self.add(f"```python\n{node.astext().rstrip()}\n```", prefix_eol=2, suffix_eol=2)
        raise nodes.SkipNode

    def visit_container(self, node: nodes.Element) -> None:
        """A card, say."""
        self.ensure_eol(2)

    def depart_container(self, node: nodes.Element) -> None:
        self.ensure_eol(2)

    def visit_label(self, node: nodes.Node) -> None:
        pass

    def depart_label(self, node: nodes.Node) -> None:
        pass


class PageBuilder(MarkdownBuilder):
    """Writes Markdown from the doctrees of a build of HTML."""

    name = "markdown-pages"
    default_translator_class = PageTranslator


def write_pages(app: Sphinx, folder: Path) -> None:
    """`folder/PAGE.md` for every page."""
    builder = PageBuilder(app, app.env)
    builder.init()
    builder.outdir = folder
    builder.images = app.builder.images
    builder.prepare_writing(set(app.env.found_docs))
    html, app.builder = app.builder, builder
    try:
        for name in status_iterator(sorted(app.env.found_docs), "writing Markdown... ", "darkgreen", app.verbosity):
            builder.write_doc(name, app.env.get_and_resolve_doctree(name, builder))
    finally:
        app.builder = html


def first_sentence(app: Sphinx, page: str) -> str:
    """What a page says first, in one line; another page is called by its title."""
    tree = app.env.get_doctree(page)
    first = next((p for p in tree.findall(nodes.paragraph) if isinstance(p.parent, nodes.section)), nodes.paragraph())
    for link in list(first.findall(addnodes.pending_xref)):
        if link.get("reftype") == "doc" and not link["refexplicit"]:
            other = docname_join(page, link["reftarget"])
            if other in app.env.titles:
                link.replace_self(nodes.Text(app.env.titles[other].astext()))
    return first.astext().replace("\n", " ").partition(". ")[0].rstrip(".:") + "."


def llms(app: Sphinx) -> str:
    """The text of `llms.txt`."""
    env = app.env
    root = app.config.root_doc

    def below(page: str) -> list[str]:
        return [page, *(p for child in env.toctree_includes.get(page, []) for p in below(child))]

    lines = [f"# {app.config.project}", "", f"> {first_sentence(app, root)}", ""]
    for tree in env.get_doctree(root).findall(addnodes.toctree):
        lines += [f"## {tree['caption']}", ""]
        for _, entry in tree["entries"]:
            for page in below(entry) if entry in env.found_docs else []:
                lines.append(f"- [{env.titles[page].astext()}]({page}.md): {first_sentence(app, page)}")
        lines.append("")
    return "\n".join(lines)


def write_all(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.name in ("html", "dirhtml"):
        write_pages(app, Path(app.outdir))
        (Path(app.outdir) / "llms.txt").write_text(llms(app), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("sphinx_markdown_builder")
    app.connect("build-finished", write_all)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
