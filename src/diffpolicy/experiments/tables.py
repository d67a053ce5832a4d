"""A comparison as a table for a terminal, and as JSON."""

from __future__ import annotations

from typing import Any

from diffpolicy._table import render
from diffpolicy.evaluation.tables import cost_cells, cost_columns
from diffpolicy.experiments.comparison import Comparison, in_files, kind


def comparison_table(comparison: Comparison) -> str:
    """What `compare` prints."""
    plan, rows = comparison.plan, []
    cost = plan.problem.cost
    for row in comparison.rows:
        mean, p50, p95, p99, _, ratio, speed = cost_cells(row.result, cost.unit)
        episodes = f"{row.episodes}{'' if row.converged else '*'}" if row.seeds else ""
        seconds = f"{row.train_seconds:.0f}" if row.seeds else ""
        seeds = str(row.seeds) if row.seeds else ""
        told = [f"{figure:.2f}" for figure in row.told.values()]
        rows.append([row.name, mean, p50, p95, p99, ratio, episodes, seeds, seconds, speed, *told])
    many = any(row.seeds >= 3 for row in comparison.rows)
    over = "training seeds (rules: episodes)" if many else "episodes"
    title = (
        f"{plan.problem.name}: {plan.eval_episodes} {plan.problem.alike}; "
        f"± is a 95 % interval over {over}; ratio to {plan.baseline}"
    )
    mean, p50, p95, p99, _, ratio, speed = cost_columns(cost)
    columns = ["method", mean, p50, p95, p99, ratio, "episodes", "seeds", "train s", speed, *comparison.rows[0].told]
    table = render(title, columns, rows)
    if any(row.converged is False for row in comparison.rows):
        table += f"\n* not converged: fewer than 20 episodes, or its training {cost.label} was still falling"
    return table


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """What `compare --json` prints."""
    problem = comparison.plan.problem
    return {
        problem.noun: problem.name,
        **comparison.rows[0].told,
        "seconds": comparison.seconds,
        "methods": {
            row.name: {
                **in_files(row.result, problem.cost),
                "kind": kind(row),
                "episodes": row.episodes or None,
                "training_seeds": row.seeds or None,
                "converged": row.converged,
                "training_s": row.train_seconds if row.seeds else None,
                "decisions_per_second": row.result.decisions_per_second,
            }
            for row in comparison.rows
        },
    }
