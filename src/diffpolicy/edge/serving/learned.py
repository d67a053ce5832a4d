"""`LearnedChoice`: a trained policy of the offloading problem, or a rule of it, says which server a request gets."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from diffpolicy._types import Bools, Floats
from diffpolicy.edge.dispatch.advised_policies import coming_of, scenario_of
from diffpolicy.edge.dispatch.arrivals import Arrivals
from diffpolicy.edge.dispatch.moment import Moment
from diffpolicy.edge.dispatch.policy_choice import PolicyChoice
from diffpolicy.edge.env.env import OffloadingEnv
from diffpolicy.edge.resolve import make_policy
from diffpolicy.edge.serving.alone import alone
from diffpolicy.policies.protocols import ShowsLevel

KEPT = 256
"""Requests by whose times servers and work are known."""
DRIFT = 0.2
"""Share by which a server's speed must change before the policy is shown other servers."""
LOAD = 0.8
"""Of the servers, for a policy that asks how much arrives: a moment does not tell."""
NEVER = 1e3
"""Stands for endless: how many times as long as on the slowest server."""


class LearnedChoice:
    """Shows a policy one request at a time, as an environment would that has these servers.

    Servers are as fast as the times tell that the dispatcher expects of them. Where they change, the policy is made
    anew, which takes longer than a decision may: the dispatcher falls back once.

    Args:
        name: of `diffpolicy.edge.resolve.make_policy`. servers: their number at first. seed: of what the policy draws.

    Raises:
        InputError: there is no such policy, or it does not fit so many servers.
    """

    def __init__(self, name: str, servers: int, seed: int = 0) -> None:
        self._name, self._seed = name, seed
        self._rows: deque[Floats] = deque(maxlen=KEPT)
        self._shown(np.ones(servers))
        moment = Moment.of(service_s=np.ones((1, servers)), wait_s=[0.0], starts_s=[0.0] * servers)
        self(moment, moment.runs[0])  # what torch does once takes as long as a hundred decisions
        self._rows.clear()

    def __call__(self, moment: Moment, allowed: Bools) -> int:
        """A server. Args: moment: whose first request is meant. allowed: servers that it may go to, bool `[S]`."""
        row = finite(moment.service_s[0])
        if len(row) != len(self._speed):
            self._rows.clear()
        self._rows.append(row)
        speed = speeds(self._rows)
        if len(speed) != len(self._speed) or (np.abs(speed / self._speed - 1) > DRIFT).any():
            self._shown(speed)
        self._choice.coming = coming_of(Arrivals(np.zeros(1), row[None]))
        none = np.zeros(len(row), np.int64)
        return self._choice(replace(alone(moment, 0), number=none[:1], loaded=none), 0, allowed)

    def _shown(self, speed: Floats) -> None:
        """Makes the policy for servers of these speeds. Args: speed: `[S]`, the fastest has 1."""
        self._speed = speed
        rows = np.stack(list(self._rows) or [1 / speed])
        every_s = float(rows.min(-1).mean() / speed.sum() / LOAD)
        scenario = scenario_of(Arrivals(every_s * np.arange(len(rows)), rows))
        policy: Any = make_policy(self._name, scenario, seed=self._seed)
        level: Any = policy.information if isinstance(policy, ShowsLevel) else "paper"
        env = OffloadingEnv(scenario, [1], information=level, dtype=torch.float64)
        self._choice = PolicyChoice(env, policy, coming_of(Arrivals(np.zeros(1), rows[:1])))


def finite(service_s: Floats) -> Floats:
    """Times of which a policy may compute: a server that cannot run the request is very slow, `[S]`.

    Args:
        service_s: seconds, infinite where it cannot.

    Example:
        >>> finite(np.array([2.0, np.inf])).tolist()
        [2.0, 2000.0]
    """
    ends = np.isfinite(service_s)
    return np.where(ends, service_s, NEVER * service_s[ends].max(initial=1e-9))


def speeds(rows: deque[Floats]) -> Floats:
    """How fast servers are in relation to the fastest, `[S]`. Args: rows: seconds of requests on each, `[S]`."""
    mean_s = np.median(np.stack(list(rows)) / np.stack(list(rows)).min(-1, keepdims=True), axis=0)
    speed: Floats = mean_s.min() / mean_s
    return speed
