"""Sphinx builds these pages, and browsers show them, without a network: `sphinx-build -W -b html docs OUT`."""

from __future__ import annotations

import importlib.util
import runpy
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE / "_ext"))

project = "diffpolicy"
author = "The diffpolicy developers"
copyright = author
release = version = runpy.run_path(str(ROOT / "src" / "diffpolicy" / "_version.py"))["__version__"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "sphinxcontrib.bibtex",
    "arguments",
    "checks",
    "command_line",
    "glossary_links",
    "markdown_pages",
    "method_tables",
    "public_names",
    "typography",
]
exclude_patterns = ["_build", "_ext", "tutorials/*.ipynb"]
html_theme = "furo"
html_title = f"diffpolicy {release}"
html_css_files = ["site.css"]
html_theme_options = {"top_of_page_buttons": []}

# formulas must be drawn without a network too, so MathJax is part of the pages; the package's name is no identifier
_mathjax = importlib.util.find_spec("sphinx-mathjax-offline")
if _mathjax is None or _mathjax.origin is None:
    raise ImportError("the docs need the extra 'docs': pip install -c constraints.txt '.[docs]'")
html_static_path = ["_static", str(Path(_mathjax.origin).parent / "static" / "mathjax" / "tex-svg.js")]
mathjax_path = "tex-svg.js"

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# What others document is linked in their pages. Builds have no network, so each inventory is a text in the tree, in the
# first version of Sphinx's format: a line `NAME KIND PAGE`, where the anchor is the name. A test imports every name.
intersphinx_mapping = {
    name: (url, f"inventories/{name}.inv")
    for name, url in {
        "python": "https://docs.python.org/3/",
        "numpy": "https://numpy.org/doc/stable/",
        "torch": "https://docs.pytorch.org/docs/stable/",
        "tensordict": "https://docs.pytorch.org/tensordict/stable/",
        "torchrl": "https://docs.pytorch.org/rl/stable/",
        "lightning": "https://lightning.ai/docs/pytorch/stable/",
    }.items()
}

# The tutorials are scripts, run here: what they print and draw becomes the pages of docs/tutorials, which git ignores.
# A script that did not change is not run again. What they import of `mine*.py` are the reader's own files. What they
# warn of is shown without the path of the folder in which the pages were built.
warnings.formatwarning = lambda message, category, *place: f"{category.__name__}: {message}\n"
sphinx_gallery_conf = {
    "examples_dirs": "../examples/tutorials",
    "gallery_dirs": "tutorials",
    "filename_pattern": r"\.py$",
    "ignore_pattern": r"__init__\.py|mine(_\w+)?\.py",
    "image_scrapers": ("matplotlib", "drawn_tables"),
    "within_subsection_order": "gallery_order.ByTutorial",
    "capture_repr": (),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 3600,
    "write_computation_times": False,
    "notebook_extensions": set(),
    "reset_modules": ("matplotlib",),
}

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"
copybutton_exclude = ".linenos, .gp, .go"

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
