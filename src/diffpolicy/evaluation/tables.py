"""Results as cells of a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffpolicy._draw.frame import METHOD as METHOD
from diffpolicy._draw.frame import PRETRAINED as BUNDLED
from diffpolicy._draw.frame import RULE as RULE
from diffpolicy.environments import Cost
from diffpolicy.environments.entrants import PRETRAINED
from diffpolicy.evaluation.results import Result

if TYPE_CHECKING:
    from diffpolicy.evaluation.evaluating import Evaluation


AXES = ("baseline", "measure")
"""Columns that end a file of which pictures are drawn: to what ratios are, and what is measured, with its unit."""


def kind_of(name: str, *, trained: bool, rules: Sequence[str] | None = None) -> str:
    """What a line of a file is of: `method`, `pretrained` or `heuristic`.

    Args:
        name: of the policy. trained: whether it was trained here.
        rules: those of the problem; None: whatever was not trained here and does not come with the problem is one.
    """
    if trained:
        return METHOD
    if name.startswith(PRETRAINED):
        return BUNDLED
    return RULE if rules is None or name in rules else METHOD


def measure(cost: Cost) -> str:
    """What is measured, with its unit, as pictures say it: `delay, s`."""
    return cost.titled("").strip()


def cost_columns(cost: Cost) -> list[str]:
    """The heads of what `cost_cells` gives."""
    return [f"mean {cost.unit}".strip(), "p50", "p95", "p99", "max", "ratio", "decisions/s"]


def cost_cells(result: Result, unit: str) -> list[str]:
    """The cells of a policy's line. Args: unit: of the cost."""
    c = result.costs
    return [
        with_interval(c.mean, result.ci95),
        *(f"{x:.2f}" for x in (c.p50, c.p95, c.p99, c.most)),
        ratio_cell(result, unit),
        f"{result.decisions_per_second:,.0f}",
    ]


def evaluation_csv(evaluation: Evaluation) -> str:
    """A line a policy, figures in full; what does not apply is empty."""
    text = io.StringIO()
    rows = [
        {"policy": name, "kind": kind_of(name, trained=False, rules=evaluation.rules), **row}
        for name, row in evaluation.to_dict()["policies"].items()
    ]
    ends = {"baseline": evaluation.baseline, "measure": measure(evaluation.cost)}
    for row in rows:
        row["ratio_lo"], row["ratio_hi"] = row.pop("ratio_ci95") or (None, None)
    columns = [*dict.fromkeys(key for row in rows for key in row), *ends]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, **ends} for row in rows)
    return text.getvalue()


def with_interval(mean: float, half_width: float | None) -> str:
    """A mean and its interval's half-width."""
    return f"{mean:.3f}" if half_width is None else f"{mean:.3f} ± {half_width:.3f}"


def ratio_cell(result: Result, unit: str) -> str:
    """A ratio and its interval's half-width; where there is no ratio, the difference with its sign and unit."""
    if result.ratio is None:
        half = result.difference.half_width
        shown = f"{result.difference.mean:+.3f} {unit}".strip()
        return shown + ("" if half is None else f" ± {half:.3f}")
    if result.ratio_ci95 is None:
        return f"{result.ratio:.3f}"
    return f"{result.ratio:.3f} ± {(result.ratio_ci95[1] - result.ratio_ci95[0]) / 2:.3f}"
