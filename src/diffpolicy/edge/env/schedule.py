"""Where and when each task of an episode is computed, read off what the environment charged."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tensordict import TensorDictBase
from torch import Tensor

from diffpolicy.edge.env.env import OffloadingEnv
from diffpolicy.environments.schedule import Schedule


def schedule_of(env: OffloadingEnv, episode: int = 0) -> Callable[[TensorDictBase], Schedule]:
    """Tells, of each step of lane 0 in turn, when its tasks arrive at which server, and when they are computed.

    A delay without its transfers ends with the computation; a server computes in order of arrival, so a task begins
    when it is there and the one before it has ended. The model adds transfers to the delay and lets no server wait for
    them, and so does this.

    Args:
        env: without outages; nothing of it is changed. episode: that lane 0 plays.
    """
    source, rate = env.source, env.fleet.rate_mbit_per_s
    clock_s, t = 0.0, 0
    free: dict[int, float] = {}

    def of(step: TensorDictBase) -> Schedule:
        nonlocal clock_s, t
        grid = source.slot([episode], [t])
        tasks, server = grid.in_order(), grid.pack(step["agents", "action"][:1])
        sent = tasks.input_mbit * (server != tasks.origin) + tasks.result_mbit
        through_s = -grid.pack(step["next", "agents", "reward"][:1]) - sent / rate[server]
        valid = tasks.valid[0]

        def picked(values: Tensor) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
            return values[0][valid].double().cpu().numpy()

        place = server[0][valid].cpu().numpy()
        found = Schedule.in_turn(place, np.full(len(place), clock_s), clock_s + picked(through_s), free)
        clock_s, t = clock_s + float(grid.clock_s[0]), t + 1
        return found

    return of
