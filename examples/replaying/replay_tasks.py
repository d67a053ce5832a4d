"""Replay a list of tasks: what did the recorded decisions cost, and what would a rule have made of the same tasks?

As a command: `diffpolicy replay --scenario fleet.json --task-file monday.csv --policy opt-ts --out greedy.csv`.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import torch

from diffpolicy.edge import Scenario, Server, TaskList, make_policy, replay


def write_tasks(path: Path) -> None:
    """200 tasks that arrive at random, two a second on average; the recorded decisions are uniform draws."""
    rng = random.Random(0)
    rows, now_s = ["arrival_s,origin,input_mbit,result_mbit,gcycles_per_step,steps,server,customer"], 0.0
    for _ in range(200):
        now_s += rng.expovariate(2.0)
        origin = rng.choice(["0", "1", ""])  # empty: it came to a common dispatcher
        work = f"0.25,{rng.choice([20, 28, 50])}"
        server, customer = rng.randrange(2), rng.choice(["ann", "ben"])
        rows.append(f"{now_s:.3f},{origin},{rng.uniform(2, 5):.2f},0.8,{work},{server},{customer}")
    path.write_text("\n".join(rows) + "\n")


def main() -> None:
    torch.set_num_threads(1)
    scenario = Scenario(slot_s=1.0, servers=(Server(20.0, 450.0, name="big"), Server(8.0, 480.0, name="small")))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tasks.csv"
        write_tasks(path)
        tasks = TaskList.read(path, scenario, decisions=True)
    runs = {"recorded": replay(scenario, tasks)}
    for name in ("round-robin", "least-work", "opt-ts"):
        runs[name] = replay(scenario, tasks, make_policy(name, scenario), name=name)
    for name, run in runs.items():
        figures = run.to_dict()
        on_small = (run.server == 1).mean()
        mean, p99 = figures["mean_delay_s"], figures["p99_delay_s"]
        print(f"{name:12} mean {mean:6.2f} s, 99 % {p99:6.2f} s, {on_small:4.0%} of the tasks on 'small'")
    print(f"{len(tasks)} tasks, load {runs['recorded'].load:.2f}; the first two lines of the file that opt-ts leaves:")
    print("\n".join(tasks.to_csv(runs["opt-ts"].server.tolist(), runs["opt-ts"].delay_s.tolist()).splitlines()[:2]))


if __name__ == "__main__":
    main()
