"""Policies of the offloading problem among the rules that advice is about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from diffpolicy._types import Floats
from diffpolicy.edge.dispatch.arrivals import Arrivals
from diffpolicy.edge.dispatch.held import Held
from diffpolicy.edge.dispatch.moment import Binding, Dispatcher, Moment
from diffpolicy.edge.dispatch.named import DEFAULT_ORDER, make_held
from diffpolicy.edge.dispatch.of_scenario import ScenarioArrivals
from diffpolicy.edge.dispatch.policy_choice import PolicyChoice
from diffpolicy.edge.env.env import OffloadingEnv
from diffpolicy.edge.physics.service import Measured
from diffpolicy.edge.resolve import make_policy
from diffpolicy.edge.scenario.scenario import Scenario, Server
from diffpolicy.edge.scenario.service_times import ANY_MODEL, ModelTimes, ServerService
from diffpolicy.edge.workload.mix import RequestType
from diffpolicy.edge.workload.requests import RequestWorkload
from diffpolicy.policies.protocols import ShowsLevel

FAST = 1e6
"""Mbit/s of links, which a log does not tell: nobody waits for them."""
PARTS = 1000
"""Steps of a request of mean work."""


class ChosenOnArrival:
    """Sends each request when it arrives to the server that a policy names. Args: choice: asks it."""

    holds = False

    def __init__(self, choice: PolicyChoice) -> None:
        self.choice = choice

    def begin(self, seed: int) -> None:
        """The policy draws from its own seed. Args: seed: is not read."""

    def decide(self, moment: Moment) -> Binding | None:
        """Where the longest waiting request goes. Args: moment: at least one request waits."""
        return Binding(0, self.choice(moment, 0, moment.runs[0]))


def scenario_of(arrivals: Arrivals) -> Scenario:
    """Servers as fast as requests say, behind one dispatcher, and a workload of their kinds.

    Work is counted in seconds of the server that is fastest on average; a kind of request is told apart by its steps.

    Args:
        arrivals: the requests.
    """
    mean_s = arrivals.expected_s.mean(0)
    speed, step_s = mean_s.min() / mean_s, float(mean_s.min()) / PARTS
    work: Floats = arrivals.expected_s[:, int(mean_s.argmin())]
    steps, count = np.unique((work / step_s).round().clip(1).astype(np.int64), return_counts=True)
    mix = tuple(
        RequestType(
            width=1000,
            height=1000,
            steps=int(n),
            gcycles_per_step=step_s,
            input_mbit=0.0,
            result_mbit=0.0,
            weight=float(weight),
        )
        for n, weight in zip(steps, count, strict=True)
    )
    servers = tuple(
        Server(
            float(s), FAST, service=ServerService({ANY_MODEL: ModelTimes(0.0, (1.0,), (step_s / float(s),), (0.0,))})
        )
        for s in speed
    )
    span = max(float(arrivals.arrival_s[-1] - arrivals.arrival_s[0]), 1e-9)
    workload = RequestWorkload("poisson", len(arrivals) / span, mix)
    return Scenario(float(mean_s.min()), servers, slots=1, stations=(None,), workload=workload)


def coming_of(arrivals: Arrivals) -> ScenarioArrivals:
    """Requests as a policy is shown them, their expected times measured. Args: arrivals: they."""
    k, none = len(arrivals), np.zeros(len(arrivals))
    work: Floats = arrivals.expected_s[:, int(arrivals.expected_s.mean(0).argmin())]
    kind = torch.as_tensor(arrivals.kind)
    measured = Measured(
        torch.as_tensor(arrivals.expected_s),
        torch.zeros_like(kind),
        kind,
        torch.ones(k, dtype=torch.float64),
        torch.zeros(k, dtype=torch.float64),
    )
    return ScenarioArrivals(arrivals, np.zeros(k, np.int64), np.full(k, -1), none, none, work, measured)


def policy_rules(names: Sequence[str], arrivals: Arrivals, seed: int) -> dict[str, Dispatcher]:
    """Two rules of each policy: it names the server on arrival, or one of those that are free.

    Args:
        names: of `make_policy`. arrivals: what is replayed. seed: of what policies draw.

    Raises:
        InputError: there is no such policy, or it does not fit.
    """
    scenario, coming, rules = scenario_of(arrivals), coming_of(arrivals), dict[str, Dispatcher]()
    for name in names:
        choices = []
        for _ in range(2):  # each with a memory of its own
            policy: Any = make_policy(name, scenario, seed=seed)
            level: Any = policy.information if isinstance(policy, ShowsLevel) else "paper"
            env = OffloadingEnv(scenario, [1], information=level, dtype=torch.float64)
            choices.append(PolicyChoice(env, policy, coming))
        held = make_held(DEFAULT_ORDER)
        assert isinstance(held, Held)
        rules[f"{name}, on arrival"] = ChosenOnArrival(choices[0])
        rules[f"{name}, held"] = Held(held.order, held.cap, held.price, choices[1])
    return rules
