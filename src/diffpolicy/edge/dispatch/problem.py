"""`HeldOffloadingProblem`: the offloading problem with requests that wait for a free server."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase

from diffpolicy import _validate as check
from diffpolicy.edge.dispatch.held import Held
from diffpolicy.edge.dispatch.moment import Dispatcher
from diffpolicy.edge.dispatch.named import DEFAULT_ORDER, make_held
from diffpolicy.edge.dispatch.of_scenario import ScenarioArrivals, arrivals_of, check_holdable
from diffpolicy.edge.dispatch.outcome import Outcome
from diffpolicy.edge.dispatch.policy_choice import PolicyChoice
from diffpolicy.edge.dispatch.simulate import simulate
from diffpolicy.edge.env.env import OffloadingEnv
from diffpolicy.edge.evaluation import Replay
from diffpolicy.edge.problem import WORK, OffloadingProblem
from diffpolicy.edge.rules.least_cost import OptTS
from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.edge.workload.task_file import TaskList
from diffpolicy.errors import InputError
from diffpolicy.evaluation.evaluating import naming
from diffpolicy.evaluation.playing import Played, undisturbed
from diffpolicy.policies.protocols import ShowsLevel

PASSES, REFUSED = "passes", "refused_s"
"""Notes of what was held."""
ON_ARRIVAL = " on arrival"
"""What ends the name of a rule that is bound when a request arrives, among those that hold."""


class BoundOnArrival(TensorDictModuleBase):
    """A policy that decides when a request arrives, although others hold it. Args: policy: it."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy, self.in_keys, self.out_keys = policy, list(policy.in_keys), list(policy.out_keys)
        self.information = policy.information if isinstance(policy, ShowsLevel) else "paper"

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        result: TensorDictBase = self.policy(tensordict)
        return result


def play_held(
    policy: Any, dispatcher: Dispatcher, coming: ScenarioArrivals, env: OffloadingEnv, seed: int = 0
) -> tuple[Outcome, float]:
    """Plays requests that are held, a policy saying which of the free servers each gets.

    Args:
        policy: of the offloading problem; `opt-ts`, which takes the server that ends
            soonest, is what the dispatcher does itself. dispatcher: says when, and which request.
        coming: the requests. env: of one lane, at the policy's level of information. seed: of what is drawn.

    Returns:
        What became of them, and the seconds that deciding took.

    Raises:
        InputError: the dispatcher chooses servers itself, so that the policy would not be asked.
    """
    # a subclass may choose otherwise
    if type(policy) is OptTS:
        begun = time.perf_counter()
        outcome = simulate(coming.arrivals, dispatcher, seed=seed)
        return outcome, time.perf_counter() - begun
    if not isinstance(dispatcher, Held):
        raise InputError(
            f"the order is a whole dispatcher, {check.show(dispatcher)}, which chooses servers itself and would never "
            "ask this policy; name opt-ts"
        )
    choice = PolicyChoice(env, policy, coming)
    outcome = simulate(coming.arrivals, replace(dispatcher, choose=choice), seed=seed)
    return outcome, choice.seconds


class HeldOffloadingProblem(OffloadingProblem):
    """The offloading problem under a dispatcher that holds requests until a server is free.

    A policy then says which of the free servers the request gets that the order puts first. The first rule, `opt-ts on
    arrival`, holds nothing, so that ratios are to what binding at once would cost.

    Args:
        scenario: of `OffloadingProblem`; none of its servers fails at times or joins requests to batches.
        order: of `make_held`.

    Raises:
        InputError: there is no such order or scenario, or its servers cannot be bound late.

    Example:
        >>> scenario = Scenario.load("lad-ts").override(tasks=5, stations=3, slots=4)
        >>> problem = HeldOffloadingProblem(scenario, "shortest-first:cap=6")
        >>> next(iter(problem.rules()))
        'opt-ts on arrival'
    """

    def __init__(self, scenario: Scenario | str | Path = "lad-ts", order: str = DEFAULT_ORDER) -> None:
        super().__init__(scenario)
        check_holdable(self.scenario)
        self.order, self.dispatcher = order, make_held(order)

    def rules(self) -> Mapping[str, Callable[[int], Any]]:
        """The untrained rules; the greedy one also bound on arrival, which comes first."""
        held = dict(super().rules())
        return {"opt-ts" + ON_ARRIVAL: functools.partial(self._at_once, "opt-ts"), **held}

    def _at_once(self, name: str, seed: int) -> BoundOnArrival:
        return BoundOnArrival(self._rule(name, seed))

    def compared_rules(self) -> Sequence[str]:
        """Both forms of the greedy rule: others are asked about every single request, which takes long."""
        return ["opt-ts" + ON_ARRIVAL, "opt-ts"]

    def compared(self) -> Sequence[str]:
        """None, for the same reason."""
        return ()

    def left_out(self) -> str:
        return ""

    def play(
        self, policy: Any, episodes: int, seed: int, heard: Callable[[float], None] | None = None
    ) -> Played | None:
        """Episodes of held requests; None where the policy binds on arrival. Args: as of `play_episodes`."""
        if isinstance(policy, BoundOnArrival):
            return None
        parts = []
        for episode in range(episodes):
            coming = arrivals_of(self.scenario, episode, seed)
            env = self._env(1, seed, "evaluate", self.view(policy), None, episode)
            self.check(policy, env)
            outcome, seconds = play_held(policy, self.dispatcher, coming, env, seed)
            delay = outcome.delay_s
            number = np.full(len(delay), episode)
            notes = {str(WORK): coming.work_gcycles, PASSES: outcome.passes.astype(np.float64)}
            parts.append(Played(delay, number, seconds, notes | {REFUSED: outcome.refused_s}))
            if heard is not None:
                heard(1.0)
        return Played.join(parts)

    def told(self) -> str:
        return f"{super().told()}, held in the order {self.order}"

    def vary(self, key: str, value: Any) -> HeldOffloadingProblem:
        return HeldOffloadingProblem(self.scenario.override(**{key: value}), self.order)

    def description(self) -> dict[str, Any]:
        return {**super().description(), "order": self.order}

    def digest(self) -> str:
        return f"{super().digest()} {self.order}"


