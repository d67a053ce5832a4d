"""Each Python that is supported: a wheel in an empty environment, its main job in small, and tests of what it holds.

python .ci/matrix.py dist/*.whl python3.10 python3.12 python3.13 --csv docs/_static/matrix.csv

For each interpreter it makes an environment, installs the wheel with the tested versions (`constraints.txt`), asks
`pip check`, runs `diffpolicy compare --episodes 2 --eval-episodes 2 --processes 1` in an empty folder, and then, with
pytest beside it, the tests of `TESTS` against what is installed. Rows of the file that are of other Pythons are kept.
It needs a package index; the torch of Linux brings its CUDA libraries, so that each environment takes some 7 GB, which
are deleted when it was tried, and the downloads some 3 GB, which all share. The status is 1 where something does not
hold.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

from check_extras import ROOT, last_line, packages, pip_install, python

COLUMNS = (
    *("Python", "diffpolicy", "torch", "packages", "pip check", "compare"),
    *("mean of `least-work`, s", "tests passed", "skipped", "failed", "date"),
)
JOB = "compare --episodes 2 --eval-episodes 2 --processes 1 --out compared"
TOOLS = ("pytest", "pytest-xdist", "hypothesis")
TESTS = {
    "diffusion": "schedules samplers solvers chains continuous discrete guidance",
    "physics": "queueing service fluid parity availability env",
    "policies": "policies heads memory networks",
    "objectives": "advantages discrete_sac distillation dppo dqn fpo fql on_policy pathwise token_imitation weighted",
}
"""Of each layer those files `tests/test_*.py` that need no extra."""
DESCRIBED = """
import importlib.metadata as m, platform
from pathlib import Path
import diffpolicy
assert "site-packages" in Path(diffpolicy.__file__).parts, diffpolicy.__file__
print(platform.python_version(), m.version("diffpolicy"), m.version("torch"))
"""


def counted(report: Path) -> dict[str, int]:
    """How many tests of a report in JUnit's form passed, were skipped and failed."""
    suites = list(ElementTree.parse(report).iter("testsuite"))
    tests, skipped, failures, errors = (
        sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "skipped", "failures", "errors")
    )
    return {"passed": tests - skipped - failures - errors, "skipped": skipped, "failed": failures + errors}


def test_files() -> list[str]:
    """The files of `TESTS`."""
    return [str(ROOT / "tests" / f"test_{name}.py") for names in TESTS.values() for name in names.split()]


def row(interpreter: str, wheel: str) -> dict[str, str]:
    """What was found with one Python, by column; what did not hold stands there in capitals."""
    with tempfile.TemporaryDirectory() as made:
        env, out = Path(made) / "env", Path(made) / "compared"
        subprocess.run([interpreter, "-m", "venv", str(env)], check=True)
        pip_install(env, wheel)
        quarrel = python(env, "-m", "pip", "check")
        described = python(env, "-c", DESCRIBED)
        if described.returncode:
            raise SystemExit(f"{interpreter}: {last_line(described.stderr)}")
        version, ours, torch = described.stdout.split()
        found = {"Python": version, "diffpolicy": ours, "torch": torch, "packages": str(packages(env))}
        found["pip check"] = f"QUARREL: {last_line(quarrel.stdout)}" if quarrel.returncode else "no quarrel"
        done = python(env, "-m", "diffpolicy", *JOB.replace("compared", str(out)).split())
        found["compare"] = f"STATUS {done.returncode}: {last_line(done.stderr)}" if done.returncode else "runs"
        if not done.returncode:
            with (out / "comparison.csv").open(newline="") as file:
                means = {line["method"]: float(line["mean_delay_s"]) for line in csv.DictReader(file)}
            found["mean of `least-work`, s"] = f"{means['least-work']:.3f}"
        pip_install(env, *TOOLS)
        report = Path(made) / "tests.xml"
        config = ("-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider", f"--junitxml={report}")
        tested = python(env, "-m", "pytest", *config, *test_files())
        if tested.returncode:
            print(tested.stdout[-10000:], tested.stderr[-2000:], sep="\n", file=sys.stderr)
        if not report.is_file():
            raise SystemExit(f"{interpreter}: the tests wrote no report")
        counts = counted(report)
        found |= {"tests passed": str(counts["passed"]), "skipped": str(counts["skipped"])}
        found["failed"] = f"FAILED {counts['failed']}" if tested.returncode else "0"
    return found | {"date": time.strftime("%Y-%m-%d", time.gmtime())}


def write(path: Path, rows: list[dict[str, str]]) -> None:
    """Writes rows in the place of those of the same minor versions of Python, in their order."""

    def minor(one: dict[str, str]) -> tuple[int, ...]:
        return tuple(map(int, re.findall(r"\d+", one["Python"])[:2]))

    kept: dict[tuple[int, ...], dict[str, str]] = {}
    if path.is_file():
        with path.open(newline="") as file:
            kept = {minor(line): line for line in csv.DictReader(file)}
    kept |= {minor(line): line for line in rows}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept[key] for key in sorted(kept))


def main() -> int:
    """Prints the rows; 1 where something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("python", nargs="+", help="interpreters, by path or name")
    parser.add_argument("--csv", type=Path, help="where the table is written, whose rows of other Pythons are kept")
    options = parser.parse_args()
    if not options.wheel.is_file():
        parser.error(f"there is no wheel {options.wheel}")
    rows: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as cache:
        os.environ.setdefault("PIP_CACHE_DIR", cache)
        for interpreter in options.python:
            rows.append(row(interpreter, str(options.wheel.resolve())))
            print("  ".join(f"{name}: {cell}" for name, cell in rows[-1].items()), flush=True)
            if options.csv:
                write(options.csv, rows)
    return int(any(word in cell for one in rows for cell in one.values() for word in ("STATUS", "QUARREL", "FAILED")))


if __name__ == "__main__":
    sys.exit(main())
