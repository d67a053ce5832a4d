"""Draws the manual's diagrams, light and dark, as SVG; what has a length in them is computed.

python benchmarks/diagrams.py --folder docs/_static
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from diffpolicy._draw.canvas import SMALL_PT, THEMES, Theme, figure_of, save
from diffpolicy.edge import ServerSpeeds, SlotTasks, slot_delays_s

Point = tuple[float, float]
WIDTH = 5.8
"""Inches: narrower than the other pictures, so that words can be read on a phone."""


class Sheet:
    """Boxes, words and arrows on a sheet of `WIDTH` by `height` inches; places are in inches from the lower left."""

    def __init__(self, height: float, theme: Theme) -> None:
        self.theme = theme
        self.figure = figure_of(height, WIDTH)
        self.figure.set_layout_engine("none")
        self.axes: Axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, WIDTH), ylim=(0, height))
        self.axes.axis("off")

    def box(self, x: float, y: float, width: float, height: float, text: str, colour: str | None = None) -> None:
        """A part. Args: x, y: its middle. colour: of its edge, by name; None: ink."""
        edge = self.theme.ink if colour is None else self.theme.colours[colour]
        corner = (x - width / 2, y - height / 2)
        style = "round,pad=0,rounding_size=0.07"
        self.axes.add_patch(
            FancyBboxPatch(corner, width, height, boxstyle=style, fc=self.theme.ground, ec=edge, lw=1.4, zorder=2)
        )
        self.axes.text(x, y, text, ha="center", va="center", color=edge, zorder=3, linespacing=1.25)

    def words(self, x: float, y: float, text: str, colour: str | None = None, **how: str) -> None:
        """A note beside the parts."""
        ink = self.theme.ink if colour is None else self.theme.colours[colour]
        self.axes.text(x, y, text, color=ink, fontsize=SMALL_PT, linespacing=1.25, **{"va": "center", **how})

    def arrow(self, *path: Point, colour: str | None = None, dashed: bool = False) -> None:
        """A line along the points, with a head at the last."""
        ink = self.theme.ink if colour is None else self.theme.colours[colour]
        style = {"color": ink, "lw": 1.2, "ls": (0, (4, 2)) if dashed else "solid"}
        self.axes.plot(*zip(*path, strict=True), **style, marker="", solid_capstyle="butt", zorder=1)
        self.axes.annotate(
            "", path[-1], path[-2], arrowprops={"arrowstyle": "-|>", "color": ink, "lw": 0, "shrinkA": 0, "shrinkB": 0}
        )


def chain(theme: Theme) -> Figure:
    """From where a chain starts to an action: prior, denoiser and sampler, head."""
    sheet = Sheet(2.75, theme)
    states, y = {"$x_I$": 1.5, "$x_{I-1}$": 2.25, "$x_1$": 3.35, "$x_0$": 4.1}, 1.6
    sheet.box(0.6, y, 0.9, 0.5, "prior", "green")
    for text, x in states.items():
        sheet.box(x, y, 0.46, 0.42, text)
    sheet.box(5.15, y, 0.9, 0.5, "head", "vermilion")
    sheet.arrow((1.05, y), (1.27, y), colour="green")
    for left, right in ((1.73, 2.02), (2.48, 2.68), (2.92, 3.12), (3.58, 3.87)):
        sheet.arrow((left, y), (right, y), colour="blue")
    sheet.words(2.8, y, "...", ha="center")
    sheet.arrow((4.33, y), (4.7, y), colour="vermilion")
    sheet.arrow((5.15, y + 0.25), (5.15, 2.35), colour="vermilion")
    sheet.words(5.15, 2.5, "action", "vermilion", ha="center")
    sheet.box(2.8, 0.62, 3.06, 0.42, "denoiser: what in $x_i$ is noise?", "blue")
    for x in (1.87, 2.58, 3.72):
        sheet.arrow((x, 0.83), (x, y - 0.04), colour="blue")
    sheet.words(3.15, 1.13, "sampler:\none step back", "blue", ha="center")
    sheet.words(0.12, 0.62, "observation", ha="left")
    sheet.arrow((0.95, 0.62), (1.27, 0.62))
    sheet.words(5.15, 0.62, "mask", ha="center")
    sheet.arrow((5.15, 0.75), (5.15, y - 0.25))
    sheet.arrow((4.1, y + 0.21), (4.1, 2.3), (0.6, 2.3), (0.6, y + 0.25), colour="green", dashed=True)
    sheet.words(2.35, 2.44, "action memory: the next chain starts from here", "green", ha="center")
    return sheet.figure


def memory(theme: Theme) -> Figure:
    """Three items and what is remembered of each, over three steps; the second item misses one."""
    sheet = Sheet(2.9, theme)
    columns, rows = (1.35, 3.0, 4.65), (2.15, 1.4, 0.65)
    for k, x in enumerate(columns):
        sheet.words(x + 0.12, 2.7, f"step {k + 1}", ha="center")
    for n, y in enumerate(rows):
        sheet.words(0.1, y, f"item {n + 1}", ha="left")
        for k, x in enumerate(columns):
            if (n, k) == (1, 1):
                sheet.words(x + 0.12, y - 0.2, "not there", ha="center")
                continue
            sheet.box(x - 0.22, y, 0.42, 0.4, "$x_I$", "green")
            sheet.box(x + 0.48, y, 0.42, 0.4, "$x_0$", "blue")
            sheet.arrow((x - 0.01, y), (x + 0.27, y), colour="blue")
        for k in range(2):
            if n != 1:
                sheet.arrow((columns[k] + 0.69, y), (columns[k + 1] - 0.43, y), colour="green", dashed=True)
    sheet.arrow((columns[0] + 0.69, rows[1]), (columns[2] - 0.43, rows[1]), colour="green", dashed=True)
    sheet.words(0.1, 0.2, "Dashed: remembered. A chain begins where the item's last one ended.", "green", ha="left")
    return sheet.figure


def parts(theme: Theme) -> Figure:
    """How problem, policy, stream, replay and objective join, and where a policy is judged."""
    sheet = Sheet(3.3, theme)
    sheet.box(0.85, 2.75, 1.3, 0.5, "problem", "orange")
    sheet.box(0.85, 1.65, 1.3, 0.5, "environment", "orange")
    sheet.box(4.85, 1.65, 1.4, 0.5, "policy", "blue")
    sheet.arrow((0.85, 2.5), (0.85, 1.9), colour="orange")
    sheet.words(0.93, 2.2, "make_env", "orange", ha="left")
    sheet.arrow((1.5, 1.75), (4.15, 1.75))
    sheet.words(2.8, 1.88, "observation, mask", ha="center")
    sheet.arrow((4.15, 1.55), (1.5, 1.55))
    sheet.words(2.8, 1.42, "action", ha="center")
    sheet.box(4.85, 2.75, 1.4, 0.5, "evaluation", "purple")
    sheet.arrow((1.5, 2.75), (4.15, 2.75), colour="purple")
    sheet.words(2.8, 2.9, "its rules, on the same episodes", "purple", ha="center")
    sheet.arrow((4.85, 1.9), (4.85, 2.5), colour="purple")
    sheet.box(0.85, 0.45, 1.3, 0.5, "stream of\nrollouts")
    sheet.box(2.8, 0.45, 1.2, 0.5, "replay")
    sheet.box(4.85, 0.45, 1.4, 0.5, "objective", "vermilion")
    sheet.arrow((0.85, 1.4), (0.85, 0.7))
    sheet.arrow((1.5, 0.45), (2.2, 0.45))
    sheet.words(1.85, 0.86, "transitions", ha="center")
    sheet.arrow((3.4, 0.45), (4.15, 0.45))
    sheet.words(3.78, 0.6, "batches", ha="center")
    sheet.arrow((4.85, 0.7), (4.85, 1.4), colour="vermilion")
    sheet.words(4.77, 1.05, "gradients", "vermilion", ha="right")
    return sheet.figure


def _bars(axes: Axes, y: float, spans: Sequence[tuple[float, str, str]], theme: Theme, start: float = 0.0) -> float:
    """Lengths one after the other, each with its name in it. Returns: where the last one ends."""
    for length, colour, text in spans:
        face = theme.faint if colour == "faint" else (theme.colours[colour], 0.5)
        axes.add_patch(Rectangle((start, y - 0.33), length, 0.66, fc=face, ec=theme.ground, lw=1, zorder=2))
        axes.text(start + length / 2, y, text, ha="center", va="center", color=theme.ink, fontsize=SMALL_PT, zorder=3)
        start += length
    return start


def _times(axes: Axes, names: Sequence[str], last: float, label: str) -> None:
    axes.set(xlim=(0, last), ylim=(-0.6, len(names) - 0.4), xlabel=label)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def slot(theme: Theme) -> Figure:
    """A slot of two servers, and what the delay of each of its three tasks is made of; by the simulator's equation."""
    fleet = ServerSpeeds(capacity_gcycles_per_s=torch.tensor([10.0, 20.0]), rate_mbit_per_s=torch.tensor([20.0, 20.0]))
    tasks = SlotTasks(
        origin=torch.tensor([0, 0, 1]),
        input_mbit=torch.tensor([3.0, 3.0, 3.0]),
        result_mbit=torch.tensor([2.0, 2.0, 2.0]),
        work_gcycles=torch.tensor([4.0, 6.0, 8.0]),
        valid=torch.tensor([True, True, True]),
    )
    servers, queue = torch.tensor([0, 1, 1]), torch.tensor([4.0, 8.0])
    delays = slot_delays_s(servers, tasks, queue, fleet)
    figure = figure_of(3.9, WIDTH)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    backlog = queue / fleet.capacity_gcycles_per_s
    hues, ends = ("green", "blue", "purple"), backlog.tolist()
    for a in (0, 1):
        _bars(above, 1 - a, [(float(backlog[a]), "faint", "backlog")], theme)
    for n, a in enumerate(servers.tolist()):
        takes = float(tasks.work_gcycles[n] / fleet.capacity_gcycles_per_s[a])
        ends[a] = _bars(above, 1 - a, [(takes, hues[n], f"task {n + 1}")], theme, ends[a])
    sent = backlog.tolist()
    for n, a in enumerate(servers.tolist()):
        input_s = float(tasks.input_mbit[n] / fleet.rate_mbit_per_s[a]) if int(tasks.origin[n]) != a else 0.0
        takes = float(tasks.work_gcycles[n] / fleet.capacity_gcycles_per_s[a])
        result_s = float(tasks.result_mbit[n] / fleet.rate_mbit_per_s[a])
        moved = [(input_s, "orange", "in")] if input_s else []
        spans = [*moved, (sent[a], "faint", "waits"), (takes, hues[n], "computes"), (result_s, "orange", "out")]
        end = _bars(below, 2 - n, spans, theme)
        assert abs(end - float(delays[n])) < 1e-6
        ground = {"facecolor": theme.ground, "edgecolor": "none", "pad": 1}
        below.text(end + 0.02, 2 - n, f"{end:.2f} s", va="center", fontsize=SMALL_PT, bbox=ground, zorder=5)
        sent[a] += takes
    for axes in (above, below):
        axes.axvline(1, color=theme.ink, lw=1, ls=(0, (4, 2)), zorder=4)
    _times(above, ["server 2", "server 1"], 1.45, "")
    _times(below, ["task 3", "task 2", "task 1"], 1.45, "seconds since the slot began; dashed: its end")
    above.set_title("what the servers work on")
    below.set_title("the delay of each task")
    return figure


