"""Coverage of lines and branches by layer, as `coverage json` wrote it; the status is 1 where the core is below 90 %.

python .ci/check_coverage.py coverage.json --csv docs/_static/coverage.csv
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CORE = ("diffusion", "networks", "policies", "environments", "objectives", "training", "methods", "evaluation")
COLUMNS = ("layer", "lines", "lines run, %", "branches", "branches taken, %", "both, %")
LEAST = 90.0


def row(name: str, files: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """A layer's row. Args: name: of the layer. files: the summaries of its files."""
    lines, run, branches, taken = (
        sum(int(file["summary"][key]) for file in files.values())
        for key in ("num_statements", "covered_lines", "num_branches", "covered_branches")
    )
    shares = (100 * some / max(every, 1) for some, every in ((run, lines), (taken, branches)))
    by_lines, by_branches = (f"{share:.1f}" for share in shares)
    both = 100 * (run + taken) / max(lines + branches, 1)
    return name, str(lines), by_lines, str(branches), by_branches, f"{both:.1f}"


def main() -> int:
    """Prints the table and writes it; 1 where lines or branches of the core are below the least."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path, help="of `coverage json`")
    parser.add_argument("--csv", type=Path, help="where the table is written")
    options = parser.parse_args()
    files = json.loads(options.json.read_text())["files"]
    layers = {layer: {k: v for k, v in files.items() if f"diffpolicy/{layer}/" in Path(k).as_posix()} for layer in CORE}
    core = row("the core", {k: v for each in layers.values() for k, v in each.items()})
    rows = [*(row(name, each) for name, each in layers.items()), core]
    for each in (COLUMNS, *rows):
        print("  ".join(f"{cell:>18}" for cell in each))
    if options.csv:
        with options.csv.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    return int(min(float(core[2]), float(core[4])) < LEAST)


if __name__ == "__main__":
    sys.exit(main())
