"""Gang scheduling: a diffusion policy beside greed; `--full` trains as long as its page says."""

from __future__ import annotations

import argparse

import torch
from torchrl.envs.utils import ExplorationType, set_exploration_type

from diffpolicy.experiments import evaluate, train

SETTINGS = {"updates": 2, "batch_size": 256, "entropy_share": 0.15, "learning_rates.alpha": 0.003}
"""What of `d2sac` is set otherwise: two updates a step, and less chance in the end."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = train(
        "gang", "d2sac", episodes=2400 if options.full else 32, environments=16, seed=options.seed, changes=SETTINGS
    )
    with set_exploration_type(ExplorationType.DETERMINISTIC):  # trained with chance, it decides without
        print(evaluate("gang", {"d2sac": run.policy}, episodes=64).table())
    print(evaluate("gang", ["greedy", "warm-first", "first-fit", "random"], episodes=64).table())


if __name__ == "__main__":
    main()