def price(theme: Theme) -> Figure:
    """One server's queue without and with a task: by how much each later one waits longer."""
    takes, later, own = (0.5, 0.3, 0.4, 0.3), 3, 0.6
    figure = figure_of(2.2, WIDTH)
    axes = figure.subplots()
    rest = [(length, "sky", f"later {k + 1}") for k, length in enumerate(takes[1:])]
    _bars(axes, 1, [(takes[0], "faint", "before"), *rest], theme)
    _bars(axes, 0, [(takes[0], "faint", "before"), (own, "vermilion", "the task"), *rest], theme)
    _times(axes, ["with it", "without"], 2.3, "seconds until a task is done")
    axes.set_title(f"{later} tasks wait {own:.1f} s longer each: {later * own:.1f} s")
    return figure


DIAGRAMS: dict[str, Callable[[Theme], Figure]] = {
    "concept_chain": chain,
    "concept_memory": memory,
    "concept_parts": parts,
    "concept_slot": slot,
    "concept_price": price,
}
"""By the name of the file."""


def main() -> None:
    """Draws all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("docs/_static"))
    folder = parser.parse_args().folder
    for name, diagram in DIAGRAMS.items():
        for dark, theme in THEMES.items():
            with theme.applied():
                save(diagram(theme), folder / f"{name}{'-dark' if dark else ''}.svg")


if __name__ == "__main__":
    main()
