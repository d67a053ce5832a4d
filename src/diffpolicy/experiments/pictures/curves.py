"""Learning curves: each training episode's cost in relation to the baseline, which one bad method cannot flatten."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffpolicy._draw.canvas import Theme, caption, figure_of
from diffpolicy._draw.frame import METHOD, Frame, titled
from diffpolicy._draw.labels import Label, label_ends
from diffpolicy._draw.ticks import padded, scale_linear, scale_log
from diffpolicy._types import Floats
from diffpolicy.evaluation.intervals import student_t
from diffpolicy.experiments.comparison import converged
from diffpolicy.experiments.pictures.lines import Line, names_of, ordered, positive

WINDOW = 10
SYMLOG = 50.0
"""How far apart differences are, largest to those at the end, before their axis is logarithmic on both sides."""


def running_mean(values: Floats, window: int = WINDOW) -> Floats:
    """Mean of each value and the `window - 1` before it, of fewer where there are not so many, `[N]`."""
    total = np.cumsum(np.insert(np.asarray(values, dtype=np.float64), 0, 0.0))
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - window, 0)
    mean: Floats = (total[end] - total[start]) / (end - start)
    return mean


def learning_curves(frame: Frame, theme: Theme) -> Figure:
    """Running means of training episodes over the baseline's mean, on a logarithmic axis, with intervals over seeds.

    Where costs are not all above zero, the difference to the baseline, on a linear axis, or on one that is logarithmic
    on both sides of zero where it spans much. Rules are straight lines at what they cost in the evaluation.

    Args:
        frame: columns `method`, `episode`, the cost, and `seed`, `kind`, `baseline`, `measure` where they are known;
            or means of blocks of episodes, from `first_episode` to `last_episode`, over `seeds`.
        theme: light or dark.
    """
    blocks = "last_episode" in frame
    column = frame.header[frame.header.index("last_episode" if blocks else "episode") + 1]
    baseline, measure = frame.constant("baseline"), frame.constant("measure") or titled(column)
    names = names_of(frame, "method")
    known = {name: float(frame.where("method", name).numbers(column)[0]) for name, kind in names if kind != METHOD}
    base = known.get(baseline)
    ratio = base is not None and base > 0 and positive(frame.numbers(column))
    curves = {
        name: (_blocks if blocks else _seeds)(frame.where("method", name), column)
        for name, kind in names
        if kind == METHOD
    }
    curves = {name: (at, seeds) for name, (at, seeds) in curves.items() if len(at)}

    def related(values: Any) -> Any:
        return values if base is None else values / base if ratio else values - base

    lines = [_line(name, seeds, related, 1 if blocks else WINDOW) for name, (_, seeds) in curves.items()]
    flat = [Line(name, kind, *(np.array([float(related(known[name]))]),) * 3) for name, kind in names if kind != METHOD]
    figure = figure_of(4.2)
    axes = figure.subplots()
    for line in lines:
        at, seeds = curves[line.name]
        style = theme.of(line.name) if blocks else {**theme.of(line.name), "marker": ""}
        axes.plot(at, line.values, **style)
        if blocks:
            continue
        if len(seeds) > 1:
            axes.fill_between(at, line.low, line.high, color=style["color"], alpha=0.18, linewidth=0)
        else:
            axes.plot(at, related(seeds[0]), color=style["color"], alpha=0.3, linewidth=0.7)
    for line in flat:
        axes.axhline(line.values[0], **{**theme.of(line.name), "marker": "", "linewidth": 1.2})
    last = max((int(at[-1]) for at, _ in curves.values()), default=1)
    if blocks:
        scale_log(axes, "x", *padded(min(float(at[0]) for at, _ in curves.values()), last, 0.02))
    else:
        axes.set_xlim(1, max(last, 2))
        scale_linear(axes.xaxis, whole=True)
    axes.set_xlabel("training episode")
    _scale(axes, [line.values for line in [*lines, *flat]], ratio or (base is None and positive(*_all(curves))), ratio)
    what = f"{measure.split(',')[0]}: ratio to {baseline}" if ratio else measure
    axes.set_ylabel(what if ratio or base is None else f"{measure}: difference to {baseline}")
    caption(figure, _of_blocks(frame) if blocks else _caption(curves))
    figure.draw_without_rendering()
    starred = [] if blocks else [name for name, (_, seeds) in curves.items() if _falling(seeds)]
    label_ends(axes, [_label(x, last, theme, x.name in starred) for x in ordered([*lines, *flat])], theme)
    return figure


def _all(curves: dict[str, tuple[Floats, Floats]]) -> list[Floats]:
    return [seeds for _, seeds in curves.values()]


def _seeds(rows: Frame, column: str) -> tuple[Floats, Floats]:
    """Episodes `[N]` and the costs of each seed in them, `[seeds, N]`, as far as all seeds come."""
    seed = rows.texts("seed") if "seed" in rows else [""] * len(rows.rows)
    episode, cost = rows.numbers("episode"), rows.numbers(column)
    parts = [(episode[of], cost[of]) for s in dict.fromkeys(seed) for of in [np.array([x == s for x in seed])]]
    shortest = min(len(at) for at, _ in parts)
    return parts[0][0][:shortest], np.array([values[:shortest] for _, values in parts])


def _blocks(rows: Frame, column: str) -> tuple[Floats, Floats]:
    """Middles of blocks of episodes `[N]`, and the mean of each, `[1, N]`."""
    middle: Floats = (rows.numbers("first_episode") + rows.numbers("last_episode")) / 2
    return middle, rows.numbers(column)[None]


def _of_blocks(frame: Frame) -> str:
    """What the points are."""
    trained = frame.where("kind", METHOD)
    many = int((trained.numbers("last_episode") - trained.numbers("first_episode"))[0]) + 1
    seeds = frame.constant("seeds")
    return f"Points: means of {many} episodes{f' and {seeds} seeds' if seeds else ''}. Rules: mean of the evaluation."


def _line(name: str, seeds: Floats, related: Any, window: int) -> Line:
    """The mean over seeds of running means, and its 95 % interval, or the range of two."""
    means = related(np.array([running_mean(row, window) for row in seeds]))
    mean, count = means.mean(0), len(means)
    if count < 3:
        return Line(name, METHOD, mean, means.min(0), means.max(0))
    half = student_t(count - 1) * means.std(0, ddof=1) / np.sqrt(count)
    return Line(name, METHOD, mean, mean - half, mean + half)


def _scale(axes: Axes, values: list[Floats], log: bool, ratio: bool) -> None:
    """The axis of what was learned: as far as the means go, since the first episodes' bands go anywhere."""
    everything = np.concatenate(values) if values else np.ones(1)
    if log:
        scale_log(axes, "y", *padded(float(everything.min()), float(everything.max())))
        return
    ends = [abs(value[-1]) for value in values if value[-1] != 0]
    typical = float(np.median(ends)) if ends else 1.0
    if not ratio and np.abs(everything).max() > SYMLOG * typical:
        axes.set_yscale("symlog", linthresh=typical)
    else:
        scale_linear(axes.yaxis)
    room = 0.05 * max(float(np.ptp(everything)), 1e-9)
    axes.set_ylim(float(everything.min()) - room, float(everything.max()) + room)


def _label(line: Line, last: float, theme: Theme, starred: bool) -> Label:
    return Label(last, line.end, f"{line.name} {line.end:.3g}{' *' if starred else ''}", theme.word(line.name))


def _falling(seeds: Floats) -> bool:
    """Whether some seed's costs were still falling, or nobody can tell."""
    return not all(converged(row) for row in seeds)


def _caption(curves: dict[str, tuple[Floats, Floats]]) -> str:
    """What the bands are, and what the star means."""
    counts = sorted({len(seeds) for _, seeds in curves.values()})
    if not counts:
        return ""
    lanes = int(max(at[0] for at, _ in curves.values()))
    few = {1: f"faint: single {'episodes' if lanes == 1 else 'rounds'} of the one seed", 2: "bands: range of 2 seeds"}
    band = few.get(counts[0], f"bands: 95 % interval over {counts[0]} seeds")
    window = f"{WINDOW} episodes" if lanes == 1 else f"{WINDOW} rounds of {lanes} episodes"
    starred = any(_falling(seeds) for _, seeds in curves.values())
    star = "; * still falling, or under 20 episodes" if starred else ""
    return f"Running mean over {window}; {band}{star}. Rules: mean of the evaluation."
