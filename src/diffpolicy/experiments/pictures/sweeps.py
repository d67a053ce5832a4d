"""Sweeps: what every policy costs at every value of a knob, and in relation to the baseline, with intervals on both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffpolicy._draw.canvas import Theme, caption, figure_of, plain
from diffpolicy._draw.frame import Frame, titled
from diffpolicy._draw.labels import Label, label_ends
from diffpolicy._draw.ticks import scale_linear, scale_log
from diffpolicy._types import Floats
from diffpolicy.experiments.pictures.lines import Line, baseline_of, chosen, merged, names_of, ordered, positive, span

APART = 0.05
"""How far beside each other the intervals of two lines stand, in steps of the values."""


def sweep(frame: Frame, theme: Theme) -> Figure:
    """Means above, ratios to the baseline below, of what was trained, the baseline and the best rules.

    Args:
        frame: the knob as first column, what the problem tells of a value, `policy`, `kind`, `mean_...`, `ci95...`,
            `ratio` and, where they are known, `ratio_lo`, `ratio_hi`, `baseline` and `measure`.
        theme: light or dark.
    """
    key = frame.header[0]
    values = list(dict.fromkeys(frame.texts(key)))
    mean, half = str(frame.starting("mean_")), frame.starting("ci95")
    baseline = baseline_of(frame, "policy")
    measure = frame.constant("measure") or titled(mean.removeprefix("mean_"))
    x = np.arange(float(len(values)))
    figure = figure_of(6.4)
    above, below = figure.subplots(2, 1, sharex=True)
    means = _lines(frame, key, values, mean, None if half is None else (half,))
    ratios = _lines(frame, key, values, "ratio", ("ratio_lo", "ratio_hi") if "ratio_lo" in frame else None)
    kept, left_out = chosen(ratios if all(np.isfinite(r.values).all() for r in ratios) else means, baseline)
    names = [line.name for line in kept]
    _panel(above, x, [line for line in means if line.name in names], theme)
    above.set_ylabel(f"mean {measure}")
    shown = merged([line for line in ratios if line.name in names and np.isfinite(line.values).any()], baseline)
    _panel(below, x, shown, theme)
    below.set_ylabel(f"ratio of the mean to {baseline}")
    _values(frame, key, values, x, (above, below))
    without = "" if half else "no intervals; "
    over = "95 % intervals" if "ratio_lo" in frame else "95 % intervals, only above: the file has none for ratios"
    caption(figure, f"Bars: {without or over}{'; ' + left_out if left_out else ''}.")
    figure.draw_without_rendering()
    label_ends(below, [_label(line, x[-1], theme) for line in ordered(shown)], theme)
    return figure


def _lines(frame: Frame, key: str, values: Sequence[str], column: str, ends: tuple[str, ...] | None) -> list[Line]:
    """A line a policy. Args: ends: columns of its intervals' two ends, or of their half-width; None: there are none."""
    at = [values.index(value) for value in frame.texts(key)]
    of, policy = frame.numbers(column), frame.texts("policy")
    lows = highs = of
    if ends is not None and len(ends) == 2:
        lows, highs = frame.numbers(ends[0]), frame.numbers(ends[1])
    elif ends is not None:
        half = frame.numbers(ends[0])
        lows, highs = of - half, of + half
    result = []
    for name, kind in names_of(frame, "policy"):
        mine = [k for k, p in enumerate(policy) if p == name]
        row = [np.full(len(values), np.nan) for _ in range(3)]
        for k in mine:
            for part, source in zip(row, (of, lows, highs), strict=True):
                part[at[k]] = source[k]
        result.append(Line(name, kind, row[0], row[1], row[2]))
    return result


def _panel(axes: Axes, x: Floats, lines: Sequence[Line], theme: Theme) -> None:
    for k, line in enumerate(ordered(lines)):
        beside = x + APART * (k - (len(lines) - 1) / 2)
        bars = np.nan_to_num(np.abs(np.array([line.values - line.low, line.high - line.values])))
        axes.errorbar(beside, line.values, bars, capsize=2, elinewidth=1, **theme.of(line.name))
    if lines and positive(*(line.values for line in lines)):
        scale_log(axes, "y", *span(lines))
    else:
        scale_linear(axes.yaxis)
    axes.set_xlim(-0.35, x[-1] + 0.35)


def _values(frame: Frame, key: str, values: Sequence[str], x: Floats, panels: Sequence[Axes]) -> None:
    """The values below the axes, with what the problem tells of each, or once where it tells the same of all."""
    told = frame.header[1 : frame.header.index("policy")]
    first = [frame.where(key, value) for value in values]
    columns = {name: [float(rows.numbers(name)[0]) for rows in first] for name in told}
    differ = {name: numbers for name, numbers in columns.items() if len({f"{n:.2f}" for n in numbers}) > 1}
    same = "".join(f", {name} {numbers[0]:.2f}" for name, numbers in columns.items() if name not in differ)
    labels = [
        "\n".join([value, *(f"{name} {numbers[k]:.2f}" for name, numbers in differ.items())])
        for k, value in enumerate(values)
    ]
    for axes in panels:
        axes.set_xticks(x, [plain(label) if "\n" not in label else label for label in labels])
        axes.grid(visible=False, axis="x")
    panels[-1].set_xlabel(plain(f"{key.replace('-', ' ')}{same}"))


def _label(line: Line, x: float, theme: Theme) -> Label:
    return Label(x, line.end, f"{line.label} {line.end:.3g}", theme.word(line.name))
