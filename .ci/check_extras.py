"""Each extra by itself: what it promises runs with it, and without it one sentence says what to install.

python .ci/check_extras.py FOLDER --csv docs/_static/extras.csv      # FOLDER: a copy of the repository, or a wheel
python .ci/check_extras.py FOLDER --only gym,export

It makes an environment of the core alone, by `constraints.txt`, and for each extra a copy of it, in which `pip` adds
that extra and `pip check` finds no quarrel; each is deleted when it was tried. It needs a package index and, for all
extras, some ten minutes and 5 GB. The status is 1 where something does not hold.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ("extra", "packages", "MB", "with it", "without it")
SERVICE = "diffpolicy.edge.serving.api.app, diffpolicy.edge.serving.worker.app, uvicorn, httpx, multipart"
SMALL = "--stations 2 --slots 4 --tasks 20 --episodes 1"


@dataclass(frozen=True)
class Extra:
    """What is tried of an extra. `-c` begins code of Python, what else there is words of `diffpolicy`.

    Args:
        promise: runs with it. refused: a command that ends with status 2 without it. says: what its sentence names.
    """

    promise: str
    refused: str = ""
    says: str = ""


EXTRAS = {
    "fleet": Extra("-c import diffpolicy.edge.pricing.compiled", "train-fleet live --out run", ".[fleet]"),
    "gym": Extra(*2 * ("evaluate random --problem gym:CartPole-v1 --eval-episodes 1",), "the extra 'gym'"),
    "export": Extra(*2 * ("export pretrained:live --out live.onnx",), ".[export]"),
    "hardware": Extra(*2 * ("profile --model tiny --device cpu --dry-run",), ".[hardware]"),
    "serving": Extra(f"-c import {SERVICE}", "demo", ".[serving]"),
    "ray": Extra(
        "-c import ray.serve, diffpolicy.edge.serving.ray_router", f"compare {SMALL} --cluster ray --out run", ".[ray]"
    ),
    "tensorboard": Extra(*2 * (f"train lad-ts {SMALL} --logger tensorboard --out run",), "pip install tensorboard"),
    "docs": Extra("-c import sphinx, furo, myst_parser, sphinx_design, sphinx_gallery, sphinxcontrib.bibtex"),
    "test": Extra("-c import pytest, xdist, hypothesis, jsonschema, mypy, importlinter, openai, numba, fastapi"),
}


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs an environment's Python in an empty folder, without what this one was told. Args: words: of its command."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with tempfile.TemporaryDirectory() as empty:
        command = [str(folder / "bin" / "python"), *words]
        return subprocess.run(command, cwd=empty, env=env, capture_output=True, text=True, check=False, timeout=1800)


def pip_install(folder: Path, *what: str) -> None:
    """Installs with the tested versions."""
    done = python(folder, "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), *what)
    if done.returncode:
        raise SystemExit(f"pip install {' '.join(what)}: {done.stderr.strip()}")


def tried(folder: Path, words: str) -> subprocess.CompletedProcess[str]:
    """Runs a promise."""
    if words.startswith("-c "):
        return python(folder, "-c", words.removeprefix("-c "))
    return python(folder, "-m", "diffpolicy", *words.split())


def last_line(text: str) -> str:
    """The last line that is not empty, without the command that says it."""
    return (text.strip().splitlines() or [""])[-1].removeprefix("diffpolicy: ")


def size_mb(folder: Path) -> float:
    """Of all files that an environment alone has, and no copy of it shares."""
    files = [path.stat() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return sum(file.st_size for file in files if file.st_nlink == 1) / 1e6


def packages(folder: Path) -> int:
    """How many are installed."""
    return len(python(folder, "-m", "pip", "list", "--format", "freeze").stdout.splitlines())


def row(name: str, extra: Extra, core: Path, source: str) -> tuple[str, ...]:
    """A row of the table: `runs` and the sentence, or in capitals what did not hold."""
    without = "nothing asks for it"
    if extra.refused:
        refused = tried(core, extra.refused)
        without = last_line(refused.stderr)
        if refused.returncode != 2 or extra.says not in without:
            without = f"STATUS {refused.returncode}: {without}"
    with tempfile.TemporaryDirectory(dir=core.parent) as made:
        folder = Path(made) / name
        # links are enough: pip writes files anew and changes none in place
        shutil.copytree(core, folder, symlinks=True, copy_function=os.link)
        pip_install(folder, f"{source}[{name}]")
        quarrel = python(folder, "-m", "pip", "check")
        done = tried(folder, extra.promise)
        held = "runs" if not done.returncode else f"STATUS {done.returncode}: {last_line(done.stderr)}"
        if quarrel.returncode:
            held += f"; PIP CHECK: {last_line(quarrel.stdout)}"
        return name, str(packages(folder) - packages(core)), f"{size_mb(folder):.0f}", held, without


def main() -> int:
    """Prints the table; 1 where something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="a copy of the repository, or a wheel")
    parser.add_argument("--only", default=",".join(EXTRAS), help="extras by name")
    parser.add_argument("--csv", type=Path, help="where the table is written")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as made:
        core = Path(made) / "core"
        venv.create(core, with_pip=True)
        pip_install(core, source := str(Path(options.source).resolve()))
        for name in options.only.split(","):
            rows.append(row(name, EXTRAS[name], core, source))
            print("  ".join(rows[-1]), flush=True)
    if options.csv:
        with options.csv.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    return int(any(text in cell for row in rows for cell in row for text in ("STATUS", "PIP CHECK")))


if __name__ == "__main__":
    sys.exit(main())
