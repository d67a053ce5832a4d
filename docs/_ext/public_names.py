"""Links of types: annotations name the module that defines a class, documentation the package that exports it.

`tensordict.base.TensorDictBase` is documented as `tensordict.TensorDictBase`. The two are one object, and by that the
documented name is found, among our own names and those of `docs/inventories`.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.ext.intersphinx import InventoryAdapter, missing_reference
from sphinx.util.inspect import signature as signature_of
from sphinx.util.inspect import stringify_signature


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


def true_signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """The constructor's signature where a metaclass hides it behind `(*args, **kwargs)`, as TorchRL's does."""
    if what == "class" and signature == "(*args, **kwargs)":
        real = signature_of(thing.__init__, bound_method=True)
        signature = stringify_signature(real, show_return_annotation=False, unqualified_typehints=True)
    return signature, returns


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("missing-reference", resolve, priority=900)
    app.connect("autodoc-process-signature", true_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
