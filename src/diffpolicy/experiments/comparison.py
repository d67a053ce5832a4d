"""The outcome of a comparison: its lines, and their files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from diffpolicy.environments import Cost, Problem
from diffpolicy.evaluation.intervals import Interval, pooled_interval
from diffpolicy.evaluation.playing import Played
from diffpolicy.evaluation.results import Result
from diffpolicy.evaluation.tables import AXES, METHOD, RULE, kind_of, measure
from diffpolicy.experiments.plan import Outcome, Plan


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        converged: None for a rule. told: what the problem says of the episodes.
        updates: of parameters, of the seed that made fewest; None for a rule, and where nobody counted them.
    """

    name: str
    result: Result
    told: Mapping[str, float] = field(default_factory=dict)
    episodes: int = 0
    seeds: int = 0
    converged: bool | None = None
    updates: int | None = None
    train_seconds: float = 0.0
    curves: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """What `compare` found: all lines, methods first, each group by its mean cost; and what plots are drawn from.

    Args:
        plan: what was compared.
        rows: a line each of a method, a rule or a trained policy, with its `result`.
        played: what the evaluation's episodes cost, item by item, by the lines' names.
        seconds: that it took.
        alike: what was played, in the table's title.

    Example:
        >>> problem = EnvProblem(Clinic, steps=50, rules={"longest": longest_queue}, cost="waiting")
        >>> comparison = compare(problem, methods=[], episodes=1, eval_episodes=4, out="runs/rules", processes=1)
        >>> [row.name for row in comparison.rows], comparison.row("longest").result.costs.count
        (['longest'], 4)
    """

    plan: Plan
    rows: list[Row]
    played: dict[str, Played]
    seconds: float
    alike: str = Problem.alike

    def row(self, name: str) -> Row:
        """The line of that name."""
        return next(row for row in self.rows if row.name == name)

    def kinds(self) -> dict[str, str]:
        """What each line is of, by name, as files say it."""
        return {row.name: kind(row) for row in self.rows}

    @classmethod
    def of(cls, plan: Plan, outcomes: list[Outcome], seconds: float, alike: str = Problem.alike) -> Comparison:
        """From the outcomes of all jobs, in any order. Args: seconds: that it took. alike: of `played_as`."""
        lines = _rows(plan, outcomes)
        played = {row.name: _pooled(outcomes, row.name) for row in lines}
        return cls(plan, lines, played, seconds, alike)


def _of(outcomes: list[Outcome], name: str) -> list[Outcome]:
    return sorted((o for o in outcomes if o.job.name == name), key=lambda o: o.job.seed)


def _pooled(outcomes: list[Outcome], name: str) -> Played:
    return Played.join([o.played for o in _of(outcomes, name)])


def _rows(plan: Plan, outcomes: list[Outcome]) -> list[Row]:
    baseline = _pooled(outcomes, plan.baseline)
    told = plan.problem.summarise(baseline, plan.eval_episodes)
    rows = []
    for name in dict.fromkeys(o.job.name for o in outcomes):
        mine = _of(outcomes, name)
        result = Result.of(_pooled(outcomes, name), baseline)
        if not mine[0].job.trained:
            rows.append(Row(name, result, told))
            continue
        if len(mine) >= 3:
            result = over_seeds(result, [o.played for o in mine], baseline)
        updates = min((o.updates for o in mine if o.updates is not None), default=None)
        curves = [[row[plan.problem.cost.column] for row in o.history] for o in mine]
        rows.append(
            Row(
                name,
                result,
                told,
                episodes=min(int(o.history[-1]["episode"]) if o.history else 0 for o in mine),
                seeds=len(mine),
                converged=updates != 0 and all(converged(curve) for curve in curves),
                updates=updates,
                train_seconds=float(np.mean([o.train_seconds for o in mine])),
                curves=curves,
            )
        )
    return sorted(rows, key=lambda row: (row.seeds == 0, row.result.costs.mean))


