"""The simulator against real workers: the same arrivals on both, and the gap of their delays.

Two workers run a tiny Stable Diffusion 3 pipeline on the CPU at different sizes, each on one thread and a core of its
own; a third sleeps for the times of a published profile. The two are profiled while both are busy, calibrated, and then
serve the same requests as the simulated ones do, under the same rule.

python benchmarks/simulator_vs_reality.py --runs 5 --requests 80 --out runs/simulator_vs_reality
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

import pictures
from diffpolicy import _signals
from timing import table, write_csv

SIZES = {"cpu-small": (64, 64), "cpu-large": (128, 128)}
STEPS = (8, 16, 32)
PUBLISHED = "mlenergy-h100-sd3-medium"
NOMINAL = (1024, 1024)
"""What requests ask for; each worker answers in its own size."""


def attend(parent: int, worker: Callable[..., None], *arguments: Any) -> None:
    """A worker's process. Args: parent: process id of who asks, with whom it ends, amid a request too."""
    _signals.end_with(parent)
    worker(*arguments)


def work(pipe: Connection, size: tuple[int, int], core: int, profile_steps: tuple[int, ...], repeats: int) -> None:
    """A worker's process: measures itself, sends its profile, then serves until it is told None."""
    import torch

    from diffpolicy.edge.hardware.adapters.diffusers_ import DiffusersAdapter
    from diffpolicy.edge.hardware.measuring.grid import Grid
    from diffpolicy.edge.hardware.measuring.profiler import profile
    from diffpolicy.edge.hardware.server_adapter import GenerateRequest

    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    grid = Grid(steps=profile_steps, sizes=(size,), batches=(1,), repeats=repeats)
    pipe.send(profile(DiffusersAdapter("tiny", device="cpu"), grid).to_dict())
    adapter = DiffusersAdapter("tiny", device="cpu")
    adapter.start()
    adapter.generate(GenerateRequest("warm", *size, STEPS[0]))
    pipe.send("ready")
    while (steps := pipe.recv()) is not None:
        adapter.generate(GenerateRequest("a lighthouse", *size, steps))
        pipe.send(steps)


def sleep(pipe: Connection, scatter: float) -> None:
    """The third worker's process: sleeps as long as a published profile says, over `SPEEDUP`."""
    from diffpolicy.edge.hardware.schema.server_profile import ServerProfile

    published = ServerProfile.load(PUBLISHED)
    rng = np.random.default_rng(7)
    pipe.send("ready")
    while (steps := pipe.recv()) is not None:
        time.sleep(published.service_s(*NOMINAL, steps) / SPEEDUP * float(np.exp(scatter * rng.standard_normal())))
        pipe.send(steps)


SPEEDUP = 4.0
"""How many times as fast as the published profile the third worker sleeps, so that it is of the others' order."""
SCATTER = 0.05


class Dispatcher:
    """Sends each request to where it would end first, by the calibrated times; real ends correct what it believes."""

    def __init__(self, pipes: list[Connection], seconds: np.ndarray) -> None:
        self.pipes, self.seconds = pipes, seconds
        self.waiting: list[list[tuple[int, int]]] = [[] for _ in pipes]
        self.began_s = [0.0] * len(pipes)

    def backlog_s(self, a: int, now_s: float) -> float:
        """Seconds until a worker would be idle."""
        queue = [self.seconds[kind, a] for _, kind in self.waiting[a]]
        return max(sum(queue) - (now_s - self.began_s[a]), 0.0) if queue else 0.0

    async def serve(self, arrival_s: np.ndarray, kinds: np.ndarray) -> np.ndarray:
        """Plays requests in real time. Returns their delays in seconds, `[K]`."""
        delay_s = np.zeros(len(arrival_s))
        loop, start_s = asyncio.get_running_loop(), time.perf_counter()

        async def run(a: int) -> None:
            while self.waiting[a]:
                k, kind = self.waiting[a][0]
                self.began_s[a] = time.perf_counter()
                self.pipes[a].send(STEPS[kind])
                await loop.run_in_executor(None, self.pipes[a].recv)
                delay_s[k] = time.perf_counter() - start_s - arrival_s[k]
                self.waiting[a].pop(0)

        jobs = []
        for k, (at_s, kind) in enumerate(zip(arrival_s, kinds, strict=True)):
            await asyncio.sleep(max(at_s - (time.perf_counter() - start_s), 0))
            now_s = time.perf_counter()
            finish = [self.backlog_s(a, now_s) + self.seconds[kind, a] for a in range(len(self.pipes))]
            a = int(np.argmin(finish))
            self.waiting[a].append((k, int(kind)))
            if len(self.waiting[a]) == 1:
                jobs.append(asyncio.create_task(run(a)))
        await asyncio.gather(*jobs)
        return delay_s


