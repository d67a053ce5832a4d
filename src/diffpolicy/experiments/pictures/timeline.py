"""A Gantt chart of the beginning of an episode: what each place does when, and how much waits there."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from diffpolicy._draw.canvas import Theme, caption, figure_of, plain
from diffpolicy._draw.frame import RULE, Frame
from diffpolicy._draw.ticks import scale_linear
from diffpolicy._types import Floats
from diffpolicy.experiments.pictures.lines import names_of

PANELS = 4
"""Most policies that are drawn: what was trained first, then rules."""
BAR, QUEUE = 0.42, 0.42
"""Heights in a place's row, which is 1 high: of what is done, and above it of what waits."""

FEW = 8
"""Places that all have a number; of more, each fifth has one."""


def timeline(frame: Frame, theme: Theme) -> Figure:
    """Bars of what is done at each place, and above them how many items wait there, a panel a policy.

    Args:
        frame: `policy`, `kind`, `place`, `arrives`, `begins`, `ends`, and `what` and `clock` where they are known.
        theme: light or dark.
    """
    names = [name for name, kind in sorted(names_of(frame, "policy"), key=lambda x: x[1] == RULE)]
    rows = {name: frame.where("policy", name) for name in names}
    ends = {name: float(of.numbers("ends").max()) for name, of in rows.items()}
    shown = names[:PANELS]
    places = int(frame.numbers("place").max()) + 1
    most = max(float(_waiting(of, place)[1].max(initial=0)) for of in rows.values() for place in range(places))
    ticks = np.arange(0, places, 1 if places <= FEW else 5)
    clock = frame.constant("clock") or "time"
    unit = f" {clock.rpartition(', ')[2]}" if ", " in clock else ""
    figure = figure_of(0.9 + (0.45 + min(max(0.13 * places, 0.9), 2.2)) * len(shown))
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(panels, shown, strict=True):
        _panel(axes, rows[name], places, max(most, 1.0), theme.colour(name))
        axes.set_title(f"{plain(name)}: all done after {ends[name]:.3g}{unit}", color=theme.word(name))
        axes.set_ylabel(plain(frame.constant("what") or "place"))
        axes.set_ylim(-0.15, places)
        axes.set_yticks(ticks + BAR / 2, [str(at) for at in ticks])
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, max(ends[x] for x in shown) * 1.01)
        axes.grid(visible=False, axis="y")
    scale_linear(panels[-1].xaxis)
    panels[-1].set_xlabel(plain(clock))
    count = len(rows[shown[0]].rows)
    more = f" {len(names) - len(shown)} more policies are in the file." if len(names) > len(shown) else ""
    caption(
        figure,
        f"The first {count} items of the first episode. Bars: when each is done, one after the other. Area above: "
        f"how many wait there, at most {most:.0f}.{more}",
    )
    return figure


def _panel(axes: Axes, rows: Frame, places: int, most: float, colour: str) -> None:
    place, begins, ends = (rows.numbers(column) for column in ("place", "begins", "ends"))
    corners = np.stack([begins, place, ends, place, ends, place + BAR, begins, place + BAR], -1).reshape(-1, 4, 2)
    bars = Path.make_compound_path_from_polys(corners)  # one path, since a file of one each is many times larger
    axes.add_patch(PathPatch(bars, facecolor=colour, edgecolor=axes.get_facecolor(), linewidth=0.4))
    for at in range(places):
        times, count = _waiting(rows, at)
        if count.any():
            stairs = np.stack([np.repeat(times, 2)[1:], np.repeat(count, 2)[:-1] * QUEUE / most + at + BAR], -1)
            floor = np.array([[times[-1], at + BAR], [times[0], at + BAR]])
            area = Path(np.concatenate([stairs, floor]), closed=False)
            axes.add_patch(PathPatch(area, facecolor=colour, alpha=0.35, linewidth=0))


def _waiting(rows: Frame, place: int) -> tuple[Floats, Floats]:
    """How many items wait at a place from which moments on: moments `[N]` in order, and counts `[N]`."""
    here = rows.numbers("place") == place
    arrives, begins = rows.numbers("arrives")[here], rows.numbers("begins")[here]
    times = np.unique(np.concatenate([arrives, begins]))
    came = np.searchsorted(np.sort(arrives), times, side="right")
    gone = np.searchsorted(np.sort(begins), times, side="right")
    return times, (came - gone).astype(np.float64)
