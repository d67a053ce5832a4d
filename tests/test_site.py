"""What a build of the site relies on: names of other packages, the offline check, the tree, files in the root."""

import fnmatch
import importlib
import re
import sys
from pathlib import Path

import pytest

from diffpolicy import problems
from diffpolicy.experiments.problem_names import PROBLEMS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


@pytest.fixture
def checks(monkeypatch):
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    yield importlib.import_module("checks")
    sys.modules.pop("checks")


def found(path):
    """The object of a dotted path of a module, a class or one of the builtins."""
    parts = path.split(".")
    for n in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:n]))
        except ImportError:
            continue
        for part in parts[n:]:
            thing = getattr(thing, part)
        return thing
    return getattr(importlib.import_module("builtins"), path)


@pytest.mark.parametrize("inventory", sorted(DOCS.glob("inventories/*.inv")), ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore")
def test_every_name_of_an_inventory_is_there(inventory):
    head, *lines = inventory.read_text(encoding="utf-8").splitlines()
    assert head == "# Sphinx inventory version 1"
    names = [line.split() for line in lines if not line.startswith("#")]
    assert all(len(row) == 3 and row[2].endswith(".html") for row in names)
    assert [row[0] for row in names] == sorted({row[0] for row in names})
    for name, kind, _ in names:
        assert isinstance(found(name), type) or kind in ("function", "data", "class"), name


@pytest.mark.parametrize(
    ("text", "loads"),
    [
        ('<script src="https://cdn.example/x.js"></script>', True),
        ('<img alt="a" src="//cdn.example/x.png">', True),
        ('<link rel="stylesheet" href="https://cdn.example/x.css">', True),
        ("<style>@import url('https://cdn.example/x.css');</style>", True),
        ("<style>a { background: url(https://cdn.example/x.png) }</style>", True),
        ('<a href="https://example.org">a link is the reader\'s choice</a>', False),
        ('<link rel="canonical" href="https://example.org/page">', False),
        ('<script src="_static/x.js"></script><img src="x.png">', False),
    ],
)
def test_what_a_page_loads_from_elsewhere_is_found(checks, tmp_path, text, loads):
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    assert checks.loads_from_elsewhere(tmp_path) == (["page.html"] if loads else [])


def test_every_field_of_a_preset_is_told_and_every_preset_has_a_page_with_its_parameters(monkeypatch):
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    tables = importlib.import_module("method_tables")
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "methods").glob("*.md"))
    listed = {name for line in re.findall(r"```\{parameters\} (.*)", pages) for name in line.split()}
    assert listed == set(tables.PRESETS)
    for name in tables.PRESETS:
        rows = list(tables.parameters([name]))[2:]
        assert all(row.count("|") == 5 and row.split("|")[2].strip() for row in rows)
        assert {row.split("`")[1] for row in rows} == set(tables.meanings(type(tables.make_method(name))))
    shown = list(tables.capabilities(["dqn", "lad"]))
    others = len(tables.ACTIONS) - 1  # kinds of actions that are not one choice
    assert shown[2].startswith(f"| `dqn` | yes |{' no |' * others} yes |")
    assert "* items together: `lad` refuses, since a memory is of single items; use a GaussianPrior." in shown