def over_seeds(result: Result, played: list[Played], baseline: Played) -> Result:
    """The same result with its intervals over training seeds instead of over episodes.

    A seed is what an episode is in `pooled_interval`; the baseline, which has none, counts as known.
    """
    seed = np.repeat(np.arange(len(played)), [len(p.cost) for p in played])
    pooled = pooled_interval(Played(np.concatenate([p.cost for p in played]), seed, 0.0, {}))
    half, known = pooled.half_width, float(baseline.cost.mean())
    if result.ratio is None or half is None:
        return replace(result, ci95=half, difference=Interval(pooled.mean - known, half))
    ratio = pooled.mean / known
    interval = (ratio - half / known, ratio + half / known)
    return replace(result, ci95=half, ratio=ratio, ratio_ci95=interval)


def converged(curve: Sequence[float]) -> bool:
    """Whether a learning curve has stopped falling.

    Compares the last quarter of the episodes with the quarter before: it falls if it went down by more than 1 % and by
    more than two standard errors. With fewer than 20 episodes nobody can tell, and it counts as not converged.
    """
    if len(curve) < 20:
        return False
    quarter = len(curve) // 4
    before, last = np.array(curve[-2 * quarter : -quarter]), np.array(curve[-quarter:])
    fall = before.mean() - last.mean()
    error = np.sqrt(before.var(ddof=1) / quarter + last.var(ddof=1) / quarter)
    return bool(fall <= max(0.01 * last.mean(), 2 * error))


def kind(row: Row) -> str:
    """What a line is of, in files: `method`, `pretrained` or `heuristic`."""
    return kind_of(row.name, trained=row.seeds > 0)


def in_files(result: Result, cost: Cost) -> dict[str, Any]:
    """A result under the cost's names; `episodes` are those of training here, so that those played are named apart."""
    data = result.to_dict(cost)
    return {"eval_episodes" if name == "episodes" else name: value for name, value in data.items()}


def comparison_csv(comparison: Comparison) -> str:
    """The table as a file, figures in full; a difference has columns where some line has no ratio."""
    text, cost = io.StringIO(), comparison.plan.problem.cost
    files = {row.name: in_files(row.result, cost) for row in comparison.rows}
    figures = list(dict.fromkeys(name for data in files.values() for name in data))
    at = figures.index("ratio_ci95")
    figures[at : at + 1] = ["ratio_lo", "ratio_hi"]
    told = list(comparison.rows[0].told)
    of_training = ["method", "kind", "episodes", "training_seeds", "converged"]
    columns = [*of_training, *figures, "training_s", "decisions_per_second", *told, *AXES]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in comparison.rows:
        data = files[row.name]
        lo, hi = data.pop("ratio_ci95") or ("", "")
        writer.writerow(
            {
                "method": row.name,
                "kind": kind(row),
                "episodes": row.episodes or "",
                "training_seeds": row.seeds or "",
                "converged": "" if row.converged is None else ("yes" if row.converged else "no"),
                "ratio_lo": lo,
                "ratio_hi": hi,
                "training_s": row.train_seconds if row.seeds else "",
                "decisions_per_second": row.result.decisions_per_second,
                **row.told,
                "baseline": comparison.plan.baseline,
                "measure": measure(cost),
                **{k: "" if v is None else v for k, v in data.items()},
            }
        )
    return text.getvalue()


def curves_csv(plan: Plan, outcomes: Sequence[Outcome]) -> str:
    """Every training episode of every method and seed, then what they are drawn beside: a line each of what learns not.

    That are the baseline, the problem's `references` and trained policies, with their means in the evaluation.
    """
    text, cost = io.StringIO(), plan.problem.cost
    beside = {plan.baseline, *plan.problem.references}
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "kind", "seed", "episode", cost.column, *AXES])
    ends = [plan.baseline, measure(cost)]
    for o in sorted((o for o in outcomes if o.job.trained), key=lambda o: (o.job.name, o.job.seed)):
        who = [o.job.name, METHOD, o.job.seed]
        writer.writerows([*who, int(row["episode"]), row[cost.column], *ends] for row in o.history)
    for o in (o for o in outcomes if not o.job.trained):
        what = kind_of(o.job.name, trained=False)
        if what != RULE or o.job.name in beside:
            writer.writerow([o.job.name, what, "", "", float(o.played.cost.mean()), *ends])
    return text.getvalue()
