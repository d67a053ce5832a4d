"""Names beside what they name: at the ends of lines and beside points, none over another."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from diffpolicy._draw.canvas import SMALL_PT, Theme, plain

GAP = 1.3
"""From one label's middle to the next one's, in heights of the letters."""
LETTERS = 26
"""Of a line of a name at the end of a line; a longer one is broken between its words."""
NEAR = 6
"""From a point to its name, in points; a name that is further away has a line to it."""


@dataclass(frozen=True)
class Label:
    """A name at a place. Args: x, y: in the axes' data. text: as it is shown. colour: of the word."""

    x: float
    y: float
    text: str
    colour: str


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places at least `gap` apart, in the same order, moved as little as possible (least squares).

    With z_k = y_k - k gap of the places in order, it is the isotonic regression of z: neighbours that would cross are
    pooled at their mean. What is then outside `low`..`high` is moved in, as far as there is room.

    Example:
        >>> spread([0.0, 0.0, 1.0], 0.2, -1.0, 2.0)
        [-0.1, 0.1, 1.0]
    """
    order = sorted(range(len(places)), key=lambda k: places[k])
    pools: list[list[float]] = []  # mean and count
    for rank, k in enumerate(order):
        pools.append([places[k] - rank * gap, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            mean, count = pools.pop()
            pools[-1] = [(pools[-1][0] * pools[-1][1] + mean * count) / (pools[-1][1] + count), pools[-1][1] + count]
    at = [mean for mean, count in pools for _ in range(int(count))]
    top = high - (len(at) - 1) * gap
    at = [max(min(z, top), min(low, top)) + rank * gap for rank, z in enumerate(at)]
    result = [0.0] * len(places)
    for rank, k in enumerate(order):
        result[k] = at[rank]
    return result


def label_ends(axes: Axes, labels: Sequence[Label], theme: Theme) -> None:
    """Writes names to the right of the axes, each at the height where its line ends; limits must be set before."""
    if not labels:
        return
    figure = axes.figure
    height_px = axes.get_position().height * figure.bbox.height
    gap = GAP * SMALL_PT / 72 * figure.dpi / height_px
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = [float(min(max(to_axes.transform((label.x, label.y))[1], 0.0), 1.0)) for label in labels]
    words = [_broken(x.text) for x in labels]
    lines = [
        k for k, broken in enumerate(words) for _ in broken
    ]  # each has a place of its own, beside its name's others
    places = np.array(spread([ends[k] for k in lines], gap, 0.0, 1.0))
    for k, (label, y) in enumerate(zip(labels, ends, strict=True)):
        at = float(places[np.array(lines) == k].mean())
        axes.annotate(
            "\n".join(words[k]),
            xy=(1.0, y),
            xytext=(1.045, at),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=label.colour,
            fontsize=SMALL_PT,
            va="center",
            ha="left",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": theme.faint, "linewidth": 0.8, "shrinkA": 1, "shrinkB": 1},
        )


def _broken(text: str) -> list[str]:
    """Lines of a name, or of several that coincide."""
    shown = plain(text, 4 * LETTERS)
    return textwrap.wrap(shown, LETTERS, break_on_hyphens=False, break_long_words=len(shown) > 2 * LETTERS)


def label_points(axes: Axes, labels: Sequence[Label], theme: Theme) -> None:
    """Writes names beside points, each where it covers no point and no other name, as far as there is room."""
    figure = axes.figure
    figure.draw_without_rendering()  # type: ignore[union-attr]
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    points = axes.transData.transform([(label.x, label.y) for label in labels]) if labels else np.zeros((0, 2))
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in points]
    inside = axes.get_window_extent(renderer)
    leader = {"arrowstyle": "-", "color": theme.faint, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 3}
    for k, label in enumerate(labels):
        best = None
        for distance in (NEAR, 12, 20, 30, 42):
            for dx, dy in ((1, 0), (1, 1), (1, -1), (0, 1), (0, -1), (-1, 0), (-1, 1), (-1, -1)):
                text = axes.annotate(
                    plain(label.text),
                    (label.x, label.y),
                    xytext=(dx * distance, dy * distance),
                    textcoords="offset points",
                    color=label.colour,
                    fontsize=SMALL_PT,
                    ha={1: "left", 0: "center", -1: "right"}[dx],
                    va={1: "bottom", 0: "center", -1: "top"}[dy],
                    arrowprops=leader if distance > NEAR else None,
                )
                text.update_positions(renderer)
                box = Text.get_window_extent(text, renderer)  # of the word without its line
                outside = not (inside.x0 <= box.x0 and inside.y0 <= box.y0 and box.y1 <= inside.y1)
                cost = sum(box.overlaps(other) for i, other in enumerate(taken) if i != k) + 2 * outside
                if best is None or cost < best[0]:
                    if best is not None:
                        best[1].remove()
                    best = (cost, text, box)
                else:
                    text.remove()
                if cost == 0:
                    break
            if best is not None and best[0] == 0:
                break
        assert best is not None
        taken.append(best[2])
