"""`LearnedChoice`: a trained policy of the offloading problem, or a rule of it, says which server a request gets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from diffpolicy import _validate as check
from diffpolicy._types import Bools
from diffpolicy.edge.dispatch.advised_policies import coming_of, scenario_of
from diffpolicy.edge.dispatch.arrivals import Arrivals
from diffpolicy.edge.dispatch.moment import Moment
from diffpolicy.edge.dispatch.policy_choice import PolicyChoice
from diffpolicy.edge.env.env import OffloadingEnv
from diffpolicy.edge.resolve import make_policy
from diffpolicy.edge.serving.alone import alone
from diffpolicy.edge.serving.shown_speeds import ShownSpeeds, finite
from diffpolicy.errors import InputError
from diffpolicy.policies.protocols import ShowsLevel
from diffpolicy.policies.saving import SavedPolicy


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
        self._name, self._seed, self._shown = name, seed, ShownSpeeds(servers)
        self._make()
        moment = Moment.of(service_s=np.ones((1, servers)), wait_s=[0.0], starts_s=[0.0] * servers)
        self(moment, moment.runs[0])  # what torch does once takes as long as a hundred decisions
        self._shown.rows.clear()

    def __call__(self, moment: Moment, allowed: Bools) -> int:
        """A server. Args: moment: whose first request is meant. allowed: servers that it may go to, bool `[S]`."""
        row = finite(moment.service_s[0])
        if self._shown.take(row):
            self._make()
        self._choice.coming = coming_of(Arrivals(np.zeros(1), row[None]))
        none = np.zeros(len(row), np.int64)
        return self._choice(replace(alone(moment, 0), number=none[:1], loaded=none), 0, allowed)

    def _make(self) -> None:
        """Makes the policy for the servers that it is shown."""
        shown = self._shown
        rows = np.stack(list(shown.rows) or [1 / shown.speed])
        rows = rows if len(rows) > 1 else np.repeat(rows, 2, axis=0)  # one arrival tells no rate
        arrival_s = np.linspace(0.0, shown.every_s * len(rows), len(rows))
        scenario = scenario_of(Arrivals(arrival_s, rows))
        policy: Any = make_policy(self._name, scenario, seed=self._seed)
        level: Any = policy.information if isinstance(policy, ShowsLevel) else "paper"
        env = OffloadingEnv(scenario, [1], information=level, dtype=torch.float64)
        if isinstance(policy, SavedPolicy):
            _check_own(policy, env, self._name)
        self._choice = PolicyChoice(env, policy, coming_of(Arrivals(np.zeros(1), rows[:1])))


def _check_own(policy: SavedPolicy, env: OffloadingEnv, name: str) -> None:
    """Refuses a policy that does not fit, one of another problem as such. Args: name: that was typed."""
    try:
        policy.check_env(env)
    except InputError as error:
        if "scenario" in policy.trained:
            raise InputError(f"policy {name}: {error}") from None
        of = policy.trained.get("problem")
        told = "is for another problem than offloading" if of is None else f"is for problem {check.show(of)[1:-1]}"
        raise InputError(
            f"policy {name} {told}, and serve takes those for offloading: {error}; call a policy for your own problem "
            "in your own process, directly or by ExportedDecision"
        ) from None
