"""Lines of a picture: who is drawn, in which order, and which are so alike that one line stands for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from diffpolicy._draw.frame import RULE, Frame, kind_of
from diffpolicy._draw.ticks import padded
from diffpolicy._types import Floats

ALIKE = 0.01
"""Rules whose values differ by less than this share, everywhere, are one line."""
BEST_RULES = 3
"""How many rules are drawn beside the baseline, where there are more."""

ROOM = 2.0
"""How many times beyond the values a logarithmic axis goes for intervals, however wide a bad seed makes them."""


@dataclass(frozen=True)
class Line:
    """What is drawn of one name, or of several that coincide.

    Args:
        name: the first of them, whose style the line has. kind: `method`, `pretrained` or `heuristic`.
        values: `[N]`, nan where there is none. low, high: ends of its intervals, `[N]`.
        others: names that coincide with it.
    """

    name: str
    kind: str
    values: Floats
    low: Floats
    high: Floats
    others: tuple[str, ...] = ()

    @property
    def end(self) -> float:
        """Its last value; infinite where it has none."""
        there = self.values[np.isfinite(self.values)]
        return float(there[-1]) if len(there) else np.inf

    @property
    def label(self) -> str:
        """Its names, at most three of them."""
        names = (self.name, *self.others)
        return " = ".join(names) if len(names) <= 3 else f"{' = '.join(names[:2])} and {len(names) - 2} more"


def ordered(lines: Sequence[Line]) -> list[Line]:
    """What was trained before rules, each by its end values, the least first: the order of a legend."""
    return sorted(lines, key=lambda line: (line.kind == RULE, line.end, line.name))


def chosen(lines: Sequence[Line], baseline: str) -> tuple[list[Line], str]:
    """All that was trained, the baseline, and the best other rules by their geometric mean.

    Returns:
        The lines, and what a caption says of rules that were left out.
    """
    rules = [line for line in lines if line.kind == RULE and line.name != baseline]
    best = sorted(rules, key=_level)[:BEST_RULES]
    kept = [line for line in lines if line.kind != RULE or line.name == baseline or line in best]
    left = len(rules) - len(best)
    return kept, f"of {len(rules)} other rules the best {len(best)}" if left else ""


def _level(line: Line) -> tuple[float, str]:
    there = line.values[np.isfinite(line.values)]
    level = np.log(there).mean() if len(there) and (there > 0).all() else there.mean() if len(there) else np.inf
    return float(level), line.name


def merged(lines: Sequence[Line], first: str = "") -> list[Line]:
    """The same with one line for rules that coincide. Args: first: the name that such a line has before others."""
    result: list[Line] = []
    for line in sorted(lines, key=lambda line: line.name != first):
        at = next((i for i, other in enumerate(result) if _coincide(line, other)), None)
        if at is None:
            result.append(line)
        else:
            result[at] = replace(result[at], others=(*result[at].others, line.name))
    return result


def _coincide(line: Line, other: Line) -> bool:
    if line.kind != RULE or other.kind != RULE:
        return False
    return bool(np.allclose(line.values, other.values, rtol=ALIKE, atol=0, equal_nan=True))


def names_of(frame: Frame, column: str) -> list[tuple[str, str]]:
    """Who stands in a column, once each, and of what kind. Args: column: `method` or `policy`."""
    kinds = frame.texts("kind") if "kind" in frame else [""] * len(frame.rows)
    pairs = dict.fromkeys(zip(frame.texts(column), kinds, strict=True))
    return [(name, kind_of(name, kind)) for name, kind in pairs]


def positive(*values: Floats) -> bool:
    """Whether all that is there is above zero, so that a logarithmic axis can show it."""
    return all((part[np.isfinite(part)] > 0).all() for part in values)


def span(lines: Sequence[Line]) -> tuple[float, float]:
    """The ends of a logarithmic axis for values above 0 and for their intervals, to `ROOM` times beyond the values."""
    values = np.concatenate([line.values for line in lines])
    values = values[np.isfinite(values)]
    low, high = float(values.min()), float(values.max())
    ends = np.concatenate([part for line in lines for part in (line.low, line.high)])
    ends = np.clip(ends[np.isfinite(ends)], low / ROOM, high * ROOM)
    return padded(float(min([low, *ends])), float(max([high, *ends])))


def baseline_of(frame: Frame, column: str) -> str:
    """The rule to which ratios are; where the file does not say, the first whose ratios are 1.

    Args:
        frame: of the file. column: of the names.
    """
    named = frame.constant("baseline")
    if named or "ratio" not in frame:
        return named
    ratio, who = frame.numbers("ratio"), np.array(frame.texts(column))
    of_one = [name for name, kind in names_of(frame, column) if kind == RULE and (ratio[who == name] == 1).all()]
    return of_one[0] if of_one else "the baseline"
