"""Timing side by side: the candidates of a comparison take turns, so that a machine's moods meet all of them."""

from __future__ import annotations

import csv
import gc
import platform
import resource
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median


def interleaved(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 9,
    seconds: float = 0.05,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of a call of each, over rounds in which all take turns.

    Args:
        candidates: by name. rounds: turns of each. seconds: that a turn lasts, about; it holds whole calls.
        clock: in seconds; on a machine that others use too, `time.thread_time` counts what a thread itself took.
    """
    calls = {}
    for name, call in candidates.items():
        call()
        start = clock()
        call()
        calls[name] = max(1, int(seconds / max(clock() - start, 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in candidates}
    gc.collect()
    for _ in range(rounds):
        for name, call in candidates.items():
            start = clock()
            for _ in range(calls[name]):
                call()
            times[name].append((clock() - start) / calls[name])
    return {name: median(values) for name, values in times.items()}


def peak_mib() -> float:
    """The most memory that this process has held, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def machine() -> str:
    """What it ran on, in a line."""
    import torch

    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            name = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), name)
    except OSError:
        pass
    return f"{name}, torch {torch.__version__}, {torch.get_num_threads()} thread(s)"


def write_csv(path: Path, lines: Iterable[Sequence[object]]) -> None:
    """Writes a table as every benchmark does, its header first, into a folder that is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)


def table(columns: list[str], rows: list[list[str]]) -> str:
    """Columns of text, the first flush left."""
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    lines = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in [columns, *rows]
    ]
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(line.rstrip() for line in lines)
