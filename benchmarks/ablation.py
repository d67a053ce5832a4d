"""What makes `lad-ts-plus`: every change to `lad-ts` alone, and `lad-ts-plus` without it; five seeds each.

python benchmarks/ablation.py --episodes 60 --seeds 5 --processes 2 --out docs/_static/ablation.csv
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffpolicy import _signals
from diffpolicy.edge import Scenario, make_policy, play_episodes
from diffpolicy.edge.env.transitions import released_transitions
from diffpolicy.edge.training import build
from diffpolicy.evaluation import student_t
from diffpolicy.experiments.method_names import make_method
from diffpolicy.training.fit import fit
from timing import table, write_csv

RATES = {"actor": 3e-4, "critic": 3e-3, "alpha": 0.0}
MEMORY = {"type": "ActionMemory", "key": "item", "store": "probabilities", "start": "uniform", "lifetime": "run"}
X0_MEMORY = {**MEMORY, "store": "x0", "start": "normal"}
SHARED = {"share_parameters": True, "capacity": 20_000, "batch_size": 1280, "start_after": 6000}

PARTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "normalised observations": ({"normalize": True}, {"normalize": False}),
    "rewards x 0.1": ({"reward_scale": 0.1}, {"reward_scale": 1.0}),
    "fixed temperature 0.03": (
        {"alpha": 0.03, "learning_rates": {"actor": 1e-4, "critic": 1e-3, "alpha": 0.0}},
        {"alpha": 0.05, "learning_rates": {**RATES, "alpha": 3e-4}},
    ),
    "rates 3e-4 and 3e-3": (
        {"learning_rates": {**RATES, "alpha": 3e-4}},
        {"learning_rates": {"actor": 1e-4, "critic": 1e-3, "alpha": 0.0}},
    ),
    "x0 predicted, linear": (
        {"prediction": "x0", "denoiser_output": "linear"},
        {"prediction": "noise", "denoiser_output": "softmax"},
    ),
    "sampler ddim": ({"sampler": "ddim"}, {"sampler": "ddpm"}),
    "probabilities remembered": ({"prior": MEMORY}, {"prior": X0_MEMORY}),
    "a server drawn": ({"draw": "sample"}, {"draw": "argmax"}),
}
"""Part of lad-ts-plus: what it changes in lad-ts, and what takes it out of lad-ts-plus."""

OTHERS: dict[str, dict[str, Any]] = {
    "tanh head": {"denoiser_output": "tanh", "prediction": "noise"},
    "target entropy 0.8 log A": {
        "target_entropy": "share",
        "entropy_share": 0.8,
        "learning_rates": {**RATES, "alpha": 1e-3},
    },
    "marginal entropy, 4 chains": {"entropy": "marginal", "entropy_samples": 4, "sampler": "ddpm"},
    "critics read the latent": {"critic_latent": True},
    "memory forgotten at resets": {"prior": {**MEMORY, "lifetime": "episode"}},
    "no memory (Gaussian prior)": {"prior": {"type": "GaussianPrior"}},
    "zeros between slots": {"transitions": released_transitions},
    "3 updates a slot": {"updates": 3},
    "shared parameters": SHARED,
    "discount 0": {"gamma": 0.0},
}
"""Further changes to lad-ts-plus, which it does not have."""


def variants() -> dict[str, tuple[str, dict[str, Any]]]:
    """Preset and changes of every row."""
    rows: dict[str, tuple[str, dict[str, Any]]] = {"lad-ts": ("lad-ts", {})}
    rows |= {f"lad-ts + {name}": ("lad-ts", change) for name, (change, _) in PARTS.items()}
    rows |= {name: (name, {}) for name in ("lad-ts-plus", "plus-one-step", "plus-no-chain")}
    rows |= {f"lad-ts-plus - {name}": ("lad-ts-plus", back) for name, (_, back) in PARTS.items()}
    rows |= {f"lad-ts-plus + {name}": ("lad-ts-plus", change) for name, change in OTHERS.items()}
    return rows


def run(job: tuple[str, int, int, int]) -> tuple[float, float]:
    """Mean evaluation delay in seconds of a variant and seed, and the seconds that its training took."""
    name, seed, episodes, eval_episodes = job
    torch.set_num_threads(1)
    preset, changes = variants()[name]
    scenario = Scenario.load("lad-ts")
    module = build(preset, scenario, seed=seed, changes=changes)
    start = time.monotonic()
    fit(module, episodes=episodes)
    seconds = time.monotonic() - start
    return float(play_episodes(scenario, module.policy, eval_episodes).cost.mean()), seconds


def lines(results: dict[str, list[tuple[float, float]]], base: float) -> list[list[str]]:
    """A row for each variant that has results: name, seeds, mean ratio, half-width, worst ratio, training seconds."""
    rows = []
    for name, mine in results.items():
        if not mine:
            continue
        ratios, n = np.array([delay for delay, _ in mine]) / base, len(mine)
        half = f"{student_t(n - 1) * ratios.std(ddof=1) / n**0.5:.4f}" if n > 1 else ""
        seconds = np.mean([s for _, s in mine])
        rows.append([name, str(n), f"{ratios.mean():.4f}", half, f"{ratios.max():.4f}", f"{seconds:.1f}"])
    return rows


def main() -> None:
    """Trains everything, seed after seed, and prints and writes the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--eval-episodes", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no training after this time")
    parser.add_argument("--only", help="rows whose names hold this text")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation.csv"))
    options = parser.parse_args()
    scenario, start = Scenario.load("lad-ts"), time.monotonic()
    base = float(play_episodes(scenario, make_policy("opt-ts", scenario), options.eval_episodes).cost.mean())
    names = [name for name in variants() if options.only is None or options.only in name]
    for preset, changes in variants().values():  # a slip in a change shows before anything is trained
        assert all(hasattr(make_method(preset), key) for key in changes)
    jobs = [(name, seed, options.episodes, options.eval_episodes) for seed in range(options.seeds) for name in names]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    columns = ["variant", "seeds", "ratio", "ci95", "worst", "train_s"]
    waiting: dict[Any, str] = {}
    with ProcessPoolExecutor(
        options.processes, multiprocessing.get_context("spawn"), _signals.end_with, (os.getpid(),)
    ) as pool:
        while jobs or waiting:
            while jobs and len(waiting) < options.processes and time.monotonic() - start < 60 * options.minutes:
                job = jobs.pop(0)
                waiting[pool.submit(run, job)] = job[0]
            if not waiting:
                break
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                name = waiting.pop(future)
                results[name].append(future.result())
                print(f"{time.monotonic() - start:5.0f} s  {name}: {results[name][-1][0] / base:.3f}", flush=True)
            write_csv(options.out, [columns, *lines(results, base)])
    print(f"ratio to opt-ts after {options.episodes} episodes; evaluation episodes: {options.eval_episodes}")
    print(table(columns, lines(results, base)))
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
