"""Themes, empty figures, and files: the same picture gives the same bytes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from diffpolicy import _files
from diffpolicy._draw.style import DARK, LIGHT, LIGHT_WORDS, style_of
from diffpolicy._read import printable

FORMATS = ("png", "svg", "pdf")
WIDTH = 5.4
"""Inches. A phone shows a picture 350 pixels wide, so that letters of 9 points have 8 pixels there: panels stand below
each other, and no picture is wider than this."""
TEXT_PT = 10.0
SMALL_PT = 9.0
"""Of captions and numbers on axes; nothing is smaller."""
DPI = 110
LONG = 36
"""Letters of a name that are shown; of a folder's path its end says which it is."""


@dataclass(frozen=True)
class Theme:
    """Light or dark. Args: colours: of lines, by name. words: of labels in the same colours, by name.

    ground, ink, faint: of the paper, of other words, of grids and leaders.
    """

    colours: Mapping[str, str]
    words: Mapping[str, str]
    ground: str
    ink: str
    faint: str

    def of(self, name: str) -> dict[str, Any]:
        """How a name is drawn, as arguments of matplotlib."""
        return style_of(name).drawn(self.colours)

    def colour(self, name: str) -> str:
        """Of a policy, method or rule."""
        return self.colours[style_of(name).colour]

    def word(self, name: str) -> str:
        """Of the label of a policy, method or rule."""
        return self.words[style_of(name).colour]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """While it lasts, what is made of matplotlib is of this theme."""
        with mpl.rc_context(
            {
                "font.size": TEXT_PT,
                "font.family": "DejaVu Sans",
                "axes.titlesize": TEXT_PT,
                "axes.labelsize": TEXT_PT,
                "xtick.labelsize": SMALL_PT,
                "ytick.labelsize": SMALL_PT,
                "legend.fontsize": SMALL_PT,
                "legend.frameon": False,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.facecolor": self.ground,
                "figure.facecolor": self.ground,
                "savefig.facecolor": self.ground,
                **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color"), self.ink),
                "ytick.color": self.ink,
                "axes.titlelocation": "left",
                "axes.grid": True,
                "axes.axisbelow": True,
                "grid.color": self.faint,
                "grid.linewidth": 0.6,
                "lines.linewidth": 1.6,
                "lines.markersize": 4.5,
                "svg.hashsalt": "diffpolicy",
                "svg.fonttype": "path",
            }
        ):
            yield


THEMES = {
    False: Theme(LIGHT, LIGHT_WORDS, "#ffffff", "#1a1a1a", "#d9d9d9"),
    True: Theme(DARK, DARK, "#131416", "#e6e6e6", "#3a3c40"),
}
"""By whether it is dark: the grounds are those of the documentation's pages."""


def figure_of(height: float, width: float = WIDTH) -> Figure:
    """An empty picture, in inches, drawn by Agg: not pyplot's, so that the backend that a user chose stays his."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def caption(figure: Figure, text: str) -> None:
    """Says below a picture what in it needs to be said, in lines as wide as the picture."""
    letters = int(figure.get_figwidth() * 72 / (0.57 * SMALL_PT))
    figure.supxlabel("\n".join(textwrap.wrap(text, letters)), fontsize=SMALL_PT, x=0.01, ha="left", linespacing=1.3)


def plain(name: str, letters: int = LONG) -> str:
    """A name as a label: the end of a long one; no dollar begins a formula, no underscore hides it from a legend."""
    shown = printable(name)
    plain = (shown if len(shown) <= letters else f"\u2026{shown[1 - letters :]}").replace("$", r"\$")
    return f"\u200b{plain}" if plain.startswith("_") else plain


def save(figure: Figure, path: str | Path) -> None:
    """Writes a picture in the format of its suffix, `png`, `svg` or `pdf`; the same figure gives the same bytes."""
    kind = Path(path).suffix.removeprefix(".")
    undated = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    _files.write(path, lambda aside: figure.savefig(aside, dpi=DPI, format=kind, metadata=undated))
