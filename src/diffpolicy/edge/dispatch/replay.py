"""`replay_held`: a task file played once, each of whose tasks waits for a free server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from diffpolicy.edge.dispatch.holding import DEFAULT, Holding
from diffpolicy.edge.dispatch.of_scenario import arrivals_of
from diffpolicy.edge.dispatch.problem import HeldOffloadingProblem, play_held
from diffpolicy.edge.dispatch.telling import warned
from diffpolicy.edge.env.env import OffloadingEnv
from diffpolicy.edge.evaluation import Replay
from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.edge.workload.task_file import TaskList
from diffpolicy.evaluation.evaluating import naming
from diffpolicy.evaluation.playing import undisturbed
from diffpolicy.policies.protocols import Decides


@dataclass(frozen=True)
class HeldReplay(Replay):
    """A task file played once, its tasks held.

    Args:
        scenario, policy, load, server, delay_s: of `Replay`.
        holding: how. most_passes: later arrivals that were bound before a task.
        longest_refused_s: for which a task waited although a server was free that could run it.
        dead_share: dead time as a share of the service time.
    """

    holding: Holding = DEFAULT
    most_passes: int = 0
    longest_refused_s: float = 0.0
    dead_share: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As `replay --json` prints it."""
        worst = {name: getattr(self, name) for name in ("most_passes", "longest_refused_s", "dead_share")}
        return {
            **super().to_dict(),
            **self.holding.to_dict(),
            **worst,
            **warned(self.holding, {self.policy: self.dead_share}),
        }


def replay_held(
    scenario: Scenario,
    tasks: TaskList,
    policy: Decides,
    order: Holding | str = DEFAULT,
    *,
    name: str = "a policy",
    seed: int = 0,
) -> HeldReplay:
    """Plays a file's tasks, each of which waits for a free server.

    Args:
        scenario: its servers. tasks: the file's; where it has slots, a slot's tasks arrive as it begins.
        policy: says which of the free servers. order: of `make_held`, or a whole `Holding`.
        name: of the policy, for the report. seed: of what is drawn.

    Returns:
        The decision and the delay of each task, in the file's order; of one that was split, where its last image ran.

    Raises:
        InputError: the servers cannot be bound late, there is no such order, or the policy does not fit.
    """
    problem = HeldOffloadingProblem(scenario, order)
    level: Any = problem.view(policy)
    env = OffloadingEnv(scenario, [1], information=level, tasks=tasks, dtype=torch.float64)
    with naming(name), undisturbed(policy, seed):
        problem.check(policy, env)
        coming = arrivals_of(scenario, tasks=tasks, split=problem.holding.split)
        outcome, _ = play_held(policy, problem.holding, coming, env, seed)
    load = float(tasks.work_gcycles.sum() / (scenario.capacity_gcycles_per_s * tasks.duration_s.sum()))
    worst = int(outcome.passes.max()), float(outcome.refused_s.max()), outcome.dead_share
    last = outcome.server[outcome.last]
    return HeldReplay(scenario.name, name, load, last, outcome.request_delay_s, problem.holding, *worst)
