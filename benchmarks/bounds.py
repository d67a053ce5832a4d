"""How much better than opt-ts a rule could be: lower bounds, the fluid optimum and the best known assignments.

python benchmarks/bounds.py --out runs/bounds.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from diffpolicy.edge import Scenario, evaluate
from diffpolicy.edge.bounds.clairvoyant import best_known
from diffpolicy.edge.bounds.episode import Episode
from diffpolicy.edge.bounds.fixed_split import best_static_split
from diffpolicy.edge.bounds.lower import pooled_bound
from timing import table, write_csv

POLICIES = ("price", "pretrained:live", "pretrained:stale")
"""What is set beside them."""
COLUMNS = ["tasks", "load", "rule or bound", "mean delay, s", "ratio to opt-ts", "least", "greatest"]


def measure(scenario: Scenario, episodes: int, sweeps: int) -> dict[str, list[float]]:
    """Mean delay of each episode in seconds, by rule or bound."""
    split = best_static_split(scenario)
    rows: dict[str, list[float]] = {}
    for k in range(episodes):
        episode = Episode.of(scenario, k)
        found = best_known(episode, sweeps=sweeps)
        measured = {
            "opt-ts": found.start_s,
            "lower bound": pooled_bound(episode).mean_delay_s,
            "best known": found.mean_delay_s,
            "best static split, drawn": float(episode.delays_s(split.draw(episode, k)).mean()),
            f"fluid optimum (residual {split.residual:.2g})": split.mean_delay_s,
        }
        for name, value in measured.items():
            rows.setdefault(name, []).append(value)
    return rows


def main() -> None:
    """Prints the table, and writes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=[25, 40, 50])
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--sweeps", type=int, default=48)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    for tasks in options.tasks:
        scenario = Scenario.load("lad-ts").override(tasks=tasks)
        rows = measure(scenario, options.episodes, options.sweeps)
        base = rows["opt-ts"]
        for name, values in rows.items():
            ratios = [x / y for x, y in zip(values, base, strict=True)]
            mean = sum(values) / len(values)
            shown = [mean, mean * len(base) / sum(base), min(ratios), max(ratios)]
            lines.append([str(tasks), f"{scenario.load_factor():.2f}", name, *(f"{x:.3f}" for x in shown)])
        found = evaluate(list(POLICIES), scenario, episodes=options.episodes).results
        for name, result in found.items():
            figures = [f"{result.costs.mean:.3f}", f"{result.ratio:.3f}", "", ""]
            lines.append([str(tasks), f"{scenario.load_factor():.2f}", name, *figures])
    print(table(COLUMNS, lines))
    if options.out:
        write_csv(options.out, [COLUMNS, *lines])


if __name__ == "__main__":
    main()