def test_every_page_stands_in_the_tree_of_the_landing_page():
    trees = re.findall(r"```\{toctree\}(.*?)```", (DOCS / "index.md").read_text(encoding="utf-8"), re.DOTALL)
    assert all(":caption:" in tree for tree in trees)
    named = {line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")}
    pages = {str(p.relative_to(DOCS).with_suffix("")) for p in DOCS.rglob("*.md")}
    pages = {p for p in pages if not p.startswith(("reference/", "tutorials/", "_"))} - {"index"}
    assert {line for line in named if not fnmatch.filter(pages, line)} == {"tutorials/index", "reference/index"}
    assert not [page for page in pages if not any(fnmatch.fnmatch(page, line) for line in named)]


TEMPLATES = {
    "methods": ["Paper", "What it can", "Example", "Results", "Parameters"],
    "problems": [
        "What is decided",
        "Specs",
        "Rules",
        "The best possible",
        "Example",
        "Results",
        "Commands",
    ],
}
"""Headings of a page, by its folder; between them there may be others."""


@pytest.mark.parametrize(
    "page",
    [p for folder in TEMPLATES for p in sorted(DOCS.glob(f"{folder}/*.md")) if p.stem != "index"],
    ids=lambda p: f"{p.parent.name}/{p.stem}",
)
def test_the_page_of_a_method_or_problem_has_the_parts_of_its_template(page):
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    wanted = TEMPLATES[page.parent.name]
    assert [heading for heading in headings if heading in wanted] == wanted
    parts = re.split(r"^## .+$", text, flags=re.MULTILINE)[1:]
    assert all(part.strip() for part in parts), "an empty part"
    assert "```python" in parts[headings.index("Example")]


def test_every_entry_of_the_references_is_closed_and_every_citation_has_one():
    text = (DOCS / "references.bib").read_text(encoding="utf-8")
    entries = re.split(r"^@", text, flags=re.MULTILINE)[1:]
    for entry in entries:
        assert entry.count("{") == entry.count("}"), entry
    keys = [re.match(r"\w+\{([^,\s]+),", entry)[1] for entry in entries]
    assert len(keys) == len({*keys}) > 10
    pages = "".join(page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md"))
    cited = {key for cell in re.findall(r"\{cite\}`([^`]+)`", pages) for key in cell.split(",")}
    assert cited <= {*keys}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"])
def test_a_file_in_the_root_links_to_files_that_are_there(page):
    """The build looks at links between the pages; these are read elsewhere."""
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)|(?:src|srcset)=\"([^\"]+)\"", text)
    for link in {a or b for a, b in links if not re.match(r"\w+:", a or b)}:
        assert (ROOT / link).is_file(), f"{page}: {link}"


@pytest.mark.parametrize("name", [name for name, home in PROBLEMS.items() if ".problems." in home])
def test_a_problem_of_the_package_has_all_that_goes_with_it(name):
    """A half of a contribution passed every test."""
    index = (DOCS / "problems" / "index.md").read_text(encoding="utf-8")
    assert (DOCS / "problems" / f"{name}.md").is_file(), "a page of its own"
    assert f"| {{doc}}`{name}` |" in index, "a row in docs/problems/index.md"
    module, _, attribute = PROBLEMS[name].partition(":")
    short = module.rpartition(".")[2]
    assert (ROOT / "examples" / "problems" / f"{short}.py").is_file(), "an example"
    assert short in problems.HOMES.values(), "its names in problems/__init__.py"
    kind = getattr(importlib.import_module(module), attribute)
    assert not isinstance(kind, type) or attribute in problems.__all__


def test_every_test_and_file_that_contributing_names_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tests = set(re.findall(r"`(tests/[\w.]+)`", text))
    sources = set(re.findall(r"`((?:\w+/)+[\w.]*)`", text)) - tests
    assert len(tests) > 10
    assert all((ROOT / name).exists() for name in tests)
    here = (ROOT, ROOT / "src" / "diffpolicy")
    assert not [name for name in sources if not any((root / name).exists() for root in here)]


def test_every_public_name_stands_in_the_reference(checks):
    """The build checks it too, and sees more; this takes a second, and so is seen by whoever adds a name."""
    pages = [*DOCS.glob("reference/*.md"), DOCS / "team_credit.md"]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    listed = re.findall(r"^\.\. (?:auto|py:)\w+:: (diffpolicy\.[\w.]+)", text, re.MULTILINE)
    documented = [found(path) for path in listed]
    for layer in checks.LAYERS:
        package = importlib.import_module(f"diffpolicy{layer}")
        for name in package.__all__:
            thing = getattr(package, name)
            assert any(thing is other for other in documented) or f"diffpolicy{layer}.{name}" in listed, (layer, name)


def test_a_tutorial_shows_the_tables_that_it_plots(monkeypatch):
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    drawn = importlib.import_module("drawn_tables")
    assert drawn.tables('cli.main("plot runs/a.csv ../b/c_d.csv --out runs".split())') == ["runs/a.csv", "../b/c_d.csv"]
    assert drawn.tables('"plot"; read_csv("runs/log.csv")') == []
    sys.modules.pop("drawn_tables")
