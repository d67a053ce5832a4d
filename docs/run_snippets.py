"""Runs every ```python block of the README and of these pages: `python docs/run_snippets.py [PAGE...]`.

The blocks of a page share a namespace and run in order, in a temporary folder, on one thread. A block whose first line
starts with `>>>` is a doctest: what it prints is compared. Everything runs in one process, since importing TorchRL
takes longer than most pages.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^(?P<mark>`{3,})python\s*$\n(?P<code>.*?)^(?P=mark)\s*$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> Iterator[tuple[int, str]]:
    """The line on which each block's code begins, and the code."""
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        yield text.count("\n", 0, found.start("code")) + 1, found["code"]


def run_block(page: Path, line: int, code: str, names: dict[str, Any]) -> str | None:
    """Runs a block; what went wrong as `file:line: what`, or None."""
    if code.lstrip().startswith(">>>"):
        test = doctest.DocTestParser().get_doctest(code, names, page.name, str(page), line - 1)
        test.globs = names
        report = io.StringIO()
        failed = doctest.DocTestRunner(verbose=False).run(test, out=report.write, clear_globs=False).failed
        return f"{page}:{line}: {report.getvalue()}" if failed else None
    try:
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), names)
    except Exception as error:
        here = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(page)]
        return f"{page}:{here[-1] if here else line}: {type(error).__name__}: {error}"
    return None


def run_page(page: Path) -> tuple[int, str | None]:
    """Runs a page's blocks until one fails: how many went well, and what went wrong."""
    names: dict[str, Any] = {"__name__": "__main__"}
    done = 0
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        sys.path.insert(0, folder)
        try:
            for line, code in blocks(page):
                problem = run_block(page, line, code, names)
                if problem is not None:
                    return done, problem
                done += 1
        finally:
            sys.path.remove(folder)
            os.chdir(home)
    return done, None


def main(arguments: list[str]) -> int:
    """Runs the pages; 1 if any failed."""
    import torch

    torch.set_num_threads(1)
    pages = [Path(a).resolve() for a in arguments] or [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    failed = False
    for page in pages:
        start = time.perf_counter()
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            done, problem = run_page(page)
        if done or problem:
            print(f"{os.path.relpath(page, ROOT)}: {done} blocks in {time.perf_counter() - start:.1f} s")
        if problem:
            print(printed.getvalue() + problem, file=sys.stderr)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
