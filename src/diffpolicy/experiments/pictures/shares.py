"""Who pays: what is counted in bins of something that was noted of it, such as the work of a task."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from diffpolicy._draw.canvas import Theme, caption, figure_of
from diffpolicy._draw.frame import Frame, titled
from diffpolicy._draw.labels import Label, label_ends
from diffpolicy._draw.ticks import padded, scale_linear, scale_log
from diffpolicy.experiments.pictures.lines import Line, chosen, merged, names_of, ordered, positive


def by_bin(frame: Frame, theme: Theme) -> Figure:
    """The mean of each bin over the baseline's of the same bin, on a logarithmic axis; coinciding rules are one line.

    Without ratios the means themselves.

    Args:
        frame: `policy`, `kind`, `bin`, the bin's middle, `mean_...`, `ratio`, `baseline`, `measure`.
        theme: light or dark.
    """
    middle = frame.header[frame.header.index("bin") + 1]
    mean, baseline = str(frame.starting("mean_")), frame.constant("baseline")
    measure = frame.constant("measure") or titled(mean.removeprefix("mean_"))
    relative = bool(np.isfinite(frame.numbers("ratio")).all())
    at = {}
    lines = []
    for name, kind in names_of(frame, "policy"):
        rows = frame.where("policy", name)
        values = rows.numbers("ratio" if relative else mean)
        at[name] = rows.numbers(middle)
        lines.append(Line(name, kind, values, values, values))
    kept, left_out = chosen(lines, baseline)
    shown = ordered(merged(kept, baseline))
    figure = figure_of(4.2)
    axes = figure.subplots()
    for line in shown:
        axes.plot(at[line.name], line.values, **theme.of(line.name))
    everything = np.concatenate([line.values for line in shown])
    if positive(everything):
        scale_log(axes, "y", *padded(float(everything.min()), float(everything.max())))
    else:
        scale_linear(axes.yaxis)
    scale_linear(axes.xaxis)
    axes.set_xlabel(titled(middle))
    axes.set_ylabel(f"mean {measure.split(',')[0]} in its bin: ratio to {baseline}" if relative else f"mean {measure}")
    bins = len(set(frame.texts("bin")))
    caption(figure, f"{bins} bins with about the same number in each{'; ' + left_out if left_out else ''}.")
    figure.draw_without_rendering()
    last = max(float(x[-1]) for x in at.values())
    label_ends(
        axes, [Label(last, line.end, f"{line.label} {line.end:.3g}", theme.word(line.name)) for line in shown], theme
    )
    return figure
