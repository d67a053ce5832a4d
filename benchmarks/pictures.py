"""Draws the documentation's pictures again, light and dark, from the CSVs beside them.

python benchmarks/pictures.py --folder docs/_static
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from diffpolicy._draw.canvas import SMALL_PT, THEMES, Theme, caption, figure_of, save
from diffpolicy._draw.frame import Frame
from diffpolicy._draw.labels import Label, label_ends
from diffpolicy._draw.ticks import padded, scale_linear, scale_log
from diffpolicy.experiments.plots import kind_of

RELEASED = {
    "lad-ts-released": [12.8, 10.0, 9.4, 8.8, 8.6, 8.7],
    "sac-ts": [21.4, 15.8, 14.7, 15.1, 12.4, 11.1],
}
"""Ten-episode means of the released scripts, run once; seconds."""


def fleet_size(frame: Frame, theme: Theme) -> Figure:
    """Microseconds of a decision against servers, with the line of proportional growth."""
    figure = figure_of(4.0)
    axes = figure.subplots()
    us = frame.numbers("us_per_decision")
    colours, labels = {"onnx": "blue", "aoti": "vermilion"}, []
    for name in ("onnx", "aoti"):
        for kind, line, marker in (("all", "solid", "o"), ("32", "dashed", "s")):
            rows = frame.where("format", name).where("candidates", kind)
            x, y = rows.numbers("servers"), rows.numbers("us_per_decision")
            axes.plot(x, y, color=theme.colours[colours[name]], linestyle=line, marker=marker)
            what = "all prices" if kind == "all" else f"{kind} candidates"
            labels.append(Label(float(x[-1]), float(y[-1]), f"{name}, {what}", theme.words[colours[name]]))
    top = frame.where("format", "aoti").where("candidates", "all").numbers("us_per_decision")[-1]
    x = np.array([200.0, 1000.0])
    axes.plot(x, top * x / 1000, color=theme.ink, linestyle="dotted", linewidth=1)
    axes.annotate("proportional", (330, top * 0.3), fontsize=SMALL_PT, rotation=0, ha="left", va="top")
    scale_log(axes, "x", *padded(20, 1000, 0.02))
    scale_log(axes, "y", *padded(float(us.min()), float(us.max())))
    axes.set(xlabel="servers", ylabel="time of a decision, µs")
    figure.draw_without_rendering()
    label_ends(axes, labels, theme)
    return figure


def growth(frame: Frame, theme: Theme) -> Figure:
    """Milliseconds of a slot's decisions and of an update, against servers and against tasks."""
    figure = figure_of(6.4)
    panels = figure.subplots(2, 1, sharey=True)
    stations, shown, labels = 20, [], []
    for axes, column, other, fixed in zip(
        panels, ("servers", "tasks"), ("tasks", "servers"), ("50", "20"), strict=True
    ):
        rows = frame.where(other, fixed)
        order = np.argsort(rows.numbers(column))
        x, tasks = rows.numbers(column)[order], rows.numbers("tasks")[order]
        slot = rows.numbers("us_per_decision")[order] * tasks * stations / 1e3
        update = rows.numbers("ms_per_update")[order]
        labels = []
        for values, colour, marker, name in (
            (slot, "blue", "o", "decisions of a slot"),
            (update, "vermilion", "s", "update of 20 agents"),
        ):
            axes.plot(x, values, color=theme.colours[colour], marker=marker)
            labels.append(Label(float(x[-1]), float(values[-1]), name, theme.words[colour]))
        axes.plot(x, slot[0] * x / x[0], color=theme.ink, linestyle="dotted", linewidth=1)
        labels.append(Label(float(x[-1]), float(slot[0] * x[-1] / x[0]), "proportional", theme.ink))
        shown += [slot, update, slot[0] * x / x[0]]
        scale_log(axes, "x", *padded(float(x[0]), float(x[-1]), 0.02))
        axes.set_xlabel({"servers": "servers (50 tasks)", "tasks": "tasks a station and slot (20 servers)"}[column])
    everything = np.concatenate(shown)
    for axes in panels:
        scale_log(axes, "y", *padded(float(everything.min()), float(everything.max())))
    panels[0].set_ylabel("time, ms")
    figure.draw_without_rendering()
    label_ends(panels[1], labels, theme)
    return figure


def sizes(frame: Frame, theme: Theme) -> Figure:
    """What tasks of each fifth wait, and how many of them go to the five longest backlogs."""
    figure = figure_of(6.4)
    panels = figure.subplots(2, 1)
    classes = list(dict.fromkeys(frame.texts("work_gcycles")))
    names = list(dict.fromkeys(frame.texts("policy")))
    at = np.arange(float(len(classes)))
    for axes, column, what in zip(
        panels,
        ("mean_delay_s", "share_to_5_longest"),
        ("mean delay, s", "share sent to 5 longest queues"),
        strict=True,
    ):
        for name in names:
            axes.plot(at, frame.where("policy", name).numbers(column), **theme.of(name))
        axes.set_xticks(at, classes)
        axes.set(xlabel="work of the task, Gcycles (fifths)", ylabel=what, ylim=(0, None))
        scale_linear(axes.yaxis)
    figure.draw_without_rendering()
    ends = [(name, float(frame.where("policy", name).numbers("share_to_5_longest")[-1])) for name in names]
    label_ends(panels[1], [Label(at[-1], y, name, theme.word(name)) for name, y in ends], theme)
    return figure


