"""Where the tasks of each size go, what each size waits, and the front between the mean and the 99th percentile.

diffpolicy train lad-ts --episodes 40 --out runs/lad-ts
python benchmarks/deciding.py --policy lad-ts=runs/lad-ts --out runs/deciding      # two minutes on one core
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDictBase

import pictures
from diffpolicy.edge import OffloadingEnv, Scenario, make_policy
from diffpolicy.edge.evaluation import WORK
from diffpolicy.edge.workload.seeds import Stream
from diffpolicy.evaluation import play, undisturbed
from timing import table

WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
CLASSES = 5
SPREAD = ("mean_delay_s", "p50_delay_s", "p95_delay_s", "p99_delay_s", "max_delay_s")
FRONT = ("policy", "weight", *SPREAD, "ratio", "baseline", "measure")
END = ("opt-ts", "delay, s")


class Watched:
    """Delays, works and servers of every task that a policy decided. Args: episodes: played side by side."""

    def __init__(self, scenario: Scenario, policy: Any, episodes: int) -> None:
        information = getattr(policy, "information", "paper")
        env = OffloadingEnv(
            scenario, [episodes], information=information, stream=Stream.EVALUATION, dtype=torch.float64
        )
        servers = []

        def watch(step: TensorDictBase) -> None:
            valid = step["agents", "valid"]
            backlog = step["queue_gcycles"] / env.fleet.capacity_gcycles_per_s
            rank = backlog.argsort(-1, descending=True).argsort(-1)
            action = step["agents", "action"]
            of = rank.gather(-1, action.flatten(1)).view_as(action)
            servers.append(of[valid].numpy())

        with undisturbed(policy):
            played = play(env, policy, scenario.slots or 0, note_keys=[WORK], watch=watch)
        self.delay_s, self.work = played.cost, played.notes[str(WORK)]
        self.rank = np.concatenate(servers)

    def spread(self) -> list[float]:
        """Mean, p50, p95, p99 and max of the delays."""
        return [float(self.delay_s.mean()), *np.percentile(self.delay_s, [50, 95, 99, 100])]


def main() -> None:
    """Prints both tables, and writes two pictures and a CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", action="append", default=[], metavar="NAME=POLICY", help="one more, by folder")
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--slots", type=int, default=59)
    parser.add_argument("--sizes-only", action="store_true", help="leave the front out")
    parser.add_argument("--out", type=Path, default=Path("runs/deciding"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    scenario = Scenario.load("lad-ts").override(slots=options.slots)
    names = {"opt-ts": "opt-ts", **dict(x.split("=", 1) for x in options.policy)}
    names |= {x: x for x in ("price", "pretrained:live", "pretrained:stale")}
    options.out.mkdir(parents=True, exist_ok=True)
    seen = {name: Watched(scenario, make_policy(source, scenario), options.episodes) for name, source in names.items()}
    first = next(iter(seen.values()))
    edges = np.quantile(first.work, np.linspace(0, 1, CLASSES + 1))
    edges[-1] += 1
    rows = []
    for name, x in seen.items():
        size = np.digitize(x.work, edges[1:-1])
        waits = [x.delay_s[size == c].mean() for c in range(CLASSES)]
        share = [np.mean(x.rank[size == c] < 5) for c in range(CLASSES)]
        rows.append([name, *(f"{w:.2f}" for w in waits), *(f"{s:.0%}" for s in share)])
    labels = [f"{a:.1f}-{b:.1f}" for a, b in zip(edges, [*edges[1:-1], first.work.max()], strict=False)]
    lines = [
        [r[0], label, r[1 + c], float(r[1 + CLASSES + c][:-1]) / 100] for r in rows for c, label in enumerate(labels)
    ]
    with (options.out / "sizes.csv").open("w", newline="") as file:
        header = ["policy", "work_gcycles", "mean_delay_s", "share_to_5_longest"]
        csv.writer(file, lineterminator="\n").writerows([header, *lines])
    pictures.write(options.out / "sizes.csv", pictures.sizes)
    sizes = [f"wait {x}" for x in labels]
    print(table(["policy", *sizes, *(f"to 5 longest {x}" for x in labels)], rows), end="\n\n")
    if options.sizes_only:
        return

    rows = []
    base = seen["opt-ts"].spread()
    for weight in WEIGHTS:
        for name in ("pretrained:live", "pretrained:stale"):
            policy = make_policy(name, scenario)
            policy.rule.weight = weight
            spread = Watched(scenario, policy, options.episodes).spread()
            rows.append([name, f"{weight:g}", *spread])
    with (options.out / "front.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(
            [FRONT, ["opt-ts", "", *base, 1.0, *END], *([*row, row[2] / base[0], *END] for row in rows)]
        )
    shown = [[r[0], r[1], f"{r[2] / base[0]:.3f}", *(f"{v:.2f}" for v in r[2:])] for r in rows]
    shown.insert(0, ["opt-ts", "", "1.000", *(f"{v:.2f}" for v in base)])
    print(table(["policy", "weight of prices", "ratio", "mean s", "p50", "p95", "p99", "max"], shown))
    pictures.write(options.out / "front.csv")


if __name__ == "__main__":
    main()
