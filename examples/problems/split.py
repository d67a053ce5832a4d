"""Split a vehicle's task over road-side units by a diffusion policy; `--full` trains until it is near the optimum."""

from __future__ import annotations

import sys

import torch
from torchrl.envs.utils import ExplorationType, set_exploration_type

from diffpolicy import DiffusionPolicy
from diffpolicy.evaluation.results import Result
from diffpolicy.experiments import evaluate, make_problem
from diffpolicy.objectives import PathwiseLoss
from diffpolicy.policies.heads import SimplexHead
from diffpolicy.problems import SplitRollout, soft_delay
from diffpolicy.training import PathwiseModule, fit

LANES = 8
"""Episodes of an update, of 33 decisions each."""


class Softened:
    """The mean soft delay, whose softness falls from 0.5 s to 0.01 s over the updates. Args: updates: of training."""

    def __init__(self, updates: int) -> None:
        self.updates, self.now = updates, 0

    def __call__(self, played):
        softness_s = 0.5 * (0.01 / 0.5) ** (self.now / self.updates)
        self.now += 1
        return soft_delay(played["end_s"], softness_s).mean()


def trained(full: bool = False) -> Result:
    """A trained policy's figures, on 64 episodes of 32 vehicles."""
    updates = 10_000 if full else 60
    env = make_problem("split").make_env(LANES, seed=0)
    policy = DiffusionPolicy.from_specs(
        env,
        steps=3,
        prediction="x0",
        sampler="ddim",
        head=SimplexHead(draw="argmax"),
        denoiser={"hidden": [128, 128], "act": "mish"},
    )
    loss = PathwiseLoss(policy, Softened(updates))
    module = PathwiseModule(policy, loss, SplitRollout(env), learning_rates={"actor": 4e-3}, anneal=updates)
    fit(module, episodes=LANES * updates)
    with set_exploration_type(ExplorationType.DETERMINISTIC):  # trained with noise, it decides without
        return evaluate("split", {"pathwise": policy}, episodes=64, baseline="best-split").results["pathwise"]


def main() -> None:
    torch.set_num_threads(1)
    print(evaluate("split", ["best-unit", "equal-split", "best-split"], episodes=64).table())
    result = trained("--full" in sys.argv)
    print(f"pathwise: {result.costs.mean:.3f} s, {result.ratio:.3f} times the best split")


if __name__ == "__main__":
    main()
