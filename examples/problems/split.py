"""Split a vehicle's task over road-side units by a diffusion policy; `--full` trains until it is near the optimum."""

from __future__ import annotations

import sys

import torch
from torchrl.envs.utils import ExplorationType, set_exploration_type

from diffpolicy.evaluation.results import Result
from diffpolicy.experiments import evaluate, train

SETTINGS = {
    "updates": 4,
    "batch_size": 256,
    "start_after": 1000,
    "tau": 0.02,
    "reward_scale": 1.0,
    "target_entropy": -15.0,
    "learning_rates.alpha": 0.003,
}
"""What of `d2sac` is set otherwise: more updates of what was seen, seconds as they are, less chance in the end."""


def trained(full: bool = False) -> Result:
    """A trained policy's figures, on 64 episodes of 32 vehicles."""
    run = train("split", "d2sac", episodes=1920 if full else 64, environments=32, changes=SETTINGS)
    with set_exploration_type(ExplorationType.DETERMINISTIC):  # trained with chance, it decides without
        return evaluate("split", {"d2sac": run.policy}, episodes=64, baseline="best-split").results["d2sac"]


def main() -> None:
    torch.set_num_threads(1)
    print(evaluate("split", ["best-unit", "equal-split", "best-split"], episodes=64).table())
    result = trained("--full" in sys.argv)
    print(f"d2sac: {result.costs.mean:.3f} s, {result.ratio:.3f} times the best split")


if __name__ == "__main__":
    main()