@dataclass(frozen=True)
class HeldReplay(Replay):
    """A task file played once, its tasks held.

    Args:
        scenario, policy, load, server, delay_s: of `Replay`.
        order: in which they waited. most_passes: later arrivals that were bound before a task.
        longest_refused_s: for which a task waited although a server was free that could run it.
    """

    order: str = DEFAULT_ORDER
    most_passes: int = 0
    longest_refused_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As `replay --json` prints it."""
        more = {"binding": "free", "order": self.order}
        return {
            **super().to_dict(),
            **more,
            "most_passes": self.most_passes,
            "longest_refused_s": self.longest_refused_s,
        }


def replay_held(
    scenario: Scenario,
    tasks: TaskList,
    policy: Any,
    order: str = DEFAULT_ORDER,
    *,
    name: str = "a policy",
    seed: int = 0,
) -> HeldReplay:
    """Plays a file's tasks, each of which waits for a free server.

    Args:
        scenario: its servers. tasks: the file's; where it has slots, a slot's tasks arrive as it begins.
        policy: says which of the free servers. order: of `make_held`.
        name: of the policy, for the report. seed: of what is drawn.

    Returns:
        The decision and the delay of each task, in the file's order.

    Raises:
        InputError: the servers cannot be bound late, there is no such order, or the policy does not fit.
    """
    problem = HeldOffloadingProblem(scenario, order)
    level: Any = problem.view(policy)
    env = OffloadingEnv(scenario, [1], information=level, tasks=tasks, dtype=torch.float64)
    with naming(name), undisturbed(policy, seed):
        problem.check(policy, env)
        coming = arrivals_of(scenario, tasks=tasks)
        outcome, _ = play_held(policy, problem.dispatcher, coming, env, seed)
    load = float(tasks.work_gcycles.sum() / (scenario.capacity_gcycles_per_s * tasks.duration_s.sum()))
    worst = int(outcome.passes.max()), float(outcome.refused_s.max())
    return HeldReplay(scenario.name, name, load, outcome.server, outcome.delay_s, order, *worst)


def add_held(told: Mapping[str, Any], order: str, played: Mapping[str, Played]) -> dict[str, Any]:
    """An evaluation's JSON form with how requests were held.

    Args:
        told: it. order: of `make_held`. played: by policy.
    """
    policies = {
        name: {**of, **(worst_of(played[name]) if name in played else {})} for name, of in told["policies"].items()
    }
    return {**told, "policies": policies, "binding": "free", "order": order}


def held_line(order: str, played: Mapping[str, Played]) -> str:
    """How requests were held, in words. Args: order: of `make_held`. played: by policy."""
    worst = {name: worst_of(x) for name, x in played.items() if PASSES in x.notes}
    told = [f"{n}: {w['most_passes']} and {w['longest_refused_s']:.2f} s" for n, w in worst.items()]
    return (
        f"held in the order {order}; most later arrivals that went first, and longest time for which a free server was "
        f"refused: {', '.join(told)}"
    )


def worst_of(played: Played) -> dict[str, Any]:
    """The two bounds on starvation. Args: played: of a policy; empty of one that held nothing."""
    if PASSES not in played.notes:
        return {}
    passes, refused = int(played.notes[PASSES].max()), float(played.notes[REFUSED].max())
    return {"most_passes": passes, "longest_refused_s": refused}
