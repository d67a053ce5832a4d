"""`HeldOffloadingProblem`: the offloading problem with requests that wait for a free server."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase

from diffpolicy import _validate as check
from diffpolicy.edge.dispatch.held import Held
from diffpolicy.edge.dispatch.holding import DEFAULT, Holding
from diffpolicy.edge.dispatch.of_scenario import ScenarioArrivals, arrivals_of, check_holdable, seats_of
from diffpolicy.edge.dispatch.on_arrival import OnArrival
from diffpolicy.edge.dispatch.outcome import Outcome
from diffpolicy.edge.dispatch.policy_choice import PolicyChoice
from diffpolicy.edge.dispatch.simulate import simulate
from diffpolicy.edge.dispatch.telling import BUSY, DEAD, PASSES, REFUSED
from diffpolicy.edge.env.env import OffloadingEnv
from diffpolicy.edge.problem import WORK, OffloadingProblem
from diffpolicy.edge.rules.least_cost import OptTS
from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.errors import InputError
from diffpolicy.evaluation.playing import Played
from diffpolicy.policies.protocols import Decides, ShowsLevel

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
    policy: Any, holding: Holding, coming: ScenarioArrivals, env: OffloadingEnv, seed: int = 0
) -> tuple[Outcome, float]:
    """Plays requests that are held, a policy saying which of the free servers each gets.

    Args:
        policy: of the offloading problem; `opt-ts`, which takes the server that ends
            soonest, is what the dispatcher does itself. holding: says when, and which request.
        coming: the requests. env: of one lane, at the policy's level of information. seed: of what is drawn.

    Returns:
        What became of them, and the seconds that deciding took.

    Raises:
        InputError: the dispatcher chooses servers itself, so that the policy would not be asked.
    """
    dispatcher = holding.dispatcher
    play = functools.partial(
        simulate,
        seats=coming.seats,
        outages=coming.outages,
        dead_s=holding.dead_s,
        lead_s=holding.lead_s,
        seed=seed,
    )
    # a subclass may choose otherwise
    if type(policy) is OptTS:
        begun = time.perf_counter()
        outcome = play(coming.arrivals, dispatcher)
        return outcome, time.perf_counter() - begun
    if not isinstance(dispatcher, Held):
        raise InputError(
            f"the order is a whole dispatcher, {check.show(dispatcher)}, which chooses servers itself and would never "
            "ask this policy; name opt-ts instead"
        )
    choice = PolicyChoice(env, policy, coming)
    outcome = play(coming.arrivals, replace(dispatcher, choose=choice))
    return outcome, choice.seconds


class HeldOffloadingProblem(OffloadingProblem):
    """The offloading problem under a dispatcher that holds requests until a server is free.

    A policy then says which of the free servers the request gets that the order puts first. The first rule, `opt-ts on
    arrival`, holds nothing, so that ratios are to what binding at once would cost.

    Args:
        scenario: of `OffloadingProblem`; none of its servers joins requests to batches.
        order: of `make_held`, or a whole `Holding`.

    Raises:
        InputError: there is no such order or scenario, or its servers cannot be bound late.

    Example:
        >>> scenario = Scenario.load("lad-ts").override(tasks=5, stations=3, slots=4)
        >>> problem = HeldOffloadingProblem(scenario, "shortest-first:cap=6")
        >>> next(iter(problem.rules()))
        'opt-ts on arrival'
    """

    def __init__(self, scenario: Scenario | str | Path = "lad-ts", order: Holding | str = DEFAULT) -> None:
        super().__init__(scenario)
        self.holding = order if isinstance(order, Holding) else Holding(order)
        check_holdable(self.scenario, split=self.holding.split)

    def rules(self) -> Mapping[str, Callable[[int], Decides]]:
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
        """Episodes of held requests; None where the policy binds on arrival. Args: as of `play_episodes`.

        Where servers work on several requests at once, which an environment does not know, or fail, where it sends
        again by slots, `opt-ts on arrival` is played as the dispatcher `least-finish`, which is the same.
        """
        at_once = isinstance(policy, BoundOnArrival)
        if at_once and max(seats_of(self.scenario)) == 1 and not self.masks:
            return None
        parts = []
        for episode in range(episodes):
            coming = arrivals_of(self.scenario, episode, seed, split=self.holding.split)
            env = self._env(1, seed, "evaluate", self.view(policy), None, episode)
            self.check(policy, env)
            if at_once:
                begun, rule = time.perf_counter(), OnArrival("least-finish")
                outcome = simulate(coming.arrivals, rule, seats=coming.seats, outages=coming.outages)
                seconds = time.perf_counter() - begun
            else:
                outcome, seconds = play_held(policy, self.holding, coming, env, seed)
            delay, (most, total) = outcome.request_delay_s, (outcome.most, outcome.total)
            notes = {
                str(WORK): total(coming.work_gcycles),
                PASSES: most(outcome.passes),
                REFUSED: most(outcome.refused_s),
            }
            notes |= {DEAD: total(outcome.dead_s), BUSY: total(outcome.service_s)}
            number, decisions = np.full(len(delay), episode), len(outcome.server) if self.holding.split else None
            parts.append(Played(delay, number, seconds, notes, decisions))
            if heard is not None:
                heard(1.0)
        return Played.join(parts)

    def told(self) -> str:
        return f"{super().told()}, held in the order {self.holding.told()}"

    def vary(self, key: str, value: Any) -> HeldOffloadingProblem:
        return HeldOffloadingProblem(self.scenario.override(**{key: value}), self.holding)

    def description(self) -> dict[str, Any]:
        usual = DEFAULT.to_dict()
        other = {k: v for k, v in self.holding.to_dict().items() if v != usual[k]}
        return {**super().description(), "order": self.holding.order, **other}

    def digest(self) -> str:
        return f"{super().digest()} {self.holding.told()}"
