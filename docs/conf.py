"""Sphinx builds these pages, and browsers show them, without a network: `sphinx-build -W -b html docs OUT`."""

from __future__ import annotations

import importlib
import importlib.util
import re
import runpy
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.inspect import signature as signature_of
from sphinx.util.inspect import stringify_signature

logger = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parent.parent

project = "diffpolicy"
author = "The diffpolicy developers"
copyright = author
release = version = runpy.run_path(str(ROOT / "src" / "diffpolicy" / "_version.py"))["__version__"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"diffpolicy {release}"

# formulas must be drawn without a network too, so MathJax is part of the pages; the package's name is no identifier
_mathjax = importlib.util.find_spec("sphinx-mathjax-offline")
if _mathjax is None or _mathjax.origin is None:
    raise ImportError("the docs need the extra 'docs': pip install -c constraints.txt '.[docs]'")
html_static_path = [str(Path(_mathjax.origin).parent / "static" / "mathjax" / "tex-svg.js")]
mathjax_path = "tex-svg.js"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Docstrings: single backticks are code; what TorchRL and Lightning document is read there.
default_role = "code"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
maximum_signature_line_length = 100
autodoc_default_options = {"members": True}
autosummary_generate = False
python_use_unqualified_type_names = True

LAYERS = (
    "",
    ".diffusion",
    ".networks",
    ".policies",
    ".policies.heads",
    ".environments",
    ".objectives",
    ".training",
    ".methods",
    ".evaluation",
    ".experiments",
    ".edge",
    ".edge.hardware",
    ".export",
)


def check_public_names(app: Sphinx, env: Any) -> None:
    """Warns of every public name of a layer that no page of the reference documents, as this or another layer's."""
    documented = env.get_domain("py").objects
    packages = [importlib.import_module(f"diffpolicy{layer}") for layer in LAYERS]
    for package in packages:
        for name in package.__all__:
            same = [p for p in packages if getattr(p, name, None) is getattr(package, name)]
            if not any(f"{p.__name__}.{name}" in documented for p in same):
                logger.warning("%s.%s is public and not in the reference", package.__name__, name)


def check_sources(app: Sphinx, exception: Exception | None) -> None:
    """Warns of what a page loads from elsewhere: scripts, styles, pictures."""
    loads = re.compile(
        r"""<(?:script|img|link(?=[^>]* rel="(?:stylesheet|icon|preload)"))[^>]* (?:src|href)="(?:https?:)?//"""
    )
    for page in Path(app.outdir).rglob("*.html") if exception is None else ():
        if loads.search(page.read_text(encoding="utf-8")):
            logger.warning("%s loads something from elsewhere, so that it is not whole without a network", page.name)


def true_signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """The constructor's signature where a metaclass hides it behind `(*args, **kwargs)`, as TorchRL's does."""
    if what == "class" and signature == "(*args, **kwargs)":
        real = signature_of(thing.__init__, bound_method=True)
        signature = stringify_signature(real, show_return_annotation=False, unqualified_typehints=True)
    return signature, returns


def setup(app: Sphinx) -> None:
    app.connect("env-check-consistency", check_public_names)
    app.connect("autodoc-process-signature", true_signature)
    app.connect("build-finished", check_sources)
