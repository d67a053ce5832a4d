"""Ticks that people read: steps of 1, 2 and 5, on logarithmic axes too, and whole numbers where things are counted."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

FEW = 4
"""A logarithmic axis with fewer ticks at 1, 2 and 5 has the ticks of a linear one."""


def log_ticks(low: float, high: float) -> list[float]:
    """Where a logarithmic axis from `low` to `high`, both above 0, has ticks: 1, 2, 5 times powers of ten.

    An axis of little span has evenly spaced ones, in steps of 1, 2 or 5, and one of many decades the powers alone.
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    parts = (1, 2, 5) if high / low < 2000 else (1,)
    ticks = [x for k in decades for m in parts if low <= (x := m * 10.0**k) <= high]
    if len(ticks) >= FEW:
        return ticks
    return [float(x) for x in MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= x <= high and x > 0]


def scale_log(axes: Axes, which: str, low: float, high: float) -> None:
    """Makes an axis logarithmic. Args: which: `x` or `y`. low, high: its ends, above 0."""
    axis: Axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
    axis.set_major_locator(FixedLocator(log_ticks(low, high)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.6g}"))


def scale_linear(axis: Axis, *, whole: bool = False) -> None:
    """Gives a linear axis steps of 1, 2 or 5. Args: whole: numbers alone, since something is counted."""
    axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=whole, min_n_ticks=2))


def padded(low: float, high: float, share: float = 0.06) -> tuple[float, float]:
    """The ends of a logarithmic axis around values from `low` to `high`, above 0."""
    room = max(high / low, 1.02) ** share
    return low / room, high * room
