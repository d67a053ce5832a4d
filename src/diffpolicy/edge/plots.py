"""Pictures of a comparison: learning curves, and delay against task size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from diffpolicy import _files
from diffpolicy._read import printable
from diffpolicy.edge.problem import WORK

if TYPE_CHECKING:
    from diffpolicy.edge.comparison import Comparison
    from diffpolicy.edge.sweep import Sweep

REFERENCES = {"opt-ts": "--", "capacity-proportional": ":"}
"""Rules that are drawn as lines, and their styles."""


def learning_curves(comparison: Comparison, path: str | Path, window: int = 10) -> None:
    """Running mean of the training episodes' delays, with the band over seeds and the rules as lines."""
    figure = _figure(9, 5)
    axes = figure.subplots()
    methods = [row for row in comparison.rows if row.seeds]
    for i, row in enumerate(methods):
        shortest = min(map(len, row.curves))
        if not shortest:
            continue
        curves = np.array([_running_mean(curve[:shortest], window) for curve in row.curves])
        x = np.arange(1, shortest + 1)
        label = _plain(row.name if row.converged else f"{row.name} (still falling)")
        axes.plot(x, curves.mean(0), color=f"C{i}", label=label, linewidth=1.8)
        if len(curves) > 1:
            axes.fill_between(x, curves.min(0), curves.max(0), color=f"C{i}", alpha=0.2, linewidth=0)
        else:
            axes.plot(x, row.curves[0][:shortest], color=f"C{i}", alpha=0.25, linewidth=0.8)
    _reference_lines(comparison, axes)
    axes.set(xlabel="training episode", ylabel=f"mean service delay, s (running mean over {window})")
    axes.set_title(_plain(f"{comparison.plan.scenario.name}: load {methods[0].load:.2f}") if methods else "")
    axes.set_ylim(bottom=0)
    _finish(figure, axes, path)


def _running_mean(values: Sequence[float], window: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    total = np.cumsum(np.insert(np.asarray(values, dtype=np.float64), 0, 0.0))
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - window, 0)
    return (total[end] - total[start]) / (end - start)


def _reference_lines(comparison: Comparison, axes: Axes) -> None:
    for name, style in REFERENCES.items():
        if any(row.name == name for row in comparison.rows):
            mean = comparison.row(name).result.costs.mean
            axes.axhline(mean, color="black", linestyle=style, linewidth=1.2, label=_plain(f"{name} {mean:.2f} s"))


def sweep_plot(sweep: Sweep, results: Sequence[Comparison], path: str | Path) -> None:
    """Mean delay and ratio to the baseline of every policy at every value of a sweep."""
    figure = _figure(13, 5)
    left, right = figure.subplots(1, 2)
    methods = [row.name for row in results[0].rows if row.seeds]
    x = np.arange(len(results))
    for i, name in enumerate([*methods, *REFERENCES]):
        rows = [comparison.row(name) for comparison in results]
        mean = np.array([row.result.costs.mean for row in rows])
        style: dict[str, Any] = {"color": f"C{i}", "marker": "o", "markersize": 4}
        if name in REFERENCES:
            style = {"color": "black", "linestyle": REFERENCES[name]}
        half = np.array([row.result.ci95 or 0.0 for row in rows])
        left.errorbar(x, mean, half, capsize=2, label=_plain(name), **style)
        right.plot(
            x, [np.nan if row.result.ratio is None else row.result.ratio for row in rows], label=_plain(name), **style
        )
    labels = [f"{sweep.label(v)}\nload {c.rows[0].load:.2f}" for v, c in zip(sweep.values, results, strict=True)]
    for axes in (left, right):
        axes.set_xticks(x, labels)
        axes.set_xlabel(sweep.key)
    left.set(ylabel="mean service delay, s", yscale="log", title=f"over {sweep.key}")
    left.yaxis.set_major_formatter(ScalarFormatter())
    left.yaxis.set_minor_formatter(NullFormatter())
    right.set(ylabel="ratio of the mean to opt-ts")
    left.grid(alpha=0.3, which="both")
    _finish(figure, right, path)


def delay_by_size(comparison: Comparison, path: str | Path, bins: int = 10) -> None:
    """Mean delay of tasks against their work, in bins of equally many tasks, for the methods and the better rules."""
    figure = _figure(9, 5)
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
        axes.plot(x, y, style, marker="o", markersize=3, color=f"C{i}", label=_plain(name))
    axes.set(xlabel="work of the task, Gcycles", ylabel="mean service delay, s")
    axes.set_title(_plain(f"{comparison.plan.scenario.name}: who waits how long"))
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(ScalarFormatter())
    _finish(figure, axes, path)


def _figure(width: float, height: float) -> Figure:
    """An empty picture, in inches, drawn by Agg: not pyplot's, so that the backend that a user chose stays his."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _plain(name: str) -> str:
    """A name as a label: a dollar begins no formula, and no underscore at its start hides it from the legend."""
    plain = printable(name).replace("$", r"\$")
    return f"\u200b{plain}" if plain.startswith("_") else plain


def _finish(figure: Figure, axes: Axes, path: str | Path) -> None:
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    _save(figure, path)


def _save(figure: Figure, path: str | Path) -> None:
    _files.write(path, lambda aside: figure.savefig(aside, dpi=120, format="png", metadata={"Software": None}))
