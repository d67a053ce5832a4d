"""Pictures of a comparison: learning curves, and what a sweep gives."""

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

if TYPE_CHECKING:
    from diffpolicy.experiments.comparison import Comparison
    from diffpolicy.experiments.plan import Plan
    from diffpolicy.experiments.sweep import Sweep


def references(plan: Plan) -> dict[str, str]:
    """Rules that are drawn as lines, and their styles: the baseline, and those that the problem names."""
    return {plan.baseline: "--", **dict(zip(plan.problem.references, (":", "-."), strict=False))}


def learning_curves(comparison: Comparison, path: str | Path, window: int = 10) -> None:
    """Running mean of the training episodes' costs, with the band over seeds and the rules as lines."""
    figure = figure_of(9, 5)
    axes = figure.subplots()
    methods = [row for row in comparison.rows if row.seeds]
    for i, row in enumerate(methods):
        shortest = min(map(len, row.curves))
        if not shortest:
            continue
        curves = np.array([_running_mean(curve[:shortest], window) for curve in row.curves])
        x = np.arange(1, shortest + 1)
        label = plain(row.name if row.converged else f"{row.name} (still falling)")
        axes.plot(x, curves.mean(0), color=f"C{i}", label=label, linewidth=1.8)
        if len(curves) > 1:
            axes.fill_between(x, curves.min(0), curves.max(0), color=f"C{i}", alpha=0.2, linewidth=0)
        else:
            axes.plot(x, row.curves[0][:shortest], color=f"C{i}", alpha=0.25, linewidth=0.8)
    _reference_lines(comparison, axes)
    axes.set(xlabel="training episode", ylabel=f"{comparison.plan.problem.cost.titled()} (running mean over {window})")
    axes.set_title(plain(comparison.plan.problem.told()))
    if axes.get_ylim()[0] > 0:
        axes.set_ylim(bottom=0)
    finish(figure, axes, path)


def _running_mean(values: Sequence[float], window: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    total = np.cumsum(np.insert(np.asarray(values, dtype=np.float64), 0, 0.0))
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - window, 0)
    return (total[end] - total[start]) / (end - start)


def _reference_lines(comparison: Comparison, axes: Axes) -> None:
    for name, style in references(comparison.plan).items():
        if any(row.name == name for row in comparison.rows):
            cost = comparison.plan.problem.cost
            mean = comparison.row(name).result.costs.mean
            shown = f"{name} {mean:.2f} {cost.unit}".strip()
            axes.axhline(
                mean,
                color="black",
                linestyle=style,
                linewidth=1.2,
                label=plain(shown),
            )


def sweep_plot(sweep: Sweep, results: Sequence[Comparison], path: str | Path) -> None:
    """Mean delay and ratio to the baseline of every policy at every value of a sweep."""
    figure = figure_of(13, 5)
    left, right = figure.subplots(1, 2)
    methods = [row.name for row in results[0].rows if row.seeds]
    plan = results[0].plan
    cost, lines = plan.problem.cost, references(plan)
    x = np.arange(len(results))
    for i, name in enumerate([*methods, *lines]):
        rows = [comparison.row(name) for comparison in results]
        mean = np.array([row.result.costs.mean for row in rows])
        style: dict[str, Any] = {"color": f"C{i}", "marker": "o", "markersize": 4}
        if name in lines:
            style = {"color": "black", "linestyle": lines[name]}
        half = np.array([row.result.ci95 or 0.0 for row in rows])
        left.errorbar(x, mean, half, capsize=2, label=plain(name), **style)
        right.plot(
            x, [np.nan if row.result.ratio is None else row.result.ratio for row in rows], label=plain(name), **style
        )
    labels = [
        "\n".join([sweep.label(value), *(f"{name} {figure:.2f}" for name, figure in c.rows[0].told.items())])
        for value, c in zip(sweep.values, results, strict=True)
    ]
    positive = all(row.result.costs.mean > 0 for comparison in results for row in comparison.rows)
    for axes in (left, right):
        axes.set_xticks(x, labels)
        axes.set_xlabel(sweep.key)
    left.set(ylabel=cost.titled(), yscale="log" if positive else "linear", title=f"over {sweep.key}")
    if positive:
        left.yaxis.set_major_formatter(ScalarFormatter())
        left.yaxis.set_minor_formatter(NullFormatter())
    right.set(ylabel=f"ratio of the mean to {plan.baseline}")
    left.grid(alpha=0.3, which="both")
    finish(figure, right, path)


def figure_of(width: float, height: float) -> Figure:
    """An empty picture, in inches, drawn by Agg: not pyplot's, so that the backend that a user chose stays his."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(name: str) -> str:
    """A name as a label: a dollar begins no formula, and no underscore at its start hides it from the legend."""
    plain = printable(name).replace("$", r"\$")
    return f"\u200b{plain}" if plain.startswith("_") else plain


def finish(figure: Figure, axes: Axes, path: str | Path) -> None:
    """Adds grid and legend, and writes the picture."""
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    _save(figure, path)


def _save(figure: Figure, path: str | Path) -> None:
    _files.write(path, lambda aside: figure.savefig(aside, dpi=120, format="png", metadata={"Software": None}))
