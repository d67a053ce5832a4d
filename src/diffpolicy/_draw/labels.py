"""Names beside what they name: at the ends of lines and beside points, none over another."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase

from diffpolicy._draw.canvas import SMALL_PT, Theme, plain
from diffpolicy._types import Floats

GAP = 1.3
"""From one label's middle to the next one's, in heights of the letters."""
LETTERS = 26
"""Of a line of a name at the end of a line; a longer one is broken between its words."""
NEAR = 8
"""From a point to its name, in points; a name that is further away has a line to it."""
DISTANCES = (5, NEAR, 12, 18, 26, 36, 48)
DIRECTIONS = 16
STEPS = 12
TURNS = 3
"""How often each name beside a point may look for a better place than it has."""


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


def label_points(axes: Axes, labels: Sequence[Label], theme: Theme, lines: Sequence[Floats] = ()) -> None:
    """Writes names beside points, each where it covers nothing else, as far as there is room.

    Each name in turn takes the best of its places while the others stay, and again until all have had `TURNS` turns.

    Args:
        axes: their limits, lines and legend must be there before. labels: of the points; where a number is missing
            there is none. theme: light or dark. lines: `[N, 2]` each, in the axes' data: what no name should lie on.
    """
    labels = [label for label in labels if np.isfinite((label.x, label.y)).all()]
    figure = axes.figure
    figure.draw_without_rendering()  # type: ignore[union-attr]
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    px, legend = figure.dpi / 72, axes.get_legend()
    points = axes.transData.transform([(label.x, label.y) for label in labels]) if labels else np.zeros((0, 2))
    passed = [_along(axes.transData.transform(line)) for line in lines]
    marks = np.concatenate([points - 4, points + 4], axis=1)
    fixed = [] if legend is None else [legend.get_window_extent(renderer).extents]
    room = axes.get_window_extent(renderer).extents
    places = [_places(point, _size(axes, label, renderer), px) for point, label in zip(points, labels, strict=True)]
    taken: dict[int, tuple[Floats, Floats]] = {}  # the box of each name, and its leader
    for k in [*range(len(labels))] * TURNS:
        others = [each for i, each in taken.items() if i != k]
        names = np.array([*fixed, *(box for box, _ in others)]).reshape(-1, 4)
        boxes, leaders = places[k]
        covers = _overlap(boxes, np.concatenate([names, np.delete(marks, k, axis=0)])).sum(1)
        ways = np.array([way for _, way in others if len(way)]).reshape(-1, STEPS, 1, 2)
        crossed = sum((_inside(line, boxes).any(0) for line in passed), _inside(ways, boxes).any(1).sum(0))
        through = _inside(leaders[:, :, None], names).any(1).sum(1)
        beyond = (boxes[:, :2] < room[:2]).any(1) * 2 + (boxes[:, 3] > room[3]) * 2 + (boxes[:, 2] > room[2])
        far = np.repeat(DISTANCES, DIRECTIONS)
        best = int(np.argmin(4 * covers + 2 * crossed + 2 * through + 4 * beyond + far / 60))
        taken[k] = boxes[best], leaders[best] if far[best] > NEAR else leaders[best][:0]
    for k, label in enumerate(labels):
        box, leader = taken[k]
        at = (leader[-1] - box[:2]) / (box[2:] - box[:2]) if len(leader) else (0.0, 0.0)
        line = {"arrowstyle": "-", "color": theme.faint, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 3, "relpos": at}
        axes.annotate(
            plain(label.text),
            (label.x, label.y),
            xytext=(box[:2] - points[k]) / px,
            textcoords="offset points",
            color=label.colour,
            fontsize=SMALL_PT,
            ha="left",
            va="bottom",
            arrowprops=line if len(leader) else None,
        )


def _places(point: Floats, size: Floats, px: float) -> tuple[Floats, Floats]:
    """Boxes `[P, 4]` around a point, the nearest first, and the way to each, `[P, STEPS, 2]`, all in pixels.

    Args:
        point, size: `[2]`, pixels. px: pixels of a point of type.
    """
    angle = 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
    around = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    away = np.array(DISTANCES)[:, None, None] * px + size / 2
    low = (point + around * away - size / 2).reshape(-1, 2)
    return np.concatenate([low, low + size], axis=1), np.linspace(point, np.clip(point, low, low + size), STEPS, axis=1)


def _size(axes: Axes, label: Label, renderer: RendererBase) -> Floats:
    """Of a name as it is written, `[2]`, in pixels."""
    text = axes.text(0, 0, plain(label.text), fontsize=SMALL_PT)
    size = text.get_window_extent(renderer).size
    text.remove()
    return np.asarray(size)


def _along(line: Floats) -> Floats:
    """Places on a line, `[*, 2]`, at most three pixels from one to the next. Args: line: its corners, `[N, 2]`."""
    line = line[np.isfinite(line).all(axis=1)]
    steps = [max(2, int(np.hypot(*(b - a)) / 3)) for a, b in zip(line, line[1:], strict=False)]
    return np.concatenate([line, *(np.linspace(a, b, n) for a, b, n in zip(line, line[1:], steps, strict=False))])


def _inside(places: Floats, boxes: Floats) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Which places lie in which boxes, `[*, B]`. Args: places: `[*, 2]` or `[*, 1, 2]`. boxes: `[B, 4]`."""
    at = places if places.ndim > 2 else places[:, None]
    return np.asarray(((at >= boxes[:, :2] - 1) & (at <= boxes[:, 2:] + 1)).all(-1))


def _overlap(one: Floats, other: Floats) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Which boxes cover which others, `[A, B]`. Args: one: `[A, 4]`. other: `[B, 4]`."""
    return np.asarray(((one[:, None, :2] < other[:, 2:]) & (other[:, :2] < one[:, None, 2:])).all(-1))
