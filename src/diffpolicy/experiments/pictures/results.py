"""What a comparison or an evaluation gives: each policy's ratio with its interval, and its mean against its worst."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from diffpolicy._draw.canvas import SMALL_PT, Theme, caption, figure_of, plain
from diffpolicy._draw.frame import RULE, Frame, titled
from diffpolicy._draw.labels import Label, label_points
from diffpolicy._draw.ticks import padded, scale_linear, scale_log
from diffpolicy._types import Floats
from diffpolicy.experiments.pictures.lines import Line, baseline_of, names_of, ordered, positive, span

FAR = (2.0, 1.5)
"""How many times the least 99th percentile and the least mean a policy has that the front leaves out."""


def who(frame: Frame) -> str:
    """The column of names: `method` of a comparison, `policy` of an evaluation."""
    return "method" if "method" in frame else "policy"


def ranking(frame: Frame, theme: Theme) -> Figure:
    """A point and an interval for each policy, those that were trained before the rules, each by what it costs.

    Ratios to the baseline; the difference to it where a ratio says nothing; the mean where the file has neither.

    Args:
        frame: `method` or `policy`, `mean_...`, `ratio`, `ratio_lo`, `ratio_hi`, and what else is known. theme: light
            or dark.
    """
    lines, what, ratio = _ranked(frame)
    shown = ordered(lines)
    figure = figure_of(1.4 + 0.25 * len(shown))
    axes = figure.subplots()
    if positive(*(line.values for line in shown)):
        scale_log(axes, "x", *span(shown))
    else:
        scale_linear(axes.xaxis)
    for k, line in enumerate(shown):
        style = {**theme.of(line.name), "linestyle": "none"}
        bars = np.nan_to_num(np.abs(np.array([line.values - line.low, line.high - line.values])))
        axes.errorbar(line.values, [k], xerr=bars, capsize=2.5, elinewidth=1.2, **style)
    rules = [k for k, line in enumerate(shown) if line.kind == RULE]
    if rules and rules[0] > 0:
        axes.axhline(rules[0] - 0.5, color=theme.faint, linewidth=1)
    if ratio:
        axes.axvline(1, color=theme.ink, linewidth=0.8)
    axes.set_yticks(range(len(shown)), [plain(line.name) for line in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(plain(what))
    numbers = [line.end for line in shown]
    for k, number in enumerate(numbers):
        axes.annotate(
            f"{number:.3f}" if abs(number) < 100 else f"{number:.4g}",
            xy=(1.01, k),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=SMALL_PT,
            annotation_clip=False,
        )
    caption(figure, f"Bars: 95 % intervals{_over(frame)}. Above the line: trained methods; below it: rules.")
    return figure


def _over(frame: Frame) -> str:
    seeds = {int(x) for x in frame.optional("training_seeds") if np.isfinite(x)}
    return " over training seeds (rules: episodes)" if seeds and min(seeds) >= 3 else " over episodes"


def _ranked(frame: Frame) -> tuple[list[Line], str, bool]:
    """The lines, what they show, and whether it is a ratio."""
    baseline = baseline_of(frame, who(frame))
    mean = str(frame.starting("mean_"))
    measure = frame.constant("measure") or titled(mean.removeprefix("mean_"))
    difference = next((c for c in frame.header if c.startswith("difference") and "ci95" not in c), None)
    ratio = frame.optional("ratio")
    if np.isfinite(ratio).all():
        low, high = frame.optional("ratio_lo"), frame.optional("ratio_hi")
        return _of(frame, ratio, low, high), f"mean {measure.split(',')[0]}: ratio to {baseline}", True
    if difference is not None and np.isfinite(frame.numbers(difference)).all():
        values, half = frame.numbers(difference), frame.optional(difference.replace("difference", "difference_ci95"))
        return _of(frame, values, values - half, values + half), f"mean {measure}: difference to {baseline}", False
    values, half = frame.numbers(mean), frame.optional(str(frame.starting("ci95")))
    return _of(frame, values, values - half, values + half), f"mean {measure}", False


def _of(frame: Frame, values: Floats, low: Floats, high: Floats) -> list[Line]:
    names = frame.texts(who(frame))
    at = {name: k for k, name in enumerate(names)}
    rows = [(name, kind, slice(at[name], at[name] + 1)) for name, kind in names_of(frame, who(frame))]
    return [Line(name, kind, values[row], low[row], high[row]) for name, kind, row in rows]


def front(frame: Frame, theme: Theme) -> Figure:
    """Means against 99th percentiles: the line joins those beside which no other is better in both.

    Args:
        frame: `method` or `policy`, `mean_...` and `p99_...`. theme: light or dark.
    """
    mean, worst = str(frame.starting("mean_")), str(frame.starting("p99"))
    measure = frame.constant("measure") or titled(mean.removeprefix("mean_"))
    x, y = frame.numbers(worst), frame.numbers(mean)
    far = positive(x, y) & (x > FAR[0] * x.min()) & (y > FAR[1] * y.min())
    out = [name for name, gone in zip(frame.texts(who(frame)), far, strict=True) if gone]
    frame, x, y = frame.only(~far), x[~far], y[~far]
    figure = figure_of(4.4)
    axes = figure.subplots()
    names = [name for name, _ in names_of(frame, who(frame))]
    best = undominated(x, y)
    axes.plot(x[best], y[best], color=theme.faint, linewidth=5, solid_capstyle="round", zorder=1)
    for k, name in enumerate(names):
        axes.plot(x[k], y[k], **{**theme.of(name), "linestyle": "none", "markersize": 6})
    if positive(x, y):
        scale_log(axes, "x", *padded(float(x.min()), float(x.max()), 0.12))
        scale_log(axes, "y", *padded(float(y.min()), float(y.max()), 0.12))
    else:
        scale_linear(axes.xaxis)
        scale_linear(axes.yaxis)
    axes.set_xlabel(plain(f"99th percentile of the {measure}"))
    axes.set_ylabel(plain(f"mean {measure}"))
    outside = f" Far outside: {', '.join(out)}." if out else ""
    caption(figure, f"Grey: those that no other beats in both.{outside}")
    labels = [Label(float(x[k]), float(y[k]), name, theme.word(name)) for k, name in enumerate(names)]
    label_points(axes, labels, theme)
    return figure


def weights(frame: Frame, theme: Theme) -> Figure:
    """Means against 99th percentiles as a weight of the policy is turned: a line a policy, its points named by weight.

    Args:
        frame: `policy`, `weight`, `p99...` and `ratio` or `mean_...`; one without a weight is a point. theme: light or
            dark.
    """
    worst = str(frame.starting("p99"))
    mean = "ratio" if "ratio" in frame else str(frame.starting("mean_"))
    figure = figure_of(4.4)
    axes = figure.subplots()
    labels, lines, keys = [], [], []
    for name, _ in names_of(frame, "policy"):
        rows, colour = frame.where("policy", name), theme.word(name)
        x, y, told = rows.numbers(worst), rows.numbers(mean), rows.texts("weight")
        key = _key(told)
        legend = f"{plain(name)} ({key})" if key else plain(name) if any(told) else None
        axes.plot(x, y, **theme.of(name), label=legend)
        labels += [Label(a, b, w.removeprefix(f"{key}=") or name, colour) for a, b, w in zip(x, y, told, strict=True)]
        lines.append(np.stack([x, y], axis=1))
        keys.append(key)
    scale_linear(axes.xaxis)
    scale_linear(axes.yaxis)
    axes.set_xlabel(plain(f"99th percentile of the {frame.constant('measure') or titled(worst.removeprefix('p99_'))}"))
    axes.set_ylabel(f"mean: ratio to {baseline_of(frame, 'policy')}" if mean == "ratio" else f"mean, {titled(mean)}")
    axes.legend(loc="upper right")
    caption(figure, f"Numbers at the points: {'what the legend has in brackets' if any(keys) else 'the weight'}.")
    label_points(axes, labels, theme, lines)
    return figure


def _key(told: Sequence[str]) -> str:
    """`cap` where weights are told as `cap=2`, `cap=4` and `no cap`; empty where they are told otherwise."""
    keys = {text.partition("=")[0] for text in told if "=" in text}
    return keys.pop() if len(keys) == 1 else ""


def undominated(x: Floats, y: Floats) -> Sequence[int]:
    """Places of the points, by x, than which none is smaller in one and not larger in the other. Args: x, y: `[N]`."""
    best: list[int] = []
    for k in np.lexsort((y, x)):
        if not best or y[k] < y[best[-1]]:
            best.append(int(k))
    return best
