"""Pictures of the offloading problem's own files: ratios against load, and how far from possible a policy is."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from diffpolicy._draw.canvas import SMALL_PT, Theme, caption, figure_of, plain
from diffpolicy._draw.frame import Frame
from diffpolicy._draw.labels import Label, label_ends
from diffpolicy._draw.ticks import padded, scale_linear, scale_log
from diffpolicy.experiments.pictures.lines import Line, names_of, ordered
from diffpolicy.experiments.plots import Kind

HIGHEST = 2.0
"""The largest ratio against load that is drawn: what is worse leaves the picture at its top."""
BOUND = ("lower bound", "fluid optimum")
"""With what the names of bounds begin: what no assignment reaches."""


def ratio_by_load(frame: Frame, theme: Theme) -> Figure:
    """The ratio of each policy's mean delay to the greedy rule's against load, with 95 % intervals.

    Args:
        frame: `load`, `policy`, `kind`, `ratio`, `ratio_lo`, `ratio_hi`, `baseline`. theme: light or dark.
    """
    figure = figure_of(4.6)
    axes = figure.subplots()
    loads = sorted(set(frame.numbers("load")))
    lines = []
    for name, kind in names_of(frame, "policy"):
        rows = frame.where("policy", name)
        order = np.argsort(rows.numbers("load"))
        parts = [rows.optional(column)[order] for column in ("ratio", "ratio_lo", "ratio_hi")]
        lines.append(Line(name, kind, *parts))  # type: ignore[arg-type]
        style = theme.of(name)
        axes.plot(rows.numbers("load")[order], parts[0], **style)
        axes.fill_between(loads, parts[1], parts[2], color=style["color"], alpha=0.15, linewidth=0)
    inside = [line for line in lines if line.end <= HIGHEST]
    beyond = [line.name for line in ordered(lines) if line.end > HIGHEST]
    low = float(min(line.values.min() for line in inside))
    scale_log(axes, "y", padded(low, HIGHEST)[0], HIGHEST)
    scale_linear(axes.xaxis)
    axes.axvline(1, color=theme.faint, linewidth=1.2)
    axes.set_xlabel("load: work offered / (capacity x time)")
    axes.set_ylabel(plain(f"mean delay: ratio to {frame.constant('baseline') or 'opt-ts'}"))
    out = f" Above {HIGHEST:g} at the highest load: {', '.join(beyond)}." if beyond else ""
    caption(figure, f"Below 1 is better than the greedy rule. Bands: 95 % intervals over episodes.{out}")
    figure.draw_without_rendering()
    shown = ordered(inside)
    label_ends(axes, [Label(loads[-1], x.end, f"{x.name} {x.end:.3g}", theme.word(x.name)) for x in shown], theme)
    return figure


def bracket(frame: Frame, theme: Theme) -> Figure:
    """At each load what no assignment reaches, what one that knows the episode reaches, and what rules and policies do.

    The grey bar is where the best possible ratio lies: between the lower bound and the best assignment that is known.

    Args:
        frame: `tasks`, `load`, `rule or bound`, `ratio to opt-ts`, `least`, `greatest`. theme: light or dark.
    """
    groups = list(dict.fromkeys(frame.texts("tasks")))
    names = [x.split(" (")[0] for x in frame.texts("rule or bound")]
    figure = figure_of(1.2 + 0.24 * len(names))
    axes = figure.subplots()
    at, ticks = 0.0, []
    value, low, high = (frame.numbers(column) for column in ("ratio to opt-ts", "least", "greatest"))
    for group in groups:
        rows = [k for k, x in enumerate(frame.texts("tasks")) if x == group]
        rows.sort(key=lambda k: value[k])
        ends = {names[k]: value[k] for k in rows}
        if {"lower bound", "best known"} <= ends.keys():
            axes.axvspan(
                ends["lower bound"],
                ends["best known"],
                1 - (at + len(rows) - 0.5) / _height(len(names), len(groups)),
                1 - (at - 0.5) / _height(len(names), len(groups)),
                color=theme.faint,
                alpha=0.6,
                linewidth=0,
            )
        for k in rows:
            style = theme.of(names[k])
            hollow = {"markerfacecolor": "none"} if names[k].startswith(BOUND) else {}
            if names[k].startswith((*BOUND, "best ")):
                style = {**style, "color": theme.ink, "marker": "|" if names[k] == "lower bound" else "o"}
            bars = np.abs(np.nan_to_num(np.array([[value[k] - low[k]], [high[k] - value[k]]])))
            axes.errorbar([value[k]], [at], xerr=bars, capsize=2, **{**style, **hollow, "linestyle": "none"})
            ticks.append((at, names[k]))
            at += 1
        load = frame.texts("load")[rows[0]]
        axes.annotate(
            f"load {load}",
            (1.0, ticks[-len(rows)][0]),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="center",
            fontsize=SMALL_PT,
        )
        at += 1
    axes.set_ylim(at - 1.5, -0.5)
    axes.set_yticks([y for y, _ in ticks], [plain(name) for _, name in ticks])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    scale_log(axes, "x", *padded(float(value.min()), float(value.max())))
    axes.set_xlabel("mean delay: ratio to opt-ts")
    caption(
        figure,
        "Grey: where the best possible lies. Bars: least and greatest episode. Hollow: no bound.",
    )
    return figure


def _height(rows: int, groups: int) -> float:
    """Of the axes, in rows: one apart between groups."""
    return rows + groups - 1.0


KINDS = (
    Kind(
        "ratios against load",
        lambda f: f.header[0] == "load" and all(x in f for x in ("policy", "ratio")),
        {"": ratio_by_load},
    ),
    Kind("bounds", lambda f: "rule or bound" in f and "ratio to opt-ts" in f, {"": bracket}),
)
"""What can be drawn beside what any problem has."""
