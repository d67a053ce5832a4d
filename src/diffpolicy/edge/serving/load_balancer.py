"""`PolicyBalancer`: a rule as a load balancer of vLLM-Omni, whose interface is `select(task, replicas) -> int`."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from diffpolicy.edge.dispatch.account import Account
from diffpolicy.edge.dispatch.moment import Moment
from diffpolicy.edge.serving.rules import make_policy
from diffpolicy.errors import InputError


class PolicyBalancer:
    """Says which replica gets a task.

    The interface tells no ends: a task is taken for done once its expected seconds are over, unless its replica has a
    `queue_length` that says otherwise. The size stands in `task.sampling_params` (`width`, `height`,
    `num_inference_steps`, `num_outputs_per_prompt`).

    Args:
        policy: a rule of `diffpolicy serve` that binds on arrival. speeds: of the replicas, units of work a second; a
            unit is a step of a megapixel. clock: seconds that only go up. seed: of draws.

    Raises:
        InputError: there is no such rule, or no replica.

    Example:
        >>> from types import SimpleNamespace as Of
        >>> task = Of(sampling_params=Of(width=1024, height=1024, num_inference_steps=20))
        >>> balancer = PolicyBalancer("least-finish", speeds=[10.0, 5.0])
        >>> [balancer.select(task, [Of(queue_length=0), Of(queue_length=1)]) for _ in range(1)]
        [0]
    """

    def __init__(
        self,
        policy: str = "least-finish",
        *,
        speeds: Sequence[float],
        clock: Callable[[], float] = time.monotonic,
        seed: int = 0,
    ) -> None:
        self._dispatcher = make_policy(policy, seed=seed).dispatcher
        self._speeds, self._clock = np.asarray(speeds, np.float64), clock
        if not len(self._speeds) or not (self._speeds > 0).all():
            raise InputError(f"speeds must be one number above 0 for each replica, got {list(speeds)}")
        self._account, self._numbers = Account([1] * len(self._speeds)), itertools.count()

    def select(self, task: Any, replicas: Sequence[Any]) -> int:
        """The number of a replica. Args: task: with `sampling_params`. replicas: in an order that stays.

        Raises:
            InputError: there are more or fewer replicas than speeds.
        """
        if len(replicas) != len(self._speeds):
            raise InputError(f"there are {len(self._speeds)} speeds and {len(replicas)} replicas")
        now, wanted = self._clock(), getattr(task, "sampling_params", None)
        self._forget(replicas, now)
        width, height, steps = (getattr(wanted, x, None) for x in ("width", "height", "num_inference_steps"))
        images = getattr(wanted, "num_outputs_per_prompt", None) or 1
        size = (width or 1024) * (height or 1024) * (steps or 25) * images / 1e6
        moment = Moment.of((size / self._speeds)[None].tolist(), [0.0], self._account.starts_s(now))
        binding = self._dispatcher.decide(moment)
        j = 0 if binding is None else binding.server
        self._account.sent(j, next(self._numbers), expected_s=size / float(self._speeds[j]), now_s=now, cost=size)
        return j

    def _forget(self, replicas: Sequence[Any], now: float) -> None:
        """Takes tasks off the account that should be over, unless their replica says that it has them still."""
        for j, replica in enumerate(replicas):
            at, said = self._account.servers[j], getattr(replica, "queue_length", None)
            while at and (said is None or said < len(at)):
                end = (now if at[0].begun_s is None else at[0].begun_s) + at[0].expected_s
                if end > now:
                    break
                self._account.done(j, at[0].number, end)
