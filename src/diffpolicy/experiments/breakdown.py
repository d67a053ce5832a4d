"""The cost in bins of what a problem notes of its items: who pays for what a policy wins."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

import numpy as np

from diffpolicy._types import Floats
from diffpolicy.environments.problem import Problem
from diffpolicy.evaluation.playing import Played
from diffpolicy.evaluation.tables import AXES, measure

BINS = 10


def breakdowns(
    problem: Problem, played: Mapping[str, Played], kinds: Mapping[str, str], baseline: str
) -> dict[str, str]:
    """The files of a problem's `breakdowns`, CSV texts by file name.

    Args:
        problem: says by what. played: by policy, the baseline's among them. kinds: what each line is of, by policy.
        baseline: to which ratios are.
    """
    return {
        f"{stem}.csv": _breakdown_csv(problem, played, kinds, baseline, note, column)
        for stem, (note, column) in problem.breakdowns().items()
    }


def bin_means(values: Floats, by: Floats, edges: Floats) -> tuple[Floats, Floats, Floats]:
    """How many are in each bin, the mean of what they are binned by, and the mean of their values, `[bins]` each.

    Args:
        values, by: of each item, `[K]`. edges: ascending, `[bins + 1]`; what is outside is in the first or last bin.
    """
    at = np.clip(np.searchsorted(edges, by, side="right") - 1, 0, len(edges) - 2)
    count = np.bincount(at, minlength=len(edges) - 1).astype(np.float64)
    with np.errstate(invalid="ignore"):
        of, means = (np.bincount(at, x, len(edges) - 1) / count for x in (by, values))
    return count, of, means


def _breakdown_csv(
    problem: Problem,
    played: Mapping[str, Played],
    kinds: Mapping[str, str],
    baseline: str,
    note: str,
    column: str,
) -> str:
    """A row a policy and bin, of equally many of the baseline's items; no ratio where a mean is not above 0."""
    cost, base = problem.cost, played[baseline]
    edges = np.unique(np.quantile(base.notes[note], np.linspace(0, 1, BINS + 1)))
    if len(edges) < 2:
        edges = np.array([edges[0], edges[0] + 1.0])
    known = bin_means(base.cost, base.notes[note], edges)[2]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["policy", "kind", "bin", column, cost.counted, f"mean_{cost.column}", "ratio", *AXES])
    for name, kind in kinds.items():
        count, of, means = bin_means(played[name].cost, played[name].notes[note], edges)
        for k in np.flatnonzero(count):
            ratio = means[k] / known[k] if known[k] > 0 and means[k] > 0 else ""
            row = [k, of[k], int(count[k]), means[k], ratio]
            writer.writerow([name, kind, *row, baseline, measure(cost)])
    return text.getvalue()
