"""Pictures of files: which a CSV holds is seen by its columns, and it is drawn from the file alone.

So what `compare` draws and what `diffpolicy plot` draws again later is the same picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from diffpolicy._draw.canvas import THEMES, Theme, save
from diffpolicy._draw.frame import Frame
from diffpolicy._read import show_path
from diffpolicy.errors import InputError
from diffpolicy.experiments.pictures.curves import learning_curves
from diffpolicy.experiments.pictures.episode import chain, steps
from diffpolicy.experiments.pictures.results import front, ranking, weights
from diffpolicy.experiments.pictures.shares import by_bin
from diffpolicy.experiments.pictures.sweeps import sweep

Draw = Callable[[Frame, Theme], Figure]
WRITTEN = ("png", "svg")
"""Formats in which commands draw unasked."""


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
    Kind("steps of an episode", lambda f: _has(f, "policy", "kind", "step"), {"": steps}),
    Kind("a chain", lambda f: _has(f, "policy", "chain_step", "choice", "probability"), {"": chain}),
    Kind("a sweep", lambda f: _has(f, "policy", "ratio") and bool(f.starting("mean_")), {"": sweep}),
)
"""In the order in which they are tried."""


def kind_of(frame: Frame, kinds: Sequence[Kind] = KINDS) -> Kind:
    """Which kind a file is of.

    Raises:
        InputError: none; the sentence names the file's columns.
    """
    for kind in kinds:
        if kind.fits(frame):
            return kind
    raise InputError(
        f"{frame.name} is none of what is drawn ({', '.join(kind.name for kind in kinds)}): "
        f"its columns are {show_path(', '.join(frame.header)[:300])}"
    )


def draw(
    path: str | Path,
    out: str | Path | None = None,
    formats: Sequence[str] = WRITTEN,
    *,
    dark: bool = False,
    kinds: Sequence[Kind] = KINDS,
) -> list[Path]:
    """Draws a CSV that a command wrote.

    Args:
        path: of the file. out: folder of the pictures; None: the file's. formats: of `png`, `svg` and `pdf`.
        dark: for dark pages; then `-dark` ends the pictures' names. kinds: that are known.

    Returns:
        The pictures that were written: FILE.png and FILE.svg, and for some kinds further ones.

    Raises:
        InputError: the file is of no known kind, or holds what is no number.

    Example:
        >>> draw("runs/compare/sweep.csv", formats=["png"])
        [PosixPath('runs/compare/sweep.png')]
    """
    path = Path(path)
    frame = Frame.read(path)
    kind, theme = kind_of(frame, kinds), THEMES[dark]
    written = []
    with theme.applied():
        for suffix, picture in kind.pictures.items():
            figure = picture(frame, theme)
            for form in formats:
                file = Path(out or path.parent) / f"{path.stem}{suffix}{'-dark' if dark else ''}.{form}"
                save(figure, file)
                written.append(file)
    return written
