"""Results as tables for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffpolicy._table import render
from diffpolicy.edge.names import BASELINE
from diffpolicy.edge.problem import DELAY
from diffpolicy.evaluation.tables import cost_cells

if TYPE_CHECKING:
    from diffpolicy.edge.comparison import Comparison
    from diffpolicy.edge.evaluation import Replay


def replay_table(replay: Replay) -> str:
    """What `replay` prints."""
    data = replay.to_dict()
    title = f"{replay.scenario}: {data['tasks']} tasks under {replay.policy}, load {replay.load:.2f}"
    names = ("mean_delay_s", "p50_delay_s", "p95_delay_s", "p99_delay_s", "max_delay_s")
    return render(title, ["mean s", "p50", "p95", "p99", "max"], [[f"{data[name]:.4f}" for name in names]])


def comparison_table(comparison: Comparison) -> str:
    """What `compare` prints."""
    plan, rows = comparison.plan, []
    for row in comparison.rows:
        mean, p50, p95, p99, _, ratio, speed = cost_cells(row.result, DELAY.unit)
        episodes = f"{row.episodes}{'' if row.converged else '*'}" if row.seeds else ""
        seconds = f"{row.train_seconds:.0f}" if row.seeds else ""
        seeds = str(row.seeds) if row.seeds else ""
        rows.append([row.name, mean, p50, p95, p99, ratio, episodes, seeds, seconds, speed, f"{row.load:.2f}"])
    many = any(row.seeds >= 3 for row in comparison.rows)
    over = "training seeds (heuristics: episodes)" if many else "episodes"
    title = (
        f"{plan.scenario.name}: {plan.eval_episodes} episodes of identical arrivals; "
        f"± is a 95 % interval over {over}; ratio to {BASELINE}"
    )
    columns = ["method", "mean s", "p50", "p95", "p99", "ratio", "episodes", "seeds", "train s", "decisions/s", "load"]
    table = render(title, columns, rows)
    if any(row.converged is False for row in comparison.rows):
        table += "\n* not converged: fewer than 20 episodes, or its training delay was still falling"
    return table


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """What `compare --json` prints."""
    return {
        "scenario": comparison.plan.scenario.name,
        "load": comparison.rows[0].load,
        "seconds": comparison.seconds,
        "methods": {
            row.name: {
                **row.result.to_dict(DELAY),
                "kind": "method" if row.seeds else "heuristic",
                "episodes": row.episodes or None,
                "training_seeds": row.seeds or None,
                "converged": row.converged,
                "training_s": row.train_seconds if row.seeds else None,
                "decisions_per_second": row.result.decisions_per_second,
            }
            for row in comparison.rows
        },
    }
