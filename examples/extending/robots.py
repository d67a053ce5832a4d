"""A masked joint action: two robots fetch from four shelves at once, and two at one shelf block each other.

Which ways are open changes at every step. Each robot's nearest shelf is a rule of single items; the best pair of
shelves is what a joint policy is to learn. In this folder `diffpolicy train d2sac-plus --problem robots:problem --set
items=joint` trains it; `python robots.py --episodes 192` does, and compares.
"""

from __future__ import annotations

import argparse

import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.data import Binary, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from diffpolicy import EnvProblem
from diffpolicy.evaluation import evaluate
from diffpolicy.experiments import train

ROBOTS, SHELVES, STEPS, BLOCKED = 2, 4, 20, 2.0


class Robots(EnvBase):
    """Observes all ways `[batch, 2, 4]` and which are open; the reward is that of both robots."""

    def __init__(self, batch: int, seed: int = 0) -> None:
        super().__init__(batch_size=[batch])
        lead = (batch, ROBOTS)
        shown = {
            "observation": Unbounded((*lead, SHELVES)),
            "action_mask": Binary(SHELVES, (*lead, SHELVES), dtype=torch.bool),
        }
        self.observation_spec = Composite(shown, shape=(batch,))
        self.action_spec, self.reward_spec = Categorical(SHELVES, lead), Unbounded((batch, 1))
        self.set_seed(seed)

    def _set_seed(self, seed: int | None) -> None:
        self.generator = torch.Generator().manual_seed(seed or 0)

    def _reset(self, tensordict: TensorDictBase | None = None, **_: object) -> TensorDict:
        way, may = torch.rand(2, *self.batch_size, ROBOTS, SHELVES, generator=self.generator)
        may = may < 0.7
        may[..., 0] = True
        again = None if tensordict is None else tensordict.get("_reset", None)
        if again is not None:  # lanes that have not ended keep theirs
            way, may = (torch.where(again.unsqueeze(-1), new, old) for new, old in ((way, self.way), (may, self.may)))
        self.way, self.may = way, may
        done = torch.zeros(*self.batch_size, 1, dtype=torch.bool)
        state = {"observation": way.clone(), "action_mask": may.clone(), "done": done, "terminated": done.clone()}
        return TensorDict(state, self.batch_size)

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        action = tensordict["action"]
        ways = self.way.gather(-1, action.unsqueeze(-1)).sum((-1, -2))
        blocked = BLOCKED * (action[:, 0] == action[:, 1])
        return self._reset().set("reward", -(ways + blocked).unsqueeze(-1))


def nearest(td: TensorDictBase) -> TensorDictBase:
    """Each robot its nearest shelf."""
    return td.set("action", td["observation"].masked_fill(~td["action_mask"], torch.inf).argmin(-1))


def best_pair(td: TensorDictBase) -> TensorDictBase:
    """The pair of shelves that costs least, which is the optimum as ways are drawn anew at each step."""
    first, second = td["observation"].masked_fill(~td["action_mask"], torch.inf).unbind(-2)
    pair = first.unsqueeze(-1) + second.unsqueeze(-2) + BLOCKED * torch.eye(SHELVES)
    number = pair.flatten(-2).argmin(-1)
    return td.set("action", torch.stack([number // SHELVES, number % SHELVES], -1))


problem = EnvProblem(Robots, steps=STEPS, rules={"nearest": nearest, "best-pair": best_pair}, cost="way")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="d2sac-plus")
    parser.add_argument("--items", default="joint", choices=["joint", "independent"])
    parser.add_argument("--episodes", type=int, default=32)
    parser.add_argument("--environments", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    run = train(
        problem,
        options.method,
        episodes=options.episodes,
        environments=options.environments,
        seed=options.seed,
        changes={"items": options.items},
    )
    print(f"{run.updates} updates")
    print(
        evaluate(problem, {options.method: run.policy, "nearest": nearest, "best-pair": best_pair}, episodes=64).table()
    )
