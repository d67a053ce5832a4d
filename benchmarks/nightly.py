"""What takes too long for each change: slow tests, the long fuzz and benchmarks, and in one table what fell behind.

    python benchmarks/nightly.py                 # hours on two cores
    python benchmarks/nightly.py --quick         # a few minutes: a part of each, against the same records
    python benchmarks/nightly.py --only "rules by load,fuzz"
    python benchmarks/nightly.py --csv docs/_static/nightly.csv      # keeps the rows of checks that are not run

A benchmark is run as its page says and its figures are set beside the file in `docs/_static` that the page shows, row
by row. Figures of simulated episodes are the same on any machine, and have moved where they are other ones; those of
training have a margin on the worse side. Each check has a time limit and ends with all that it started; one that fails,
or does not end, is a row of the table, and the next one begins. The status is 1 where a command failed, or a figure has
moved or is worse than its record by more than its margin.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from diffpolicy import _signals
from nightly_checks import CHECKS, Check, Record
from timing import table, write_csv

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "docs" / "_static"
COLUMNS = ["check", "figures", "worst against its record", "recorded", "now", "s", "held"]
SHOWN = [*COLUMNS, "date"]
"""Columns of the file."""
QUICK_MINUTES = 5.0
ENDING = (signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Compared:
    """Figures beside their records. Args: rows: how many. worst: names of the row. margin: see `Record`.

    recorded, now: of the worst row. loss: by which share it is worse, below 0 where all are better.
    """

    rows: int = 0
    worst: str = ""
    recorded: float = math.nan
    now: float = math.nan
    loss: float = -math.inf
    margin: float = 0.0

    @property
    def held(self) -> bool:
        """Whether there was anything to compare, and all of it is good enough."""
        return self.rows > 0 and self.loss <= self.margin


def figures(rows: Sequence[Mapping[str, str]], record: Record) -> dict[tuple[str, ...], float]:
    """The mean figure of each name."""
    found: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        if row[record.figure] and record.part in ("", row[record.keys[0]]):
            found.setdefault(tuple(row[key] for key in record.keys), []).append(float(row[record.figure]))
    return {names: sum(each) / len(each) for names, each in found.items()}


def compare(
    recorded: Sequence[Mapping[str, str]], now: Sequence[Mapping[str, str]], record: Record, *, whole: bool = False
) -> Compared:
    """The rows that both have; one that is not recorded yet counts nothing. What is not finite is infinitely worse.

    Args:
        recorded, now: rows. record: what they are figures of. whole: whether a row that lacks now is as bad; a quick
            run may have fewer.
    """
    before, after = figures(recorded, record), figures(now, record)
    both = [names for names in after if names in before]

    def loss(names: tuple[str, ...]) -> float:
        found = after.get(names, math.nan)
        worse = before[names] - found if record.high else found - before[names]
        worse = abs(worse) if record.exact else worse
        share = worse / max(abs(before[names]), 1e-12)
        return share if math.isfinite(share) else math.inf

    if not both:
        return Compared()
    worst = max(before if whole else both, key=loss)
    now_worst = after.get(worst, math.nan)
    return Compared(len(both), ", ".join(worst), before[worst], now_worst, loss(worst), record.margin)


def read(path: Path) -> list[dict[str, str]]:
    """A CSV's rows; none where there is no such file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def listen() -> None:
    """Lets a request to end reach `finally`: a check has a session of its own, of which no terminal is told."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        sys.exit(_signals.exit_status(number))

    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has it
            signal.signal(number, end)


def failure(words: Sequence[str], seconds: float) -> str:
    """Runs a command of this Python, and ends with it whatever it has started.

    Args:
        words: of the command. seconds: after which it is ended.

    Returns:
        Why it did not end well; empty where it did.
    """
    # a request to end that comes while the command is started waits until there is somebody to end
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        start_new_session=True,
        preexec_fn=partial(signal.pthread_sigmask, signal.SIG_SETMASK, before),
    )
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        return f"not done in {seconds / 60:g} minutes"
    finally:
        with suppress(ProcessLookupError):  # nothing of it is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return f"ended with status {status}" if status else ""


def compared(record: Record, out: Path, whole: bool) -> list[str]:
    """The columns of a record from the number of figures to the figure of now, and whether it is held."""
    try:
        found = compare(read(RECORDS / record.file), read(out / (record.written or record.file)), record, whole=whole)
    except (OSError, ValueError, KeyError, csv.Error) as error:
        return ["0", f"{record.file}: {type(error).__name__}: {error}", "", "", "NO"]
    if not found.rows:
        return ["0", f"{record.file}: nothing to compare", "", "", "NO"]
    worst = f"{found.worst}: {found.loss:+.2%}"
    return [str(found.rows), worst, f"{found.recorded:.4g}", f"{found.now:.4g}", "yes" if found.held else "NO"]


def run(name: str, check: Check, quick: bool) -> Iterator[list[str]]:
    """The rows of the table that a check makes, `yes` or `NO` in the last column."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as out:
        words = [word.format(out=out) for word in str(check.quick if quick else check.words).split()]
        print(f"\n== {name}: python {' '.join(words)}", flush=True)
        failed = failure(words, 60 * (QUICK_MINUTES if quick else check.minutes))
        seconds = f"{time.perf_counter() - began:.0f}"
        if failed or not check.records:
            yield [name, "", failed, "", "", seconds, "NO" if failed else "yes"]
            return
        for record in check.records:
            *shown, held = compared(record, Path(out), not quick)
            yield [name, *shown, seconds, held]


def write(path: Path, name: str, rows: list[list[str]]) -> None:
    """Writes a check's rows in the place of its earlier ones.

    Args:
        path: of the file. name: of the check. rows: its own, as they are printed.
    """
    kept = [[row[column] for column in SHOWN] for row in read(path) if row["check"] != name]
    today = time.strftime("%Y-%m-%d", time.gmtime())
    every = [*kept, *([*row, today] for row in rows)]
    order = list(CHECKS)
    write_csv(path, [SHOWN, *sorted(every, key=lambda row: order.index(row[0]) if row[0] in order else len(order))])


def main() -> int:
    """Runs the checks one after the other and prints the table; 1 where something is worse than its record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a part of each")
    parser.add_argument("--only", default=",".join(CHECKS), help="checks by name")
    parser.add_argument("--csv", type=Path, help="write the table there, whose rows of other checks are kept")
    options = parser.parse_args()
    if unknown := set(options.only.split(",")) - set(CHECKS):
        parser.error(f"--only: there is no check {min(unknown)!r}, but {', '.join(CHECKS)}")
    listen()
    chosen = {name: CHECKS[name] for name in options.only.split(",")}
    rows: list[list[str]] = []
    for name, check in chosen.items():
        if options.quick and check.quick is None:
            continue
        found = list(run(name, check, options.quick))
        rows += found
        if options.csv:
            write(options.csv, name, found)
    print(f"\n{table(COLUMNS, rows)}")
    return int(any(row[-1] == "NO" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
