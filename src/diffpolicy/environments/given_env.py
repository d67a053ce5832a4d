"""`GivenEnv`: the problem of playing one environment that is there already."""

from __future__ import annotations

from typing import Any

from torchrl.envs import EnvBase

from diffpolicy.environments.problem import Problem, Split


class GivenEnv(Problem):
    """An environment as a problem, for those who have made theirs; no other one can be made of it.

    Args:
        env: batched. steps: of an episode; None: until it is done.
    """

    sound = True  # it cannot be made a second time to be looked at

    def __init__(self, env: EnvBase, steps: int | None) -> None:
        self.env, self.steps, self.name = env, steps, type(env).__name__

    def make_env(
        self, batch: int = 1, seed: int = 0, *, split: Split = "train", view: str | None = None, device: Any = None
    ) -> EnvBase:
        return self.env
