"""Runs every example in a process of its own, two at a time, and fails with the first that does."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
TRAIN = ["--stations", "3", "--slots", "10", "--episodes", "3"]


def commands(folder: str) -> list[tuple[Path, list[str]]]:
    """Where to run what: each script, and training by the method file."""
    # the tutorials are run when the docs are built
    paths = sorted(path for path in HERE.glob("*/*.py") if path.parent.name != "tutorials")
    scripts = [(path.parent, [path.name]) for path in paths]
    return [*scripts, (HERE / "extending", ["-m", "diffpolicy", "train", "own_method.yaml", *TRAIN, "--out", folder])]


def run(where: Path, arguments: list[str]) -> tuple[int, str, float]:
    """Exit status, what was printed, seconds."""
    start = time.perf_counter()
    command, one_thread = [sys.executable, *arguments], {**os.environ, "OMP_NUM_THREADS": "1"}
    out = subprocess.PIPE
    done = subprocess.run(command, cwd=where, env=one_thread, text=True, stdout=out, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout, time.perf_counter() - start


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        jobs = [(where, arguments, pool.submit(run, where, arguments)) for where, arguments in commands(folder)]
        for where, arguments, job in jobs:
            status, printed, seconds = job.result()
            title = " ".join(arguments).replace(folder, "DIR")
            print(f"== {where.name}: {title}  ({seconds:.0f} s)\n{printed}", flush=True)
            if status:
                print(f"it ended with status {status}", file=sys.stderr)
                pool.shutdown(cancel_futures=True)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
