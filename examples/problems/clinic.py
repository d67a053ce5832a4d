"""Train a diffusion policy on the clinic, whose best rule is known; `--full` trains eight times as long."""

from __future__ import annotations

import sys

import torch

from diffpolicy.experiments import evaluate, train


def main() -> None:
    torch.set_num_threads(1)
    run = train("clinic", "d2sac", episodes=1024 if "--full" in sys.argv else 128, environments=32)
    rules = {"random": "random", "dearest-first": "dearest-first"}
    print(evaluate("clinic", list(rules), episodes=64).table())
    print(evaluate("clinic", {"d2sac": run.policy}, episodes=64).table())


if __name__ == "__main__":
    main()
