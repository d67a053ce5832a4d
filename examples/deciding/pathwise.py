"""Better decisions than the greedy rule's, by the gradient of whole episodes: a table from a task's size to chances.

The fluid form replaces each task by its chances of going to each server, so the mean delay of an episode has a
gradient. A table that reads a task's work and nothing else then finds out by itself that small tasks must not stand
behind large ones. What the largest tasks pay for it is printed too, and so is what exact credit says of the rule.
"""

from __future__ import annotations

import torch

from diffpolicy.edge import OffloadingEnv, Scenario, evaluate, make_policy
from diffpolicy.edge.credit.externality import externality_s
from diffpolicy.edge.credit.objectives import mean_delay_s
from diffpolicy.edge.fluid.rollout import FluidRollout
from diffpolicy.edge.fluid.size_table import SizeTable, size_edges
from diffpolicy.objectives import PathwiseLoss
from diffpolicy.training import PathwiseModule
from diffpolicy.training.fit import fit

UPDATES = 60


def main() -> None:
    torch.set_num_threads(1)
    scenario = Scenario.load("lad-ts")

    opt_ts = make_policy("opt-ts", scenario)
    rollout = OffloadingEnv(scenario, information="live").rollout(scenario.slots, opt_ts)
    own, valid = -rollout["next", "agents", "reward"], rollout["agents", "valid"]
    others = externality_s(rollout)
    print(
        f"a task under opt-ts waits {own[valid].mean():.1f} s, and makes the others wait {others[valid].mean():.0f} s"
    )

    fluid = FluidRollout(scenario, batch_size=1, slots=(40, 80))
    table = SizeTable.from_specs(fluid.env, edges=size_edges(scenario, 16))
    loss = PathwiseLoss(table, mean_delay_s)
    module = PathwiseModule(table, loss, fluid, learning_rates={"actor": 1.0}, anneal=UPDATES)
    fitted = fit(module, episodes=UPDATES)
    costs = [row["cost"] for row in fitted.history]
    print("mean delay of every tenth training episode, s:", *(f"{cost:.1f}" for cost in costs[::10]))

    for slots in (59, 120):
        policies = {"opt-ts": opt_ts, "table": table}
        evaluation = evaluate(policies, scenario.override(slots=slots), episodes=2)
        for name, result in evaluation.results.items():
            d = result.delays
            figures = f"mean {d.mean_delay_s:5.2f} s, p95 {d.p95_delay_s:5.1f} s, max {d.max_delay_s:5.1f} s"
            print(f"{slots:3} slots, load {evaluation.load:.2f}: {name:6} {figures}, ratio {result.ratio:.3f}")


if __name__ == "__main__":
    main()
