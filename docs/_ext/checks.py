"""Warnings, which are errors, of what a reader would stumble over: names without a page, pages that need a network."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)

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
    ".problems",
    ".edge",
    ".edge.dispatch",
    ".edge.hardware",
    ".edge.serving",
    ".edge.serving.worker",
    ".edge.serving.api",
    ".edge.serving.load",
    ".export",
)
# what a browser fetches by itself; where a link leads is the reader's choice
LOADS = re.compile(
    r"""<(?:script|img|iframe|source|link(?=[^>]* rel="(?:stylesheet|icon|preload|preconnect|search|manifest)"))"""
    r"""[^>]* (?:src|srcset|href)="(?:https?:)?//"""
    r"""|@import\s+(?:url\()?["']?(?:https?:)?//|url\(["']?(?:https?:)?//"""
)


def loads_from_elsewhere(folder: Path) -> list[str]:
    """The built pages and styles, relative to `folder`, that load something which is not part of the build."""
    files = [*folder.rglob("*.html"), *folder.rglob("*.css")]
    return sorted(
        str(file.relative_to(folder)) for file in files if LOADS.search(file.read_text("utf-8", errors="replace"))
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
    for page in loads_from_elsewhere(Path(app.outdir)) if exception is None and app.builder.format == "html" else ():
        logger.warning("%s loads something from elsewhere, so that it is not whole without a network", page)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("env-check-consistency", check_public_names)
    app.connect("build-finished", check_sources)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
