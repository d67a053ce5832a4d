"""Results as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffpolicy._read import printable
from diffpolicy.edge.names import BASELINE

if TYPE_CHECKING:
    from diffpolicy.edge.comparison import Comparison
    from diffpolicy.edge.evaluation import Evaluation, Replay
    from diffpolicy.edge.metrics import Result


def render(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as plain text, as wide as it needs to be; the first column is flush left.

    Names stand in it as they are: brackets are no markup, colons no emoji, and what cannot be printed is escaped.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for i, name in enumerate(columns):
        table.add_column(_cell(name), justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(_cell, row))
    width = sum(max(cell_len(printable(row[i])) for row in (columns, *rows)) + 4 for i in range(len(columns)))
    console = Console(width=width, color_system=None, highlight=False, force_jupyter=False)
    with console.capture() as captured:
        console.print(table)
    return "\n".join([printable(title), *(line.rstrip() for line in captured.get().rstrip().splitlines())])


def _cell(text: str) -> Text:
    return Text(printable(text))


DELAY_COLUMNS = ("mean s", "p50", "p95", "p99", "max", "ratio", "decisions/s")


def delay_cells(result: Result) -> list[str]:
    """The cells of `DELAY_COLUMNS`."""
    d = result.delays
    return [
        with_interval(d.mean_delay_s, result.ci95_s),
        *(f"{x:.2f}" for x in (d.p50_delay_s, d.p95_delay_s, d.p99_delay_s, d.max_delay_s)),
        ratio_cell(result),
        f"{result.decisions_per_second:,.0f}",
    ]


def with_interval(mean: float, half_width: float | None) -> str:
    """A mean and its interval's half-width."""
    return f"{mean:.3f}" if half_width is None else f"{mean:.3f} ± {half_width:.3f}"


def ratio_cell(result: Result) -> str:
    """A ratio and its interval's half-width; where there is no ratio, the difference in seconds."""
    if result.ratio is None:
        half = result.difference.half_width
        return f"{result.difference.mean:+.3f} s" + ("" if half is None else f" ± {half:.3f}")
    if result.ratio_ci95 is None:
        return f"{result.ratio:.3f}"
    return f"{result.ratio:.3f} ± {(result.ratio_ci95[1] - result.ratio_ci95[0]) / 2:.3f}"


def evaluation_table(evaluation: Evaluation, episodes: int, baseline: str, marks: Mapping[str, str]) -> str:
    """What `evaluate` prints; `marks` are notes on policies, by name."""
    title = (
        f"{evaluation.scenario}: {episodes} episodes of identical arrivals, "
        f"load {evaluation.load:.2f}, ratio to {baseline}"
    )
    rows = [[name + marks.get(name, ""), *delay_cells(result)] for name, result in evaluation.results.items()]
    return render(title, ["policy", *DELAY_COLUMNS], rows)


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
        mean, p50, p95, p99, _, ratio, speed = delay_cells(row.result)
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
                **row.result.to_dict(),
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
