"""How fast a policy acts in the TorchRL environment: valid decisions per second, what padding costs, where time goes.

python benchmarks/rollout.py
python benchmarks/rollout.py --environments 1,8,64 --processes 2
python benchmarks/rollout.py --environments 1,128 --slots 8 --csv docs/_static/rollout.csv
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from diffpolicy import _signals
from diffpolicy.edge import OffloadingEnv, Scenario, Stream
from diffpolicy.edge.physics.queueing import next_queue_gcycles, slot_delays_s, work_sent_gcycles
from diffpolicy.experiments.method_names import make_method
from diffpolicy.policies.rows import in_blocks
from diffpolicy.training.fit import no_denormals
from timing import machine, peak_mib, table, write_csv


def setting(method: str, environments: int) -> tuple[Any, Any]:
    """A module of a method on so many environments, past its first slots."""
    scenario = Scenario.load("lad-ts")
    env = OffloadingEnv(scenario, [environments], stream=Stream.TRAINING)
    module = make_method(method).build(env, episode_steps=scenario.slots)
    for _ in range(3):
        module.stream.rollout()
    return module, env


def speed(job: tuple[str, int, int, float]) -> tuple[float, float, float, float, float]:
    """Decisions a second and a CPU second (medians over slots), rows of a decision, the same unpacked, peak MiB."""
    method, environments, slots, start_at = job
    torch.set_num_threads(1)
    module, _ = setting(method, environments)
    rates, of_cpu, worked, grid, valid = [], [], 0, 0, 0
    time.sleep(max(0.0, start_at - time.time()))
    with no_denormals():
        for _ in range(slots):
            start, used = time.perf_counter(), time.process_time()
            rollout = module.stream.rollout()
            seconds, used = time.perf_counter() - start, time.process_time() - used
            mask = rollout["agents", "valid"].squeeze(1)
            rates.append(int(mask.sum()) / seconds)
            of_cpu.append(int(mask.sum()) / used)
            rows = module.policy.rows(rollout.squeeze(1))
            worked, grid, valid = worked + rows.count, grid + mask.numel(), valid + int(mask.sum())
    return median(rates), median(of_cpu), worked / valid, grid / valid, peak_mib()


def shares(method: str, environments: int, slots: int) -> dict[str, float]:
    """CPU milliseconds of a slot by what they are spent on."""
    module, env = setting(method, environments)
    policy, stream, total = module.policy, module.stream, 0.0
    spent = {"network": 0.0, "noise": 0.0, "environment": 0.0}

    def timed(key: str, call: Any) -> Any:
        start = time.process_time()
        result = call()
        spent[key] += time.process_time() - start
        return result

    with torch.no_grad(), no_denormals():
        for _ in range(slots):
            rows = policy.rows(stream.root)
            condition = rows.take(policy.observe(stream.root)).float()
            latent = policy.read_latent(stream.root, rows)
            noise = timed("noise", lambda shape=condition.shape[:-1]: policy.noise(shape))
            timed("network", lambda c=condition, x=latent, z=noise: in_blocks(policy.end, policy.condition(c), x, z))
            start = time.process_time()
            rollout = stream.rollout()
            total += time.process_time() - start
            action, root = rollout["agents", "action"].squeeze(1), rollout.squeeze(1)

            def physics(action: torch.Tensor = action, root: Any = root) -> None:
                grid = env.source.slot(env._episode, env._slot)
                server, tasks = grid.pack(action), grid.in_order()
                slot_delays_s(server, tasks, root["queue_gcycles"], env.fleet)
                sent = work_sent_gcycles(server, tasks.work_gcycles, root["queue_gcycles"].shape[-1])
                next_queue_gcycles(root["queue_gcycles"], sent, env.fleet, grid.duration_s)

            timed("environment", physics)
    each = {key: 1e3 * seconds / slots for key, seconds in spent.items()}
    each["tensordict, TorchRL, packing"] = 1e3 * total / slots - sum(each.values())
    return each


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="lad-ts")
    parser.add_argument("--environments", default="1,8,64,128")
    parser.add_argument("--slots", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--csv", type=Path, help="write the first table there too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = [int(n) for n in options.environments.split(",")]
    context = multiprocessing.get_context("spawn")
    rows = []
    for size in sizes:
        with context.Pool(1, _signals.end_with, (os.getpid(),)) as pool:
            rate, of_cpu, worked, grid, peak = pool.map(speed, [(options.method, size, options.slots, 0.0)])[0]
        shown = [f"{rate:,.0f}", f"{of_cpu:,.0f}", f"{1 - 1 / grid:.0%}", f"{1 - 1 / worked:.0%}", f"{peak:.0f}"]
        rows.append([str(size), "1", *shown])
    size = sizes[-1]
    with context.Pool(options.processes, _signals.end_with, (os.getpid(),)) as pool:
        at = time.time() + 15
        together = pool.map(speed, [(options.method, size, 2 * options.slots, at)] * options.processes, chunksize=1)
    rate, of_cpu = (sum(each[k] for each in together) for k in (0, 1))
    rows.append([str(size), str(options.processes), f"{rate:,.0f}", f"{of_cpu:,.0f}", *rows[-1][4:6], ""])
    print(f"{options.method} in lad-ts, medians over {options.slots} slots; {machine()}")
    columns = ["environments", "processes", "decisions a second", "of CPU time", "padding", "packed", "peak MiB"]
    print(table(columns, rows))
    print()
    if options.csv:
        write_csv(options.csv, [columns, *rows])
    parts = {size: shares(options.method, size, options.slots) for size in (sizes[0], sizes[-1])}
    names = list(parts[sizes[0]])
    lines = [[name, *(f"{p[name]:.2f} ms, {p[name] / sum(p.values()):.0%}" for p in parts.values())] for name in names]
    print(table(["where a slot's CPU time goes", *(f"{n} environments" for n in parts)], lines))


if __name__ == "__main__":
    main()
