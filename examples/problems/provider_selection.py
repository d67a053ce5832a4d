"""Which provider serves each user: a diffusion policy between chance and a clairvoyant; `--full` trains long."""

from __future__ import annotations

import argparse

import torch
from torchrl.envs.utils import ExplorationType, set_exploration_type

from diffpolicy.experiments import evaluate, train
from diffpolicy.problems import ProviderSelection

SETTINGS = {
    "updates": 2,
    "batch_size": 256,
    "gamma": 0.0,
    "reward_scale": 1.0,
    "entropy_share": 0.15,
    "learning_rates.alpha": 0.003,
}
"""What of `d2sac` is set otherwise: two updates a step, no sight beyond the moment, since all is paid at once,
utilities as they are, less chance."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--providers", type=int, default=0, help="which draw of them")
    options = parser.parse_args()
    torch.set_num_threads(1)
    problem = ProviderSelection(options.providers)
    if not options.full:
        problem.steps = 60  # the beginning of an episode, so that it takes seconds
    run = train(problem, "d2sac", episodes=144 if options.full else 32, environments=16, changes=SETTINGS)
    rules = evaluate(problem, [*problem.rules(), "random"], episodes=16)
    with set_exploration_type(ExplorationType.DETERMINISTIC):  # trained with chance, it decides without
        ours = evaluate(problem, {"d2sac": run.policy}, episodes=16)
    means = {name: -row.costs.mean for name, row in {**rules.results, **ours.results}.items()}
    worst, best = means["random"], means["clairvoyant"]
    for name, mean in means.items():
        print(f"{name:<24} {mean:8.1f} {(mean - worst) / (best - worst):8.3f}")


if __name__ == "__main__":
    main()
