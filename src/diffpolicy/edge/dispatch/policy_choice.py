"""`PolicyChoice`: any policy of the offloading problem says which of the free servers a held request gets."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tensordict import TensorDictBase
from torch import Tensor

from diffpolicy._types import Bools, Floats
from diffpolicy.edge.dispatch.moment import Moment
from diffpolicy.edge.dispatch.of_scenario import ScenarioArrivals
from diffpolicy.edge.env.env import OffloadingEnv
from diffpolicy.edge.env.observation import Sight
from diffpolicy.edge.physics.service import Measured, ServiceState
from diffpolicy.edge.physics.slot_grid import SlotGrid
from diffpolicy.policies.recurrent import RecurrentState, with_recurrent_state


class PolicyChoice:
    """Shows a policy one request as an environment would that has only the servers which it may go to.

    Servers that are not free count as down. Where it names one of them all the same, as a rule does that looks at no
    state, the request goes where it ends soonest, and `elsewhere` counts it.
    A queue is the work that the dispatcher expects its server to have left.

    Args:
        env: of one lane, at the policy's level of information; gives specs, servers and sizes of the grid.
        policy: a rule or policy of the offloading problem.
        coming: the requests, by their numbers.
    """

    def __init__(self, env: OffloadingEnv, policy: Any, coming: ScenarioArrivals) -> None:
        self.env, self.policy, self.coming, self.seconds, self.elsewhere = env, policy, coming, 0.0, 0
        primed = with_recurrent_state(env, policy)
        self.root: TensorDictBase = primed.reset()
        primer: Any = getattr(primed, "transform", None)
        self.recurrent = list(primer.recurrent_keys) if isinstance(primer, RecurrentState) else []
        self.sight = Sight(env.information, env.fleet, env.service, numbered=False)

    def __call__(self, moment: Moment, request: int, allowed: Bools) -> int:
        """A server. Args: moment: now. request: its place among those that wait. allowed: bool `[S]`."""
        number, coming = int(moment.number[request]), self.coming
        station = int(coming.station[number])
        e, b, n = self.env.observation_spec["agents", "valid"].shape
        real = torch.zeros(e, b, n, dtype=torch.bool)
        real[0, station, 0] = True

        def grid(values: Floats) -> Tensor:
            return torch.where(real, float(values[number]), 0.0).to(self.env.dtype)

        measured = None
        if coming.measured is not None:
            of = {name: x[number] for name, x in vars(coming.measured).items()}
            measured = Measured(**{name: x.expand(e, b, n, *x.shape) for name, x in of.items()})
        one = torch.zeros(e, 1, dtype=self.env.dtype)
        slot = SlotGrid(
            home=torch.where(real, int(coming.home[number]), -1),
            input_mbit=grid(coming.input_mbit),
            result_mbit=grid(coming.result_mbit),
            work_gcycles=grid(coming.work_gcycles),
            valid=real,
            order=(~real).flatten(1).byte().argsort(dim=1, stable=True)[:, :1],
            duration_s=one,
            clock_s=one[:, 0].double(),
            measured=measured,
        )
        starts = torch.as_tensor(moment.starts_s, dtype=self.env.dtype)
        queue = (starts * self.env.fleet.capacity_gcycles_per_s).unsqueeze(0)
        state = ServiceState.fresh(e, queue.shape[-1], self.env.dtype)
        state = replace(state, loaded=torch.as_tensor(moment.loaded).unsqueeze(0))
        seed = torch.zeros(e, 1, dtype=torch.int64)
        span = torch.full(real.shape[:2], torch.nan, dtype=self.env.dtype)
        seen = self.sight.see(slot, queue, torch.as_tensor(allowed).unsqueeze(0), state, None, seed, span)
        begun = time.perf_counter()
        with torch.no_grad():
            out = self.policy(self.root.clone().update(seen))
        self.seconds += time.perf_counter() - begun
        for key in self.recurrent:
            after = out.get(("next", *key) if isinstance(key, tuple) else ("next", key), None)
            if after is not None:
                self.root.set(key, after)
        chosen = int(out["agents", "action"][0, station, 0])
        if 0 <= chosen < len(allowed) and allowed[chosen]:
            return chosen
        self.elsewhere += 1
        ends = moment.service_s[request] + moment.link_s[request]
        return int(np.where(allowed, ends, np.inf).argmin())
