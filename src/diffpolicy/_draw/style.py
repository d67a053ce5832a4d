"""A colour, a marker and a line for each name, so that a policy looks alike in every picture; loads no matplotlib.

The colours are those of Okabe and Ito (2008), which the colour-blind tell apart, without its yellow, which is too faint
for lines on white; on dark ground they are lighter. What is trained has solid or dashed lines, rules have broken ones,
and no two names that a picture may hold share all three.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

SOLID, DASHED, DOTTED, DASHDOT = "solid", "dashed", "dotted", "dashdot"
LIGHT: Mapping[str, str] = {
    "black": "#000000",
    "orange": "#c98a00",
    "sky": "#3ea4e0",
    "green": "#009e73",
    "blue": "#0072b2",
    "vermilion": "#d55e00",
    "purple": "#c2639b",
    "grey": "#767676",
}
"""Orange, sky blue and purple are a little darker than the originals, so that thin lines stand out on white."""
DARK: Mapping[str, str] = {
    "black": "#f0f0f0",
    "orange": "#f2b233",
    "sky": "#8fd3ff",
    "green": "#2cc79c",
    "blue": "#4a9ee8",
    "vermilion": "#ff8340",
    "purple": "#e697c4",
    "grey": "#a2a2a2",
}
LIGHT_WORDS: Mapping[str, str] = {
    "black": "#000000",
    "orange": "#9b6a00",
    "sky": "#2e7ba8",
    "green": "#008561",
    "blue": "#0072b2",
    "vermilion": "#c05500",
    "purple": "#ad588a",
    "grey": "#757575",
}
"""The same hues as words on white, darker: letters need a contrast of 4.5 where lines need less (WCAG 2.1, 1.4.3).

On dark ground the colours of lines have it already.
"""


@dataclass(frozen=True)
class Style:
    """How a name is drawn. Args: colour: a name of `LIGHT` and `DARK`. marker, line: matplotlib's."""

    colour: str
    marker: str
    line: str

    def drawn(self, colours: Mapping[str, str]) -> dict[str, Any]:
        """As arguments of matplotlib. Args: colours: `LIGHT` or `DARK`."""
        return {"color": colours[self.colour], "marker": self.marker, "linestyle": self.line}


METHODS: Mapping[str, Style] = {
    "lad-ts": Style("blue", "o", SOLID),
    "lad-ts-released": Style("sky", "s", SOLID),
    "d2sac-ts": Style("green", "^", SOLID),
    "sac-ts": Style("orange", "D", SOLID),
    "dqn-ts": Style("grey", "v", SOLID),
    "lad-ts-plus": Style("purple", "P", SOLID),
    "plus-one-step": Style("sky", "X", DASHED),
    "plus-no-chain": Style("vermilion", "h", DASHED),
    "lad": Style("blue", "o", SOLID),
    "lad-plus": Style("purple", "P", SOLID),
    "d2sac": Style("green", "^", SOLID),
    "d2sac-plus": Style("green", "<", DASHED),
    "sac": Style("orange", "D", SOLID),
    "sac-plus": Style("orange", "d", DASHED),
    "dqn": Style("grey", "v", SOLID),
    "dqn-plus": Style("grey", ">", DASHED),
    "ppo": Style("sky", "p", SOLID),
    "diffusion-ppo": Style("vermilion", "p", SOLID),
    "pretrained:live": Style("vermilion", "*", SOLID),
    "pretrained:stale": Style("sky", "p", SOLID),
    "pretrained:private": Style("sky", "v", DASHED),
    "pretrained:live-gated": Style("vermilion", "P", SOLID),
    "pretrained:stale-gated": Style("sky", "P", SOLID),
    "pretrained:live-one-pass": Style("vermilion", "8", DASHED),
    "pretrained:stale-one-pass": Style("sky", "H", DASHED),
}
"""Of what was trained. A method and its counterpart for any problem look alike, since they are never compared."""
RULES: Mapping[str, Style] = {
    "opt-ts": Style("black", "s", DASHED),
    "price": Style("green", "D", DASHDOT),
    "capacity-proportional": Style("black", "x", DOTTED),
    "weighted-round-robin": Style("grey", "+", DASHDOT),
    "least-work-own": Style("blue", "v", DASHDOT),
    "power-of-two": Style("orange", "^", DASHDOT),
    "round-robin": Style("orange", "<", DOTTED),
    "slot-greedy": Style("purple", ">", DOTTED),
    "random": Style("grey", ".", DOTTED),
    "least-work": Style("blue", "p", DOTTED),
    "local": Style("black", "h", DASHDOT),
}
STYLES: Mapping[str, Style] = {**METHODS, **RULES}
OTHERS = tuple(
    Style(colour, marker, line)
    for line, colour, marker in product(
        (SOLID, DASHED), ("blue", "vermilion", "green", "purple", "orange", "sky"), ("o", "s", "^", "D", "v", "P", "X")
    )
)
"""What names have that nobody here knows."""


def style_of(name: str) -> Style:
    """How a name is drawn, in every picture and beside whatever others.

    Args:
        name: of a policy, method or rule; one that is not known here has one of `OTHERS`, by a hash of it.

    Example:
        >>> style_of("opt-ts").colour, style_of("mine") == style_of("mine")
        ('black', True)
    """
    known = STYLES.get(name)
    if known is not None:
        return known
    return OTHERS[int.from_bytes(hashlib.sha256(name.encode("utf-8", "replace")).digest()[:4], "big") % len(OTHERS)]
