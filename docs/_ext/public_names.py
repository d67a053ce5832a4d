"""Links of types: annotations name the module that defines a class, documentation the package that exports it.

`tensordict.base.TensorDictBase` is documented as `tensordict.TensorDictBase`. The two are one object, and by that the
documented name is found, among our own names and those of `docs/inventories`. Names in the docstrings' text are linked
too, as far as nothing else is called so.
"""

from __future__ import annotations

import builtins
import dataclasses
import functools
import importlib
import re
import sys
from collections.abc import Iterable
from typing import Any, get_type_hints

from docutils import nodes
from numpy.typing import ArrayLike
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.ext.intersphinx import InventoryAdapter, missing_reference
from sphinx.util.inspect import signature as signature_of
from sphinx.util.inspect import stringify_signature
from sphinx.util.typing import stringify_annotation

NO_SYNTAX = re.compile(r"(?<== )<(?:[^<>]|<[^<>]*>)*>")
"""A default such as `<factory>` or `<function <lambda>>`."""
ARRAY = re.compile(r"~numpy\.ndarray\[(?:~typing\.Any|tuple\[~typing\.Any, \.\.\.\]), ~numpy\.dtype\[([^\[\]]+)\]\]")
"""What Sphinx writes of `numpy.typing.NDArray[...]`."""
ANYTHING = stringify_annotation(ArrayLike, "smart")
"""What it writes of `numpy.typing.ArrayLike`."""


def named(path: str) -> Any:
    """The object of a dotted path, or None."""
    parts = path.split(".")
    for n in range(len(parts) - 1, 0, -1):
        try:
            thing: Any = importlib.import_module(".".join(parts[:n]))
        except ImportError:
            continue
        for part in parts[n:]:
            thing = getattr(thing, part, None)
        return thing
    return None


@functools.lru_cache(maxsize=1)
def documented_names(env: Any) -> dict[int, str]:
    """The documented name of each class by the object's id; our own first."""
    theirs = [name for names in InventoryAdapter(env).main_inventory.values() for name in names]
    found: dict[int, str] = {}
    for name in [*env.get_domain("py").objects, *theirs]:
        thing = named(name)
        if isinstance(thing, type):
            found.setdefault(id(thing), name)
    return found


def resolve(app: Sphinx, env: Any, node: Any, content: nodes.TextElement) -> nodes.Element | None:
    """A link to the documented name of the same object."""
    if node.get("refdomain") != "py" or node.get("refdoc") is None:
        return None
    thing = named(node["reftarget"])
    name = documented_names(env).get(id(thing)) if isinstance(thing, type) else None
    if name is None or name == node["reftarget"]:
        return None
    domain = env.get_domain("py")
    if name in domain.objects:
        return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, content)
    node["reftarget"] = name
    return missing_reference(app, env, node, content)


def by_last_name(names: Iterable[str]) -> dict[str, str]:
    """Whole names by their last parts, where one alone ends so; words such as `linear` stay words."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.rpartition(".")[2], []).append(name)
    return {last: whole[0] for last, whole in found.items() if len(whole) == 1 and ("_" in last or last[0].isupper())}


def link_names(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Links the public names that stand as code in the text of the reference, but not a name's own."""
    if not page.startswith("reference/") or app.builder.format != "html":
        return
    domain = app.env.get_domain("py")
    objects = domain.objects.items()
    known = by_last_name(name for name, o in objects if o.objtype in ("class", "function") and not o.aliased)
    for code in list(tree.findall(nodes.literal)):
        name = known.get(code.astext())
        parents = [code.parent, code.parent.parent]
        if name is None or any(isinstance(parent, nodes.reference | nodes.title) for parent in parents):
            continue
        node = addnodes.pending_xref("", refdomain="py", reftype="obj", reftarget=name)
        link = domain.resolve_xref(app.env, page, app.builder, "obj", name, node, code.deepcopy())
        if link is not None and name not in _described(code):
            code.replace_self(link)


def _described(node: nodes.Node) -> list[str]:
    """What the descriptions that a node stands in are of."""
    ids: list[str] = []
    while node.parent is not None:
        node = node.parent
        if isinstance(node, addnodes.desc):
            ids += next(node.findall(addnodes.desc_signature))["ids"]
    return ids


class OnlyChecked(dict[str, Any]):
    """Of names that are imported for type checkers alone, classes that are called so. Args: names: that are known."""

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            raise KeyError(name)
        return type(name, (), {})


def true_signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """The constructor's signature where a metaclass hides it behind `(*args, **kwargs)`, as TorchRL's does.

    A default that has no syntax is written `...`: Sphinx would not read, break and link the whole signature otherwise.
    Fields that a dataclass inherits are annotated by names of the base's module, so all modules are looked through.
    """
    if what == "class" and signature == "(*args, **kwargs)":
        real = signature_of(thing.__init__, bound_method=True)
        signature = stringify_signature(real, show_return_annotation=False, unqualified_typehints=True)
    elif what == "class" and dataclasses.is_dataclass(thing) and signature:
        real = signature_of(thing.__init__, bound_method=True)
        if any(isinstance(each.annotation, str) for each in real.parameters.values()):
            names = {k: v for base in reversed(thing.__mro__) for k, v in vars(sys.modules[base.__module__]).items()}
            hints = get_type_hints(thing.__init__, names, OnlyChecked(names))
            found = [each.replace(annotation=hints[each.name]) for each in real.parameters.values()]
            real = real.replace(parameters=found)
            signature = stringify_signature(real, show_return_annotation=False, unqualified_typehints=True)
    if signature is not None:
        signature = NO_SYNTAX.sub("...", _arrays(signature))
    return signature, returns and _arrays(returns)


def _arrays(annotation: str) -> str:
    """An annotation in which the arrays of NumPy have the short names that code gives them."""
    short = annotation.replace(ANYTHING, "~numpy.typing.ArrayLike")
    return ARRAY.sub(r"~numpy.typing.NDArray[\1]", short)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("missing-reference", resolve, priority=900)
    app.connect("doctree-resolved", link_names)
    app.connect("autodoc-process-signature", true_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
