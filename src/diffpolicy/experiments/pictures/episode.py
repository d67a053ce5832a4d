"""One episode step by step, and one decision's chain from noise to what is chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure

from diffpolicy._draw.canvas import Theme, caption, figure_of, plain
from diffpolicy._draw.frame import Frame, titled
from diffpolicy._draw.labels import Label, label_ends
from diffpolicy._draw.ticks import padded, scale_linear, scale_log
from diffpolicy.experiments.pictures.lines import Line, names_of, ordered, positive

PANELS = 6
"""Most policies whose levels are drawn: what was trained first, then rules."""

ACROSS = 2
"""Panels beside each other, at most."""


def steps(frame: Frame, theme: Theme) -> Figure:
    """How full everything is as each step begins, a panel a policy; without such levels, what each step costs.

    Args:
        frame: `policy`, `kind`, `step`, the cost, and columns `LEVEL:0`, `LEVEL:1`... where there are some.
        theme: light or dark.
    """
    levels = [column for column in frame.header if ":" in column]
    return _levels(frame, levels, theme) if levels else _costs(frame, theme)


def _costs(frame: Frame, theme: Theme) -> Figure:
    column = frame.header[frame.header.index("step") + 1]
    lines, at = [], {}
    for name, kind in names_of(frame, "policy"):
        rows = frame.where("policy", name)
        at[name], values = rows.numbers("step"), rows.numbers(column)
        lines.append(Line(name, kind, values, values, values))
    figure = figure_of(4.2)
    axes = figure.subplots()
    for line in lines:
        axes.plot(at[line.name], line.values, **{**theme.of(line.name), "marker": ""})
    everything = np.concatenate([line.values for line in lines])
    if positive(everything):
        scale_log(axes, "y", *padded(float(everything.min()), float(everything.max())))
    else:
        scale_linear(axes.yaxis)
    scale_linear(axes.xaxis, whole=True)
    axes.set_xlabel("step of the first episode")
    axes.set_ylabel(plain(f"sum over the items of a step: {frame.constant('measure') or titled(column)}"))
    figure.draw_without_rendering()
    last = max(float(x[-1]) for x in at.values())
    label_ends(axes, [Label(last, x.end, x.name, theme.word(x.name)) for x in ordered(lines)], theme)
    return figure


def _levels(frame: Frame, columns: list[str], theme: Theme) -> Figure:
    lines = []
    for name, kind in names_of(frame, "policy"):
        rows = frame.where("policy", name)
        total = np.nanmean(np.array([rows.numbers(column) for column in columns]), 0)
        lines.append(Line(name, kind, total, total, total))
    shown = ordered(lines)[:PANELS]
    grids = {
        line.name: np.array([frame.where("policy", line.name).numbers(column) for column in columns]) for line in shown
    }
    figure = figure_of(0.9 + 2.0 * -(-len(shown) // ACROSS))
    panels = figure.subplots(-(-len(shown) // ACROSS), min(len(shown), ACROSS), sharex=True, sharey=True, squeeze=False)
    top = max(float(np.nanmax(grid)) for grid in grids.values()) or 1.0
    look: dict[str, Any] = {
        "norm": PowerNorm(0.5, 0, top),
        "cmap": _colours(theme),
        "aspect": "auto",
        "origin": "lower",
    }
    for axes in panels.flat[len(shown) :]:
        axes.set_visible(False)
    for axes, line in zip(panels.flat, shown, strict=False):
        drawn = axes.imshow(grids[line.name], **look)
        axes.set_title(plain(line.name), color=theme.word(line.name))
        axes.grid(visible=False)
        scale_linear(axes.xaxis, whole=True)
        scale_linear(axes.yaxis, whole=True)
    figure.colorbar(drawn, ax=panels, label=titled(columns[0].split(":")[0]), pad=0.01, aspect=30)
    more = f" {len(lines) - len(shown)} more policies are in the file." if len(lines) > len(shown) else ""
    caption(figure, f"State as each step of the first episode begins (across), for each place (up).{more}")
    return figure


def chain(frame: Frame, theme: Theme) -> Figure:
    """Probabilities of the choices in each state of the chain, a panel a policy, from x_I at the left to x_0.

    Args:
        frame: `policy`, `chain_step`, `choice`, `probability`. theme: light or dark.
    """
    names = list(dict.fromkeys(frame.texts("policy")))[:PANELS]
    figure = figure_of(0.9 + 2.2 * -(-len(names) // ACROSS))
    panels = figure.subplots(-(-len(names) // ACROSS), min(len(names), ACROSS), squeeze=False)
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    for axes, name in zip(panels.flat, names, strict=False):
        rows = frame.where("policy", name)
        times = list(dict.fromkeys(rows.texts("chain_step")))
        grid = rows.numbers("probability").reshape(len(times), -1).T
        drawn = axes.imshow(grid, aspect="auto", origin="lower", vmin=0, vmax=1, cmap=_colours(theme))
        axes.set_title(plain(name), color=theme.word(name))
        axes.set_xticks(range(len(times)), [f"$x_{{{time}}}$" for time in times])
        axes.grid(visible=False)
        scale_linear(axes.yaxis, whole=True)
        axes.set_ylabel("choice")
    figure.colorbar(drawn, ax=panels, label="probability", pad=0.01, aspect=30)
    caption(figure, "The first decision of the first episode: the chain's states as the head reads them.")
    return figure


def _colours(theme: Theme) -> LinearSegmentedColormap:
    """From the ground to the ink through one colour, so that more is further from the ground, light or dark."""
    return LinearSegmentedColormap.from_list("more", [theme.ground, theme.colours["blue"], theme.ink])
