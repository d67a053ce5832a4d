"""`PolicyBalancer`: a rule as a load balancer of vLLM-Omni, whose interface is `select(task, replicas) -> int`."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from diffpolicy import _validate as check
from diffpolicy.edge.dispatch.account import Account
from diffpolicy.edge.dispatch.moment import Moment
from diffpolicy.edge.serving.rules import make_policy
from diffpolicy.errors import InputError

COMMON = {"width": 1024, "height": 1024, "num_inference_steps": 25, "num_outputs_per_prompt": 1}
"""Of a task that does not tell them."""


class PolicyBalancer:
    """Says which replica gets a task.

    The interface tells no ends: a task is taken for done once its expected seconds are over, unless its replica has a
    `queue_length` that says otherwise. The size stands in `task["sampling_params"]` (`width`, `height`,
    `num_inference_steps`, `num_outputs_per_prompt`), as attributes or in a dictionary; what is not told there counts
    as common. Several threads may ask.

    Args:
        policy: a rule of `diffpolicy serve` that binds on arrival.
        speeds: units of work a second; a unit is a step of a megapixel. In the order of the replicas, of which then
            there are always as many; or by their `input_addr`, so that they may come and go.
        clock: seconds that only go up. seed: of draws.

    Raises:
        InputError: there is no such rule, or no replica, or a speed is no number above 0.

    Example:
        >>> from types import SimpleNamespace as Of
        >>> task = {"sampling_params": Of(width=1024, height=1024, num_inference_steps=20)}
        >>> balancer = PolicyBalancer("least-finish", speeds=[10.0, 5.0])
        >>> [balancer.select(task, [Of(queue_length=0), Of(queue_length=1)]) for _ in range(1)]
        [0]
    """

    def __init__(
        self,
        policy: str = "least-finish",
        *,
        speeds: Sequence[float] | Mapping[str, float],
        clock: Callable[[], float] = time.monotonic,
        seed: int = 0,
    ) -> None:
        self._dispatcher = make_policy(policy, seed=seed).dispatcher
        given = speeds.tolist() if isinstance(speeds, np.ndarray) else speeds
        if not isinstance(given, (Mapping, Sequence)) or isinstance(given, (str, bytes)) or not len(given):
            raise InputError(f"speeds must be one number above 0 for each replica, got {check.show(given)}")
        named = given if isinstance(given, Mapping) else dict(enumerate(given))
        found = [_number(speed, f"speeds[{check.show(key)}]", above=0) for key, speed in named.items()]
        self._names = list(given) if isinstance(given, Mapping) else None
        self._speeds, self._clock = np.array(found), clock
        self._account, self._numbers = Account([1] * len(self._speeds)), itertools.count()
        self._lock = threading.Lock()

    def select(self, task: Any, replicas: Sequence[Any]) -> int:
        """The number of a replica. Args: task: with `sampling_params`. replicas: of which one is taken.

        Raises:
            InputError: of a replica nobody told the speed, or there is none; or a size is no number.
        """
        with self._lock:
            return self._select(task, replicas)

    def _select(self, task: Any, replicas: Sequence[Any]) -> int:
        """See `select`."""
        places, now, number = self._places(replicas), self._clock(), next(self._numbers)
        self._forget(places, replicas, now)
        size = _size(_field(task, "sampling_params"))
        account, service = self._account, size / self._speeds[places]
        moment = Moment.of(service[None].tolist(), [0.0], account.starts_s(now)[places])
        moment = replace(
            moment,
            cost=np.array([size]),
            outstanding=account.outstanding[places],
            outstanding_cost=account.outstanding_cost[places],
            number=np.array([number], np.int64),
        )
        binding = self._dispatcher.decide(moment)
        chosen = 0 if binding is None else binding.server
        account.sent(places[chosen], number, expected_s=float(service[chosen]), now_s=now, cost=size)
        return chosen

    def _places(self, replicas: Sequence[Any]) -> list[int]:
        """Which speeds are those of the replicas."""
        if self._names is None:
            if len(replicas) != len(self._speeds):
                raise InputError(f"there are {len(self._speeds)} speeds and {len(replicas)} replicas")
            return list(range(len(replicas)))
        named = [str(getattr(replica, "input_addr", "")) for replica in replicas]
        unknown = [name for name in named if name not in self._names]
        if unknown or not named:
            raise InputError(f"speeds has none for replica {unknown[0]}" if unknown else "there is no replica")
        return [self._names.index(name) for name in named]

    def _forget(self, places: Sequence[int], replicas: Sequence[Any], now: float) -> None:
        """Takes tasks off the account that should be over, unless their replica says that it has them still."""
        for j, one in zip(places, replicas, strict=True):
            at, said = self._account.servers[j], getattr(one, "queue_length", None)
            while at and (said is None or said < len(at)):
                end = (now if at[0].begun_s is None else at[0].begun_s) + at[0].expected_s
                if end > now:
                    break
                self._account.done(j, at[0].number, end)


def _size(wanted: Any) -> float:
    """Steps times megapixels of a task, of whose fields those that are not told are as common. Args: wanted: of it."""
    size = 1e-6
    for name, common in COMMON.items():
        told = _field(wanted, name)
        size *= (0 if told is None else _number(told, f"sampling_params.{name}", least=0)) or common
    return size


def _field(of: Any, name: str) -> Any:
    """What a mapping has under a name, or another object as an attribute; None where it has nothing."""
    return of.get(name) if isinstance(of, Mapping) else getattr(of, name, None)


def _number(value: Any, key: str, **bounds: float) -> float:
    """A number, of NumPy's too."""
    return check.number(value.item() if isinstance(value, np.generic) else value, key, **bounds)
