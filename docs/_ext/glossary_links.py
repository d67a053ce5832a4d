"""Links the words of the glossary where a page uses them first, so that no page has to remember to.

Words that mean something else as often as not (a cost, a step, a head, a process, draws, a price) are linked by hand,
by `` {term}`cost` ``. Where a page uses another of the words in another sense, it is named in `OTHERWISE`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

NOUNS = (
    *("action memory", "service delay", "action", "agent", "backlog", "baseline", "capacity", "chain", "choice"),
    *(
        "breaker",
        "dead time",
        "control",
        "denoiser",
        "digest",
        "dispatcher",
        "episode",
        "fleet",
        "guidance",
        "item",
        "lane",
        "least finish",
        "least outstanding cost",
        "mask",
        "method",
        "observation",
        "policy",
        "preset",
        "prior",
        "problem",
    ),
    *("ratio", "rule", "sampler", "scenario", "slot", "station", "task", "token", "transition", "workload"),
)
OTHERWISE = {
    "extending": ("slot", "ratio"),
    "methods": ("slot",),
    "methods/ppo": ("ratio",),
    "methods/fpo": ("ratio",),
    "methods/mirror_descent": ("ratio",),
    "concepts/joint_actions": ("slot",),
    "deciding": ("method",),
    "neighbours": ("token",),
    "profiling": ("method", "token"),
    "serving/running": ("token",),
    "serving/serve": ("token",),
    "serving/worker": ("token",),
    "training": ("ratio", "token"),
}
"""Words by page that mean something else there."""
NOT_IN = (
    *(nodes.reference, nodes.title, nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.term),
    *(nodes.citation, nodes.field_name, nodes.option_string, nodes.raw, nodes.table, addnodes.desc, addnodes.toctree),
)
ELSEWHERE = ("reference/", "changelog", "contributing", "glossary", "citation", "references", "security")
"""Pages without such links: those of code, and those that are not about the subject."""


def pattern(word: str) -> re.Pattern[str]:
    """A noun in the singular or plural, but no part of a longer name. Args: word: in the singular."""
    many = f"{word[:-1]}(?:y|ies)" if word.endswith("y") else f"{word}s?"
    before, after = ("(?<!chain )", "(?! by which)") if word == "rule" else ("", "(?! rule)" * (word == "chain"))
    return re.compile(rf"(?<![\w./:-]){before}{many}(?![\w/:-]){after}", re.IGNORECASE)


PATTERNS = {word: pattern(word) for word in NOUNS}


def linked(node: nodes.reference) -> str | None:
    """The word that a link to the glossary is of, if it is one."""
    where = node.get("refuri") or node.get("refid") or ""
    return where.rpartition("#term-")[2].replace("-", " ") if "term-" in where else None


def prose(tree: nodes.document) -> Iterator[nodes.Text | nodes.reference]:
    """Links, and texts that may become links, in reading order."""
    for node in tree.findall(lambda node: isinstance(node, nodes.Text | nodes.reference)):
        if isinstance(node, nodes.reference):
            yield node
            continue
        above = node.parent
        while above is not None and not isinstance(above, NOT_IN):
            above = above.parent
        if above is None:
            yield node


def link_words(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Makes a link of the first use of each word that is none yet. Args: as Sphinx calls it."""
    if app.builder.format != "html" or page.startswith(ELSEWHERE):
        return
    wanted = {word: seen for word, seen in PATTERNS.items() if word not in OTHERWISE.get(page, ())}
    for node in list(prose(tree)):
        if isinstance(node, nodes.reference):
            wanted.pop(linked(node) or "", None)
            continue
        found = [
            (match.start(), -len(word), word, match) for word, seen in wanted.items() if (match := seen.search(node))
        ]
        parts, at = [], 0
        for start, _, word, match in sorted(found, key=lambda each: each[:2]):
            if start < at:
                continue
            link = _link(app, page, word, match.group())
            if link is not None:
                parts += [nodes.Text(node[at:start]), link]
                at = match.end()
                del wanted[word]
        if parts:
            node.parent.replace(node, [*parts, nodes.Text(node[at:])])


def _link(app: Sphinx, page: str, word: str, shown: str) -> nodes.Element | None:
    """A link to a word of the glossary, None where it has no such word."""
    target = addnodes.pending_xref("", refdomain="std", reftype="term", reftarget=word)
    content = nodes.inline("", shown, classes=["std", "std-term"])
    return app.env.get_domain("std").resolve_xref(app.env, page, app.builder, "term", word, target, content)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-resolved", link_words)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
