"""Sweeps: a comparison at each value of one of the paper's knobs."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from diffpolicy import _files
from diffpolicy._alone import alone_in
from diffpolicy._validate import show
from diffpolicy.edge.compare import compare
from diffpolicy.edge.comparison import Comparison
from diffpolicy.edge.jobs import Plan
from diffpolicy.errors import InputError
from diffpolicy.experiments.names import make_method

SCENARIO_KEYS = ("tasks", "stations", "slots", "capacity", "steps")
"""Knobs of the system; `capacity` and `steps` take LO:HI."""
METHOD_KEYS = {"denoising-steps": "steps", "temperature": "alpha", "discount": "gamma", "updates": "updates"}
"""Knobs of the methods, and the fields that they set."""


@dataclass(frozen=True)
class Sweep:
    """A knob and its values.

    Args:
        key: of `SCENARIO_KEYS` or `METHOD_KEYS`.
        values: in the order of the plot; pairs (LO, HI) for ranges.

    Example:
        >>> Sweep.parse("tasks=10,20,30").values
        (10, 20, 30)
    """

    key: str
    values: tuple[Any, ...]

    @classmethod
    def parse(cls, text: str) -> Sweep:
        """From KEY=V,V.

        Raises:
            InputError: an unknown key, or a value that it cannot take.
        """
        key, equals, rest = text.partition("=")
        known = (*SCENARIO_KEYS, *METHOD_KEYS)
        if not equals or key not in known:
            raise InputError(f"a sweep must be KEY=V,V with KEY one of {', '.join(known)}, got {show(text)}")
        words = [word.strip() for word in rest.split(",") if word.strip()]
        if not words:
            raise InputError(f"a sweep needs values, got {show(text)}")
        values = tuple(_value(key, word) for word in words)
        if len(set(values)) < len(values):
            raise InputError(f"a sweep's values must differ, got {show(text)}")
        return cls(key, values)

    def label(self, value: Any) -> str:
        """A value as it was typed."""
        return f"{value[0]}:{value[1]}" if isinstance(value, tuple) else f"{value:g}"

    def apply(self, plan: Plan, value: Any) -> Plan:
        """The plan at one value, with a folder of its own and its share of the time.

        Raises:
            InputError: a method does not have the field, or the scenario cannot take the value.
        """
        share = None if plan.seconds is None else plan.seconds / len(self.values)
        here = replace(plan, out=plan.out / f"{self.key}={self.label(value).replace(':', '-')}", seconds=share)
        if self.key in SCENARIO_KEYS:
            return replace(here, scenario=plan.scenario.override(**{self.key: value}))
        field = METHOD_KEYS[self.key]
        for name in plan.methods:
            if field not in {f.name for f in fields(make_method(name))}:
                raise InputError(f"method {name} has no {self.key.replace('-', ' ')}; leave it out with --methods")
        return replace(here, changes={**plan.changes, field: value})


def _value(key: str, word: str) -> Any:
    try:
        if key in ("capacity", "steps"):
            lo, _, hi = word.partition(":")
            return int(lo), int(hi)
        return float(word) if key in ("temperature", "discount") else int(word)
    except ValueError:
        kind = "LO:HI" if key in ("capacity", "steps") else "a number"
        raise InputError(f"a value of the sweep over {key} must be {kind}, got {show(word)}") from None


def run_sweep(plan: Plan, sweep: Sweep, say: Callable[[str], None] = lambda text: None) -> list[Comparison]:
    """Compares at every value, and writes `sweep.csv` beside the comparisons' own folders."""
    plans = [sweep.apply(plan, value) for value in sweep.values]
    results = []
    with alone_in(plan.out):
        for value, each in zip(sweep.values, plans, strict=True):
            say(f"{sweep.key} = {sweep.label(value)}, load {each.scenario.load_factor():.2f}")
            results.append(compare(each, say, time.monotonic()))
            _files.write_text(plan.out / "sweep.csv", sweep_csv(sweep, results))
    return results


def sweep_csv(sweep: Sweep, results: Sequence[Comparison]) -> str:
    """A line a value and policy; values that are not reached yet are left out."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [sweep.key, "load", "policy", "kind", "seeds", "episodes", "mean_delay_s", "ci95_s", "p95_delay_s", "ratio"]
    )
    for value, comparison in zip(sweep.values, results, strict=False):
        for row in comparison.rows:
            d = row.result.costs
            kind = "method" if row.seeds else "heuristic"
            ci = "" if row.result.ci95 is None else row.result.ci95
            numbers = [d.mean, ci, d.p95, "" if row.result.ratio is None else row.result.ratio]
            writer.writerow(
                [sweep.label(value), row.load, row.name, kind, row.seeds or "", row.episodes or "", *numbers]
            )
    return text.getvalue()
