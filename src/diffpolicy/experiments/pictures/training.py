"""One training, pass by pass: its cost, and every loss and figure that it noted."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffpolicy._draw.canvas import Theme, caption, figure_of, plain
from diffpolicy._draw.frame import Frame, titled
from diffpolicy._draw.ticks import padded, scale_linear, scale_log
from diffpolicy._types import Floats
from diffpolicy.experiments.pictures.curves import SYMLOG, WINDOW, running_mean
from diffpolicy.experiments.pictures.lines import positive

BESIDES = 8
"""Most columns that are drawn beside the first."""
ACROSS = 2
"""Panels beside each other."""


def training(frame: Frame, theme: Theme) -> Figure:
    """What was learned above, wide, and below it a small panel for each other column, in the order of the file.

    Each value is faint and its running mean strong. What is above zero has a logarithmic axis, and so has, on both
    sides of zero, what spans much.

    Args:
        frame: `episode`, `round` or `generation`, then the cost, then what else was noted, empty where it was not.
        theme: light or dark.
    """
    at, first, *others = frame.header
    drawn = [name for name in others if np.isfinite(frame.numbers(name)).sum() > 1][:BESIDES]
    rows = -(-len(drawn) // ACROSS)
    figure = figure_of(3.0 + 1.5 * rows)
    grid = figure.add_gridspec(1 + rows, ACROSS, height_ratios=[1.8, *[1.0] * rows])
    panels = [figure.add_subplot(grid[0, :])]
    panels += [figure.add_subplot(grid[1 + k // ACROSS, k % ACROSS]) for k in range(len(drawn))]
    x = frame.numbers(at)
    for axes, name in zip(panels, (first, *drawn), strict=True):
        _panel(axes, x, frame.numbers(name), theme)
        axes.set_title(plain(titled(name)))
    panels[0].set_xlabel(f"training {plain(at)}")
    more = f" {len(others) - len(drawn)} more columns are in the file." if len(others) > len(drawn) else ""
    caption(figure, f"Faint: each pass. Strong: running mean over {WINDOW} of them.{more}")
    return figure


def _panel(axes: Axes, x: Floats, values: Floats, theme: Theme) -> None:
    there = np.isfinite(values)
    x, values = x[there], values[there]
    mean = running_mean(values)
    axes.plot(x, values, color=theme.colours["blue"], alpha=0.35, linewidth=0.7)
    axes.plot(x, mean, color=theme.colours["blue"])
    scale_linear(axes.xaxis, whole=True)
    typical = float(np.median(np.abs(values))) or 1.0
    if positive(values) and values.max() > 2 * values.min():
        scale_log(axes, "y", *padded(float(values.min()), float(values.max())))
    elif np.abs(values).max() > SYMLOG * typical:
        axes.set_yscale("symlog", linthresh=typical)
    else:
        scale_linear(axes.yaxis)
