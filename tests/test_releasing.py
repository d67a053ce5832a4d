"""What the page of releases says was tried, and that the command that tries it counts and keeps what it finds."""

import csv
import re
import sys

import pytest

from diffpolicy import __version__
from test_docs_claims import ROOT, rows


@pytest.fixture
def matrix(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / ".ci"), *sys.path])
    import matrix

    return matrix


def test_each_supported_python_ran_the_same():
    tried = rows("matrix.csv")
    for row in tried:
        assert (row["pip check"], row["compare"], row["failed"]) == ("no quarrel", "runs", "0"), row
        assert int(row["tests passed"]) > 500
    assert len({row["mean of `least-work`, s"] for row in tried}) == 1


def test_the_tests_of_the_matrix_are_there(matrix):
    files = matrix.test_files()
    assert len(set(files)) == len(files) > 20
    for file in files:
        assert (ROOT / "tests" / file).is_file()


def test_a_report_of_tests_is_counted(matrix, tmp_path):
    suites = '<testsuites><testsuite tests="9" skipped="2" failures="1" errors="1"/><testsuite tests="3"/></testsuites>'
    (tmp_path / "tests.xml").write_text(suites)
    assert matrix.counted(tmp_path / "tests.xml") == {"passed": 8, "skipped": 2, "failed": 2}


def test_a_python_that_is_tried_again_replaces_its_row_and_no_other(matrix, tmp_path):
    path = tmp_path / "matrix.csv"
    for rows_of in ([("3.13.0", "1"), ("3.9.1", "2")], [("3.13.4", "3")], [("3.10.2", "4")]):
        matrix.write(path, [{"Python": python, "tests passed": passed} for python, passed in rows_of])
    with path.open(newline="") as file:
        found = [(row["Python"], row["tests passed"]) for row in csv.DictReader(file)]
    assert found == [("3.9.1", "2"), ("3.10.2", "4"), ("3.13.4", "3")]


def test_the_pythons_that_are_named_are_those_that_are_tried():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    named = set(re.findall(r"Python :: (3\.\d+)", text))
    assert re.search(r'requires-python = ">=(3\.\d+)"', text)[1] == min(named, key=lambda x: int(x[2:]))
    tried = {row["Python"].rsplit(".", 1)[0] for row in rows("matrix.csv") if row["diffpolicy"] == __version__}
    assert tried == named - {"3.11"}  # with which all else is tried


def test_a_release_has_its_sizes_in_a_file():
    sizes = {row["file"]: int(row["files of the repository"]) for row in rows("release.csv")}
    assert 0 < sizes["wheel"] < sizes["source distribution"]
    assert {*sizes} == {"wheel", "source distribution"}


def test_sizes_are_written_over_no_second_wheel(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [str(ROOT / ".ci"), *sys.path])
    import check_release

    (tmp_path / "other.whl").write_bytes(b"wheel")
    with pytest.raises(SystemExit, match=r"other\.whl is no CSV; name one source distribution and one wheel"):
        check_release.main(str(tmp_path), "x.tar.gz", "x.whl", str(tmp_path / "other.whl"))
    assert (tmp_path / "other.whl").read_bytes() == b"wheel"


def test_what_one_cites_in_bibtex_is_what_the_citation_file_says():
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "citation.md").read_text(encoding="utf-8")
    title = re.search(r"(?m)^  title = \{(.*)\},$", page)[1].replace("{", "").replace("}", "")
    assert f'\ntitle: "{title}"\n' in cited
    assert f'name: "{re.search(r"author = {{(.*)}}", page)[1]}"' in cited
    released = re.search(r"(?m)^date-released: \W?(\d{4})", cited)
    assert released is None or f"year = {{{released[1]}}}" in page


def test_the_version_is_the_same_wherever_it_stands():
    def of(name):
        return (ROOT / name).read_text(encoding="utf-8")

    assert f"\nversion: {__version__}\n" in of("CITATION.cff")
    assert f"## [{__version__}] - 20" in of("CHANGELOG.md")
    assert f"that is {__version__}." in of("SECURITY.md")
    assert f" Version {__version__} is " in of("docs/install.md")
    assert set(re.findall(r'"version": "([^"]*)"', of("docs/cli.md"))) == {__version__}


def test_what_the_night_found_is_of_the_records_as_they_are(monkeypatch):
    """A row whose record was written anew since shows nothing of it: run the check again, or take the row out."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import nightly

    checked = 0
    for row in rows("nightly.csv"):
        records = nightly.CHECKS[row["check"]].records
        figures = [nightly.figures(nightly.read(nightly.RECORDS / record.file), record) for record in records]
        worst = row["worst against its record"].rsplit(": ", 1)[0]
        each = [{", ".join(names): f"{x:.4g}" for names, x in found.items()}.get(worst) for found in figures]
        assert not records or row["recorded"] in each, row
        checked += bool(records)
    assert checked