def reality(frame: Frame, theme: Theme) -> Figure:
    """Simulated against measured delays of each run: the mean and the 95th percentile."""
    figure = figure_of(4.0)
    axes = figure.subplots()
    labels = []
    load = frame.numbers("load")
    for what, real, simulated, colour in (
        ("mean", "real mean s", "simulated", "blue"),
        ("p95", "real p95 s", "simulated p95", "vermilion"),
    ):
        worker, model, drawn = frame.numbers(real), frame.numbers(simulated), theme.colours[colour]
        axes.plot(load, worker, color=drawn, marker="o")
        axes.plot(load, model, color=drawn, marker="s", linestyle="dashed", markerfacecolor="none")
        labels += [Label(load[-1], worker[-1], f"{what}, workers", theme.words[colour])]
        labels += [Label(load[-1], model[-1], f"{what}, simulated", theme.words[colour])]
    axes.set(xlabel="load (one run of 80 requests each)", ylabel="delay, s", ylim=(0, None))
    axes.set_xticks(load)
    scale_linear(axes.yaxis)
    figure.draw_without_rendering()
    label_ends(axes, labels, theme)
    return figure


def released(frame: Frame, theme: Theme, method: str = "lad-ts-released") -> Figure:
    """Ten-episode means of every seed and their mean, beside the released code's one run."""
    rows = frame.where("method", method)
    seeds = list(dict.fromkeys(rows.texts("seed")))
    curves = [rows.where("seed", seed).numbers("delay_s") for seed in seeds]
    means = np.array([np.reshape(c[: len(c) // 10 * 10], (-1, 10)).mean(1) for c in curves])
    x = 10 * np.arange(means.shape[1]) + 5.5
    figure = figure_of(4.0)
    axes = figure.subplots()
    style = theme.of(method)
    for row in means:
        axes.plot(x, row, color=style["color"], alpha=0.4, linewidth=0.9)
    axes.plot(x, means.mean(0), **style)
    axes.plot(x[:6], RELEASED[method], color=theme.ink, marker="s", linestyle="dashed")
    axes.set(xlabel="training episode", ylabel="mean delay of ten episodes, s", ylim=(0, None), xlim=(0, x[-1] + 1))
    scale_linear(axes.xaxis, whole=True)
    scale_linear(axes.yaxis)
    caption(figure, f"Faint: each of the {len(seeds)} seeds.")
    figure.draw_without_rendering()
    ends = [Label(x[-1], means.mean(0)[-1], f"{method} {means.mean(0)[-1]:.2f}", theme.word(method))]
    ends.append(Label(x[5], RELEASED[method][-1], f"released code {RELEASED[method][-1]:.2f}", theme.ink))
    label_ends(axes, ends, theme)
    return figure


def joint(frame: Frame, theme: Theme) -> Figure:
    """Distance of each chain from its law against seconds of training, and the best that a factorised policy can."""
    figure = figure_of(4.0)
    axes = figure.subplots()
    colours, labels, shown = ("blue", "vermilion", "green"), [], []
    problems = dict.fromkeys(zip(frame.texts("choices"), frame.texts("items"), strict=True))
    for (choices, items), colour in zip(problems, colours, strict=False):
        rows = frame.where("choices", choices).where("items", items)
        x, y = rows.numbers("seconds"), rows.numbers("chain")
        best = float(rows.numbers("best factorised")[0])
        axes.plot(x, y, color=theme.colours[colour])
        axes.plot(x, np.full_like(x, best), color=theme.colours[colour], linestyle="dashed", linewidth=1)
        labels.append(
            Label(float(x[-1]), float(y[-1]), f"{items} items of {choices}: {y[-1]:.3f}", theme.words[colour])
        )
        shown += [y, np.array([best])]
    everything = np.concatenate(shown)
    scale_log(axes, "y", *padded(float(everything.min()), float(everything.max())))
    axes.set(xlabel="training, seconds of one thread", ylabel="total variation from the law", xlim=(0, None))
    scale_linear(axes.xaxis, whole=True)
    caption(figure, "Dashed: the best factorised policy of each problem.")
    figure.draw_without_rendering()
    label_ends(axes, labels, theme)
    return figure


OWN: dict[str, Callable[[Frame, Theme], Figure]] = {
    "joint": joint,
    "fleet_size": fleet_size,
    "growth": growth,
    "deciding_sizes": sizes,
    "simulator_vs_reality": reality,
    "released_curve": released,
}
"""Of benchmarks; all others are those of `diffpolicy plot`."""
DRAWN = (
    *("load", "bounds", "deciding_front", "full_curves", "full_comparison"),
    *(f"sweep_{key}" for key in ("tasks", "stations", "capacity", "steps", "denoising_steps", "temperature")),
    *("delay_by_size", "plus_curves", "chain", "steps", "timeline", "held_equal", "held_unlike"),
)


def write(path: Path, picture: Callable[[Frame, Theme], Figure] | None = None) -> list[Path]:
    """Draws a CSV beside it, light and dark, as SVG. Args: path: of it. picture: None: what its columns say."""
    frame, written = Frame.read(path), []
    draws = {"": picture} if picture is not None else dict(list(kind_of(frame).pictures.items())[:1])
    for dark, theme in THEMES.items():
        with theme.applied():
            for suffix, draw in draws.items():
                file = path.with_name(f"{path.stem}{suffix}{'-dark' if dark else ''}.svg")
                save(draw(frame, theme), file)
                written.append(file)
    return written


def main() -> None:
    """Draws all that are there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("docs/_static"))
    parser.add_argument("names", nargs="*", help="without .csv; default: all")
    options = parser.parse_args()
    for name in options.names or (*OWN, *DRAWN):
        path = options.folder / f"{name}.csv"
        if path.is_file():
            print(", ".join(f"{p.name} ({p.stat().st_size // 1024} kB)" for p in write(path, OWN.get(name))))


if __name__ == "__main__":
    main()
