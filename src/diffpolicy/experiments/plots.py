"""Pictures of files: which a CSV holds is seen by its columns, and it is drawn from the file alone.

So what `compare` draws and what `diffpolicy plot` draws again later is the same picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module as import_ours
from pathlib import Path

from matplotlib.figure import Figure

from diffpolicy import _files
from diffpolicy._draw.canvas import FORMATS, THEMES, Theme, save
from diffpolicy._draw.frame import Frame
from diffpolicy._read import show_path
from diffpolicy.errors import InputError
from diffpolicy.experiments.pictures.curves import learning_curves
from diffpolicy.experiments.pictures.episode import chain, steps
from diffpolicy.experiments.pictures.results import front, ranking, weights
from diffpolicy.experiments.pictures.shares import by_bin
from diffpolicy.experiments.pictures.sweeps import sweep
from diffpolicy.experiments.pictures.timeline import timeline
from diffpolicy.experiments.pictures.training import training

Draw = Callable[[Frame, Theme], Figure]
WRITTEN = ("png", "svg")
"""Formats in which commands draw unasked."""
PASSES = ("episode", "round", "generation")
"""By what a training counts."""
OWN = ("diffpolicy.edge.plots",)
"""Modules of problems that have pictures of their own, in their `KINDS`."""


@dataclass(frozen=True)
class Kind:
    """What a CSV may hold, and its pictures.

    Args:
        name: in messages. fits: whether a file is of this kind, by its columns.
        pictures: by what is put behind the file's name; the first is ``, the file's own.
    """

    name: str
    fits: Callable[[Frame], bool]
    pictures: Mapping[str, Draw]


def _has(frame: Frame, *columns: str) -> bool:
    return all(column in frame for column in columns)


KINDS: Sequence[Kind] = (
    Kind(
        "learning curves",
        lambda f: "method" in f and ("episode" in f or _has(f, "kind", "first_episode", "last_episode")),
        {"": learning_curves},
    ),
    Kind("bins", lambda f: _has(f, "policy", "bin", "ratio") and bool(f.starting("mean_")), {"": by_bin}),
    Kind("a front", lambda f: _has(f, "policy", "weight") and bool(f.starting("p99")), {"": weights}),
    Kind(
        "a comparison or an evaluation",
        lambda f: f.header[0] in ("method", "policy") and bool(f.starting("mean_")) and bool(f.starting("p99")),
        {"": ranking, "_front": front},
    ),
    Kind("a timeline", lambda f: _has(f, "policy", "place", "arrives", "begins", "ends"), {"": timeline}),
    Kind("steps of an episode", lambda f: _has(f, "policy", "kind", "step"), {"": steps}),
    Kind("a chain", lambda f: _has(f, "policy", "chain_step", "choice", "probability"), {"": chain}),
    Kind("a training", lambda f: f.header[0] in PASSES and len(f.header) > 1 and "method" not in f, {"": training}),
    Kind("a sweep", lambda f: _has(f, "policy", "ratio") and bool(f.starting("mean_")), {"": sweep}),
)
"""In the order in which they are tried."""


def kind_of(frame: Frame) -> Kind:
    """Which kind a file is of: one of a problem's own, or one that any problem has.

    Raises:
        InputError: none; the sentence names the file's columns.
    """
    kinds: list[Kind] = [*(kind for module in OWN for kind in import_ours(module).KINDS), *KINDS]
    for kind in kinds:
        if kind.fits(frame):
            return kind
    raise InputError(
        f"{frame.name} is none of the tables that can be drawn ({', '.join(kind.name for kind in kinds)}): "
        f"its columns are {show_path(', '.join(frame.header)[:300])}"
    )


def draw(
    path: str | Path, out: str | Path | None = None, formats: Sequence[str] = WRITTEN, *, dark: bool = False
) -> list[Path]:
    """Draws a CSV that `compare`, `evaluate`, `train` or a benchmark wrote; its columns say which it is.

    `diffpolicy plot` is this.

    Args:
        path: of the file.
        out: folder of the pictures, which is made if it is not there; None: the file's.
        formats: of `png`, `svg` and `pdf`.
        dark: for dark pages; then `-dark` ends the pictures' names.

    Returns:
        The pictures that were written, FILE.png and FILE.svg, and for some kinds further ones.

    Raises:
        InputError: the file is of no known kind, or holds what is no number; or there is no such format.

    Example:
        >>> run = train(EnvProblem(Clinic, steps=5), "d2sac", episodes=4, out="runs/clinic")
        >>> [path.name for path in draw("runs/clinic/training.csv", formats=["svg"])]
        ['training.svg']
    """
    if unknown := [form for form in formats if form not in FORMATS]:
        raise InputError(f"formats must be of {', '.join(FORMATS)}, got {unknown[0]!r}")
    path = Path(path)
    if path.suffix == ".json":
        raise InputError(
            f"{show_path(path)} is JSON, and pictures are drawn of CSV files: of a training its training.csv, of a "
            "comparison its learning_curves.csv or comparison.csv"
        )
    frame = Frame.read(path)
    kind, theme = kind_of(frame), THEMES[dark]
    folder = path.parent if out is None else _files.writable_folder(out)
    written = []
    with theme.applied():
        for suffix, picture in kind.pictures.items():
            figure = picture(frame, theme)
            for form in formats:
                file = Path(folder) / f"{path.stem}{suffix}{'-dark' if dark else ''}.{form}"
                save(figure, file)
                written.append(file)
    return written
