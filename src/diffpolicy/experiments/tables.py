"""A comparison as a table for a terminal, and as JSON."""

from __future__ import annotations

from typing import Any

from diffpolicy._text_table import render
from diffpolicy.evaluation.evaluating import repeatable
from diffpolicy.evaluation.tables import cost_cells, cost_columns
from diffpolicy.experiments.comparison import Comparison, in_files, kind


def comparison_table(comparison: Comparison) -> str:
    """What `compare` prints: mean, tail, ratio, and episodes (x seeds) of training; the CSV has the other figures."""
    plan, rows = comparison.plan, []
    cost = plan.problem.cost
    for row in comparison.rows:
        mean, _, p95, _, _, ratio, speed = cost_cells(row.result, cost.unit)
        seeds = f" x {row.seeds}" if row.seeds > 1 else ""
        mark = "†" if row.updates == 0 else "" if row.converged else "*"
        trained = f"{row.episodes}{seeds}{mark}" if row.seeds else ""
        seconds = f"{row.train_seconds:.0f}" if row.seeds else ""
        rows.append([row.name, mean, p95, ratio, trained, seconds, speed])
    many = any(row.seeds >= 3 for row in comparison.rows)
    over = "training seeds (rules: episodes)" if many else "episodes"
    told = "".join(f", {name} {figure:.2f}" for name, figure in comparison.rows[0].told.items())
    title = (
        f"{plan.problem.name}: {plan.eval_episodes} {comparison.alike}{told}; "
        f"± is a 95 % interval over {over}; ratio to {plan.baseline}"
    )
    mean, _, p95, _, _, ratio, speed = cost_columns(cost)
    table = render(title, ["method", mean, p95, ratio, "trained", "train s", speed], rows)
    if any(row.converged is False and row.updates != 0 for row in comparison.rows):
        table += f"\n* not converged: fewer than 20 episodes, or its training {cost.label} was still falling"
    if any(row.updates == 0 for row in comparison.rows):
        table += "\n† not trained: no update was made"
    return table


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """What `compare --json` prints; `repeatable` as in `Evaluation.to_dict`."""
    problem = comparison.plan.problem
    return {
        problem.noun: problem.name,
        **comparison.rows[0].told,
        **repeatable(comparison.alike),
        "seconds": comparison.seconds,
        "methods": {
            row.name: {
                **in_files(row.result, problem.cost),
                "kind": kind(row),
                "episodes": row.episodes or None,
                "training_seeds": row.seeds or None,
                "converged": row.converged,
                "updates": row.updates,
                "training_s": row.train_seconds if row.seeds else None,
                "decisions_per_second": row.result.decisions_per_second,
            }
            for row in comparison.rows
        },
    }
