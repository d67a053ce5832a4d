"""Who waits how long: delay against task size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import ScalarFormatter

from diffpolicy.edge.problem import WORK
from diffpolicy.experiments.plots import figure_of, finish, plain

if TYPE_CHECKING:
    from diffpolicy.experiments.comparison import Comparison


def delay_by_size(comparison: Comparison, path: str | Path, bins: int = 10) -> None:
    """Mean delay of tasks against their work, in bins of equally many tasks, for the methods and the better rules."""
    figure = figure_of(9, 5)
    axes = figure.subplots()
    rules = [row.name for row in comparison.rows if not row.seeds][:4]
    names = [row.name for row in comparison.rows if row.seeds] + rules
    for i, name in enumerate(names):
        played = comparison.played[name]
        work = played.notes[str(WORK)]
        edges = np.unique(np.quantile(work, np.linspace(0, 1, bins + 1)))
        group = np.clip(np.searchsorted(edges, work, side="right") - 1, 0, max(len(edges) - 2, 0))
        count = np.maximum(np.bincount(group), 1)
        style = "--" if name in rules else "-"
        x, y = np.bincount(group, work) / count, np.bincount(group, played.cost) / count
        axes.plot(x, y, style, marker="o", markersize=3, color=f"C{i}", label=plain(name))
    axes.set(xlabel="work of the task, Gcycles", ylabel="mean service delay, s")
    axes.set_title(plain(f"{comparison.plan.problem.name}: who waits how long"))
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(ScalarFormatter())
    finish(figure, axes, path)
