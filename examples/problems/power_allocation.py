"""Share power out over channels by a diffusion policy, beside water filling; `--full` trains until it is within 2 %."""

from __future__ import annotations

import sys

import torch
from torchrl.envs.utils import ExplorationType, set_exploration_type

from diffpolicy.evaluation.results import Result
from diffpolicy.experiments import evaluate, train

SETTINGS = {"updates": 4, "batch_size": 256, "start_after": 1000, "tau": 0.02}
"""What of `d2sac` is set otherwise: more updates of what was seen, since what is seen is cheap here."""


def trained(full: bool = False) -> Result:
    """A trained policy's figures, on 64 episodes of 32 decisions."""
    run = train("power-allocation", "d2sac", episodes=960 if full else 64, environments=32, changes=SETTINGS)
    with set_exploration_type(ExplorationType.DETERMINISTIC):  # trained with chance, it decides without
        return evaluate("power-allocation", {"d2sac": run.policy}, episodes=64).results["d2sac"]


def main() -> None:
    torch.set_num_threads(1)
    print(evaluate("power-allocation", ["equal-power", "proportional", "water-filling"], episodes=64).table())
    costs = trained("--full" in sys.argv).costs
    print(f"d2sac loses {costs.mean:.2f} % of water filling's rate")


if __name__ == "__main__":
    main()
