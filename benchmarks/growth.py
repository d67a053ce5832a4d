"""How costs grow: a decision and an update, from 20 to 1,000 servers and from 10 to 500 tasks a station and slot.

python benchmarks/growth.py --out docs/_static/growth.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

import pictures
from diffpolicy.edge import OffloadingEnv, Scenario, Server, Stream, Workload
from diffpolicy.experiments.method_names import make_method
from diffpolicy.training.fit import no_denormals
from timing import interleaved, machine, table, write_csv

STATIONS = 20


def scenario(servers: int, tasks: int) -> Scenario:
    """Twenty stations; capacities and tasks of lad-ts's laws."""
    rng = np.random.default_rng(0)
    fleet = tuple(
        Server(float(f), float(v))
        for f, v in zip(rng.integers(10, 51, servers), rng.integers(400, 501, servers), strict=True)
    )
    workload = Workload(
        tasks_per_station_and_slot=(tasks, tasks),
        input_mbit=(2.0, 5.0),
        gcycles_per_step=tuple(rng.uniform(0.1024, 0.3072, tasks)),
        steps=tuple(int(z) for z in rng.integers(1, 15, tasks)),
        result_mbit=tuple(rng.uniform(0.6, 1.0, tasks)),
    )
    return Scenario(1.0, fleet, 59, tuple(range(STATIONS)), workload)


def costs(method: str, servers: int, tasks: int, rounds: int) -> tuple[float, float]:
    """Microseconds of a decision in a rollout, and milliseconds of an update of all agents."""
    chosen = scenario(servers, tasks)
    env = OffloadingEnv(chosen, [1], stream=Stream.TRAINING)
    module = make_method(method).build(env, episode_steps=chosen.slots)
    stream = module.stream
    for _ in range(max(2, -(-400 // tasks))):
        rows = module.transitions(stream.rollout())
        module.replay.extend(rows, agent_dim=1)

    def update() -> None:
        losses = module.objective(module.replay.sample(module.batch_size))
        sum(v for k, v in losses.items() if k.startswith("loss")).backward()
        module.objective.update_targets()

    times = interleaved({"slot": stream.rollout, "update": update}, rounds=rounds, seconds=0.2)
    return 1e6 * times["slot"] / (STATIONS * tasks), 1e3 * times["update"]


def main() -> None:
    """Measures, prints, and draws both curves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="lad-ts")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/growth.csv"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    by_servers = [(servers, 50) for servers in (20, 50, 100, 200, 500, 1000)]
    by_tasks = [(20, tasks) for tasks in (10, 20, 50, 100, 200, 500)]
    with no_denormals():
        measured = {pair: costs(options.method, *pair, options.rounds) for pair in dict.fromkeys(by_servers + by_tasks)}
    lines = [[str(s), str(n), f"{d:.2f}", f"{u:.2f}"] for (s, n), (d, u) in measured.items()]
    print(f"{options.method}, {STATIONS} stations; {machine()}")
    columns = ["servers", "tasks a station and slot", "us a decision", "ms an update of 20 agents"]
    print(table(columns, lines))
    for name, pairs, kind in (("servers", by_servers, 0), ("tasks", by_tasks, 1)):
        x = np.log([pair[kind] for pair in pairs])
        slot = np.log([measured[pair][0] * pair[1] for pair in pairs])
        update = np.log([measured[pair][1] for pair in pairs])
        slopes = [np.polyfit(x, y, 1)[0] for y in (slot, update)]
        print(f"cost of a slot's decisions ~ {name}^{slopes[0]:.2f}, of an update ~ {name}^{slopes[1]:.2f}")
    rows = [[*pair, *cost] for pair, cost in measured.items()]
    write_csv(options.out, [["servers", "tasks", "us_per_decision", "ms_per_update"], *rows])
    pictures.write(options.out, pictures.growth)


if __name__ == "__main__":
    main()
