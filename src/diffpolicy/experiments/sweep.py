"""Sweeps: a comparison at each value of a knob of the problem or of the methods."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from diffpolicy import _files
from diffpolicy import _validate as check
from diffpolicy._alone import alone_in
from diffpolicy._suggest import meant
from diffpolicy.environments.problem import Kind, Problem
from diffpolicy.errors import InputError
from diffpolicy.evaluation.results import unit_suffix
from diffpolicy.evaluation.tables import AXES, measure
from diffpolicy.experiments.changes import aimed
from diffpolicy.experiments.comparison import Comparison, kind
from diffpolicy.experiments.method_names import make_method
from diffpolicy.experiments.plan import Plan
from diffpolicy.experiments.run import compare
from diffpolicy.methods.fields import annotated

METHOD_KEYS = {"denoising-steps": "steps", "temperature": "alpha", "discount": "gamma", "updates": "updates"}
"""Knobs of the methods, and the fields that they set."""
METHOD_KINDS: Mapping[str, Kind] = {
    "denoising-steps": "whole",
    "temperature": "number",
    "discount": "number",
    "updates": "whole",
}
RATIO = ("ratio_lo", "ratio_hi")
"""Columns of a ratio's interval."""


@dataclass(frozen=True)
class Sweep:
    """A parameter, and the values at which a comparison is repeated.

    Args:
        key: of the problem's `knobs`, of `METHOD_KEYS`, or a field of all methods that is a number.
        values: in the order of the plot, at least one; pairs (LO, HI) for ranges.

    Raises:
        InputError: there is no value, or no list of them.

    Example:
        >>> Sweep.parse("tasks=10,20,30", OffloadingProblem()).values
        (10, 20, 30)
    """

    key: str
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if isinstance(self.values, str) or not isinstance(self.values, Sequence):
            raise InputError(f"the values of a sweep must be a list, got {check.show(self.values)}")
        object.__setattr__(self, "values", tuple(self.values))
        if not self.values:
            raise InputError(f"a sweep needs values, got {check.show(self.values)}")

    @classmethod
    def parse(cls, text: str, problem: Problem, methods: Sequence[str] = ()) -> Sweep:
        """What `--sweep` takes, KEY=V,V.

        Args:
            text: that. problem: whose knobs it may turn, beside the methods'. methods: whose fields it may set.

        Raises:
            InputError: an unknown key, or a value that it cannot take.
        """
        key, equals, rest = text.partition("=")
        known = {**problem.knobs(), **METHOD_KINDS}
        kind = known.get(key) or _field_kind(key, methods)
        if not equals or kind is None:
            near = meant(key, [*known, *_numbers(methods)])
            raise InputError(
                f"a sweep must be KEY=V,V with KEY one of {', '.join(known)}, or a field of all methods that is a "
                f"number, got {check.show(text)}{near}"
            )
        words = [word.strip() for word in rest.split(",") if word.strip()]
        if not words:
            raise InputError(f"a sweep needs values, got {check.show(text)}")
        values = tuple(_value(key, kind, word) for word in words)
        if len(set(values)) < len(values):
            raise InputError(f"a sweep's values must differ, got {check.show(text)}")
        return cls(key, values)

    def label(self, value: Any) -> str:
        """A value as it was typed."""
        return f"{value[0]}:{value[1]}" if isinstance(value, tuple) else f"{value:g}"

    def apply(self, plan: Plan, value: Any) -> Plan:
        """The plan at one value, with a folder of its own and its share of the time.

        Args:
            plan: of the whole sweep. value: one of `values`.

        Raises:
            InputError: there is no such key, a method does not have the field, or the problem cannot take the value.
        """
        share = None if plan.seconds is None else plan.seconds / len(self.values)
        at = f"{self.key}={self.label(value)}"
        here = replace(plan, out=plan.out / at.replace(":", "-"), seconds=share, at=at)
        if self.key in plan.problem.knobs():
            return replace(here, problem=plan.problem.vary(self.key, value))
        if _field_kind(self.key, plan.methods) is None:
            check.choice(self.key, "the key of a sweep", [*plan.problem.knobs(), *METHOD_KEYS])
        field = METHOD_KEYS.get(self.key, self.key)
        for name in plan.methods:
            if field not in {f.name for f in fields(make_method(name))}:
                raise InputError(f"method {name} has no {self.key.replace('-', ' ')}; leave it out with --methods")
        for key in plan.changes:
            if aimed(plan.methods, key)[1] == field:
                raise InputError(f"{key} is set, and the sweep over {self.key} sets {field} too")
        return replace(here, changes={**plan.changes, field: value})


