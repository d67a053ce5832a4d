"""Does `lad-ts-released` learn as the released code does? Ten-episode means over seeds, beside its curve.

The released curves were measured by running the released scripts themselves for 60 episodes, once (they seed nothing):
LAD-TS 12.8, 10.0, 9.4, 8.8, 8.6, 8.7 s; SAC-TS 21.4, 15.8, 14.7, 15.1, 12.4, 11.1 s.

    python benchmarks/released_curve.py --seeds 4 --processes 2 --out docs/_static/released_curve
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch

import pictures
from diffpolicy import _signals


def curve(job: tuple[str, int, int]) -> list[float]:
    """Mean delay of each training episode, seconds."""
    from diffpolicy.edge import Scenario
    from diffpolicy.edge.training import train

    method, seed, episodes = job
    torch.set_num_threads(1)
    history = train(method, Scenario.load("lad-ts"), episodes=episodes, seed=seed).history
    return [row["delay_s"] for row in history]


def main() -> None:
    """Trains, prints, draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default="lad-ts-released,sac-ts")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/released_curve"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    methods = options.methods.split(",")
    start = time.monotonic()
    jobs = [(method, seed, options.episodes) for method in methods for seed in range(options.seeds)]
    with ProcessPoolExecutor(
        options.processes, multiprocessing.get_context("spawn"), _signals.end_with, (os.getpid(),)
    ) as pool:
        results = list(pool.map(curve, jobs))
    with (options.out / "curves.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["method", "seed", "episode", "delay_s"])
        for (method, seed, _), values in zip(jobs, results, strict=True):
            writer.writerows([method, seed, k + 1, value] for k, value in enumerate(values))
    for method in methods:
        mine = [values for job, values in zip(jobs, results, strict=True) if job[0] == method]
        means = np.array([np.reshape(values[: len(values) // 10 * 10], (-1, 10)).mean(1) for values in mine])
        spread = means.std(0, ddof=1) if len(means) > 1 else np.full(means.shape[1], np.nan)
        print(f"{method}: ten-episode means in seconds, {len(means)} seeds")
        print("  ours      ", " ".join(f"{m:6.2f}" for m in means.mean(0)))
        print("  s.d. seeds", " ".join(f"{s:6.2f}" for s in spread))
        print("  released  ", " ".join(f"{r:6.2f}" for r in pictures.RELEASED[method]))
        if method == "lad-ts-released":
            pictures.write(options.out / "curves.csv", pictures.released)
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