def believed(profiles: list[Any]) -> Any:
    """The scenario of the three workers, each answering the nominal size in its own one."""
    from diffpolicy.edge.hardware.calibration import calibrate, seconds, service_of
    from diffpolicy.edge.hardware.schema.server_profile import ServerProfile
    from diffpolicy.edge.scenario.service_times import ANY_MODEL
    from diffpolicy.edge.workload.mix import RequestType

    mix = [
        RequestType(width=NOMINAL[0], height=NOMINAL[1], steps=n, gcycles_per_step=1, input_mbit=0, result_mbit=0)
        for n in STEPS
    ]
    scenario = calibrate([*profiles, ServerProfile.load(PUBLISHED)], mix=mix, slots=10, load=0.5)
    services = [service_of(profile) for profile in profiles]
    published = service_of(ServerProfile.load(PUBLISHED))
    times = published.models[ANY_MODEL]
    faster = replace(times, step_s=tuple(s / SPEEDUP for s in times.step_s))
    services.append(replace(published, models={ANY_MODEL: faster}, scatter=SCATTER))
    nominal = NOMINAL[0] * NOMINAL[1] / 1e6
    services[:2] = [
        replace(s, models={ANY_MODEL: replace(s.models[ANY_MODEL], megapixels=(nominal,))}) for s in services[:2]
    ]
    table_s = np.stack([seconds(service, mix) for service in services], -1)
    mean_s = table_s.mean(0)
    kinds = tuple(
        replace(kind, gcycles_per_step=float(s) / kind.steps) for kind, s in zip(mix, table_s[:, 0], strict=True)
    )
    servers = tuple(
        replace(server, capacity_gcycles_per_s=float(mean_s[0] / m), service=service, rate_mbit_per_s=1e6)
        for server, m, service in zip(scenario.servers, mean_s, services, strict=True)
    )
    return replace(scenario, servers=servers, workload=replace(scenario.workload, mix=kinds)), table_s


def main() -> None:
    """Profiles, calibrates, plays both, prints and writes the gaps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--requests", type=int, default=80)
    parser.add_argument("--loads", type=float, nargs="+", default=[0.5, 0.55, 0.6, 0.65, 0.7])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/simulator_vs_reality"))
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    cores = sorted(os.sched_getaffinity(0))
    pipes, processes = [], []
    profile_steps = (4, 10, 20, 40)
    for i, size in enumerate(SIZES.values()):
        here, there = context.Pipe()
        job = (there, size, cores[i % len(cores)], profile_steps, options.repeats)
        processes.append(context.Process(target=attend, args=(os.getpid(), work, *job), daemon=True))
        pipes.append(here)
    here, there = context.Pipe()
    processes.append(context.Process(target=attend, args=(os.getpid(), sleep, there, SCATTER), daemon=True))
    pipes.append(here)
    for process in processes:
        process.start()

    from diffpolicy.edge import OffloadingEnv, make_policy
    from diffpolicy.edge.hardware.schema.server_profile import ServerProfile
    from diffpolicy.edge.workload.seeds import Stream

    profiles = [ServerProfile.from_dict(pipe.recv()) for pipe in pipes[:2]]
    for pipe in pipes:
        assert pipe.recv() == "ready"
    scenario, table_s = believed(profiles)
    options.out.mkdir(parents=True, exist_ok=True)
    names = [*SIZES, "published"]
    fits = [f"{p.fit.r2:.4f}" for p in profiles]
    print(table(["worker", *(f"{n} steps, s" for n in STEPS), "R2"],
                [[n, *(f"{x:.3f}" for x in table_s[:, a]), [*fits, ""][a]] for a, n in enumerate(names)]))  # fmt: skip
    rows = []
    for run in range(options.runs):
        load = options.loads[run % len(options.loads)]
        workload = scenario.workload.with_load(load, scenario.capacity_gcycles_per_s)
        played = replace(scenario, workload=workload, slots=options.requests)
        drawn = workload.draw(0, Stream.EVALUATION, run, options.requests, 1)
        env = OffloadingEnv(played, [1], information="live", first_episode=run)
        rollout = env.rollout(options.requests, make_policy("opt-ts", played))
        simulated = -rollout["next", "agents", "reward"].flatten().double().numpy()
        real = asyncio.run(Dispatcher(pipes, table_s).serve(drawn.arrival_s, drawn.type))
        gaps = []
        for f in (np.mean, lambda x: np.percentile(x, 95)):
            gaps += [float(f(real)), float(f(simulated)), float(f(simulated) / f(real) - 1)]
        rows.append([run, load, *gaps])
        print(f"run {run}: load {load}, mean {gaps[0]:.3f} real, {gaps[1]:.3f} simulated", flush=True)
    for pipe in pipes:
        pipe.send(None)
    columns = ["run", "load", "real mean s", "simulated", "gap", "real p95 s", "simulated p95", "gap p95"]
    shown = [
        [
            str(r[0]),
            f"{r[1]:.2f}",
            f"{r[2]:.3f}",
            f"{r[3]:.3f}",
            f"{r[4]:+.1%}",
            f"{r[5]:.3f}",
            f"{r[6]:.3f}",
            f"{r[7]:+.1%}",
        ]
        for r in rows
    ]
    print(table(columns, shown))
    print(
        f"median gap of the mean {np.median(np.abs([r[4] for r in rows])):.1%}, "
        f"of p95 {np.median(np.abs([r[7] for r in rows])):.1%}"
    )
    write_csv(options.out / "simulator_vs_reality.csv", [columns, *rows])
    pictures.write(options.out / "simulator_vs_reality.csv", pictures.reality)


if __name__ == "__main__":
    main()