def _numbers(methods: Iterable[str]) -> dict[str, list[Kind]]:
    """Fields of the methods that are numbers, by what each method that has one says that it is."""
    found: dict[str, list[Kind]] = {}
    for name in methods:
        for field in fields(make_method(name)):
            said = annotated(field)
            if field.init and re.search(r"\b(float|int)\b", said) and "[" not in said:
                found.setdefault(field.name, []).append("number" if "float" in said else "whole")
    return found


def _field_kind(key: str, methods: Iterable[str]) -> Kind | None:
    """What a field takes that is a number of some method; None: there is no such field."""
    kinds = _numbers(methods).get(key)
    return None if kinds is None else "whole" if set(kinds) == {"whole"} else "number"


def _value(key: str, kind: Kind, word: str) -> Any:
    try:
        if kind == "LO:HI":
            lo, _, hi = word.partition(":")
            return int(lo), int(hi)
        return float(word) if kind == "number" else int(word)
    except ValueError:
        wanted = "LO:HI" if kind == "LO:HI" else "a number"
        raise InputError(f"a value of the sweep over {key} must be {wanted}, got {check.show(word)}") from None


def run_sweep(
    plan: Plan,
    sweep: Sweep,
    say: Callable[[str], None] = lambda text: None,
    heard: Callable[[str, float], None] = lambda name, share: None,
) -> list[Comparison]:
    """Compares at every value, and writes `sweep.csv` beside the comparisons' own folders.

    Args:
        plan: what to compare. sweep: at which values. say, heard: of `compare`; shares are of all values together.

    Returns:
        A `Comparison` for each value, in their order.

    Raises:
        InputError: a method has not the knob, the problem cannot take a value, or one of the reasons of `compare`.
        WorkError: a job failed.

    Example:
        >>> from pathlib import Path
        >>> problem = EnvProblem(lambda batch, seed: Clinic(batch, seed), steps=5)
        >>> plan = Plan(problem, ["dqn"], Path("runs/discount"), episodes=1, seconds=None, eval_episodes=1)
        >>> [len(comparison.rows) for comparison in run_sweep(plan, Sweep("discount", (0.5, 0.9)))]
        [2, 2]
    """

    def hear(name: str, share: float) -> None:
        heard(name, share / len(sweep.values))

    plans = [sweep.apply(plan, value) for value in sweep.values]
    results = []
    with alone_in(plan.out):
        for value, each in zip(sweep.values, plans, strict=True):
            say(f"{sweep.key} = {sweep.label(value)}: {each.problem.told()}")
            results.append(compare(each, say, time.monotonic(), heard=hear))
            _files.write_text(plan.out / "sweep.csv", sweep_csv(sweep, results))
    return results


def sweep_csv(sweep: Sweep, results: Sequence[Comparison]) -> str:
    """A line a value and policy; values that are not reached yet are left out."""
    text, cost = io.StringIO(), results[0].plan.problem.cost
    figures = [f"mean_{cost.column}", f"ci95{unit_suffix(cost)}", f"p95_{cost.column}", "ratio"]
    ends = [results[0].plan.baseline, measure(cost)]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [sweep.key, *results[0].rows[0].told, "policy", "kind", "seeds", "episodes", *figures, *RATIO, *AXES]
    )
    for value, comparison in zip(sweep.values, results, strict=False):
        for row in comparison.rows:
            data = row.result.to_dict(cost)
            numbers = ["" if data[name] is None else data[name] for name in figures]
            told = row.told.values()
            who = [row.name, kind(row), row.seeds or "", row.episodes or ""]
            interval = row.result.ratio_ci95 or ("", "")
            writer.writerow([sweep.label(value), *told, *who, *numbers, *interval, *ends])
    return text.getvalue()
