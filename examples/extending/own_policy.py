"""A policy of your own for the offloading problem: any tensordict module that writes `("agents", "action")`.

On the command line, in this folder: `diffpolicy evaluate own_policy:policy opt-ts`.
"""

from __future__ import annotations

import sys

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase

from diffpolicy.cli import main as cli
from diffpolicy.edge import Scenario


class SmallApart(TensorDictModuleBase):
    """Keeps small tasks away from large ones: each server takes tasks of like size, in proportion to its capacity.

    A station sorts its tasks by work. The one at the share u of the station's work goes to the server at which the
    running share of capacities, slowest server first, passes u^0.9: a power below 1 gives the small tasks more capacity
    than their share of the work, and the large ones less. (0.9 is the best of a few values that were tried on these
    very episodes.)
    """

    information = "stale"  # the level of the keys that it may read; "paper" for a module that does not say

    def __init__(self, power: float = 0.9) -> None:
        super().__init__()
        self.power = power
        self.in_keys = [("agents", "work_gcycles"), ("servers", "capacity_gcycles_per_s")]
        self.out_keys = [("agents", "action")]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Sets the action, int64 `[E, B, N]`; what it holds where there is no task means nothing."""
        work, order = tensordict["agents", "work_gcycles"].sort(-1)
        share = (work.cumsum(-1) - work / 2) / work.sum(-1, keepdim=True).clamp_min(1e-9)
        capacity, server = tensordict["servers", "capacity_gcycles_per_s"].sort(-1)
        passed = capacity.cumsum(-1) / capacity.sum(-1, keepdim=True)
        place = torch.searchsorted(passed, (share**self.power).flatten(1)).clamp_max(capacity.shape[-1] - 1)
        chosen = server.gather(-1, place).view(order.shape)
        return tensordict.set(("agents", "action"), torch.empty_like(chosen).scatter(-1, order, chosen))


def policy(scenario: Scenario) -> SmallApart:
    """What `own_policy:policy` names: called with the scenario. A module itself would do as well."""
    return SmallApart()


def main() -> int:
    """The same as the command line; note what the largest tasks pay for the better mean."""
    return cli.main(["evaluate", "own_policy:policy", "opt-ts", "capacity-proportional", "--episodes", "2"])


if __name__ == "__main__":
    sys.exit(main())
