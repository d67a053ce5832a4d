"""What importing costs beside importing torch and tensordict alone, and how large a wheel is.

Each import has an interpreter of its own; all take turns, so that a machine's moods meet all of them. Counted is
processor time; the median leaves out the turn in which Python compiles what was never imported.

Example:
    python benchmarks/imports.py --wheel dist/diffpolicy-1.0.0-py3-none-any.whl --csv docs/_static/imports.csv
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from timing import machine, write_csv

BESIDE = "import torch, tensordict"
"""What all others are set in relation to."""

IMPORTS = (
    BESIDE,
    "import torch, tensordict, torchrl",
    "import diffpolicy",
    "from diffpolicy import DiffusionPolicy",
    "from diffpolicy.experiments import train",
)
COLUMNS = ("what", "measured", "unit", "in relation")


def cpu_seconds(code: str) -> float:
    """Processor seconds that an interpreter takes, from its start to its end, to run a line."""
    before = os.times()
    subprocess.run([sys.executable, "-c", code], check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def rows(times: Mapping[str, Sequence[float]]) -> list[tuple[str, ...]]:
    """A row an import: the median of its seconds, and that in relation to `BESIDE`.

    Args:
        times: seconds of each turn, by what is imported.
    """
    beside = median(times[BESIDE])
    return [(what, f"{median(s):.2f}", "s", f"{median(s) / beside:.2f}") for what, s in times.items()]


def wheel_rows(path: Path) -> list[tuple[str, ...]]:
    """How large a wheel is, packed and unpacked, and how many files it holds."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    return [
        ("wheel", f"{path.stat().st_size / 1e6:.2f}", "MB", ""),
        ("wheel, unpacked", f"{sum(m.file_size for m in members) / 1e6:.2f}", "MB", ""),
        ("wheel, files", str(len(members)), "files", ""),
    ]


def main() -> None:
    """Prints the table, and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each import (default 5)")
    parser.add_argument("--wheel", type=Path, help="whose size is told, too")
    parser.add_argument("--csv", type=Path, help="where the table is written")
    options = parser.parse_args()
    times: dict[str, list[float]] = {what: [] for what in IMPORTS}
    for _ in range(options.rounds):
        for what in IMPORTS:
            times[what].append(cpu_seconds(what))
    table = [*rows(times), *(wheel_rows(options.wheel) if options.wheel else [])]
    print(machine())
    for row in table:
        print("  ".join(f"{cell:<42}" if i == 0 else f"{cell:>8}" for i, cell in enumerate(row)))
    if options.csv:
        write_csv(options.csv, [COLUMNS, *table])


if __name__ == "__main__":
    main()
