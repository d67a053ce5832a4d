"""Rules of a service by what stands after `--policy`, bound on arrival or when a server is free. Loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from diffpolicy import _validate as check
from diffpolicy._imports import import_attribute, is_attribute
from diffpolicy._suggest import meant
from diffpolicy._types import Bools, Floats
from diffpolicy.edge.dispatch.held import Held
from diffpolicy.edge.dispatch.moment import Binding, Dispatcher, Moment
from diffpolicy.edge.dispatch.named import BUNDLED, DEFAULT_ORDER, make_held
from diffpolicy.edge.dispatch.on_arrival import WEIGHINGS, OnArrival
from diffpolicy.edge.dispatch.orders import ORDERS
from diffpolicy.edge.names import PRETRAINED_NAMES
from diffpolicy.edge.serving.alone import alone
from diffpolicy.environments.entrants import PRETRAINED
from diffpolicy.errors import InputError

DEFAULT = "least-finish"


@dataclass(frozen=True)
class Named:
    """A dispatcher and what it is called.

    Args:
        dispatcher: decides. name: in events. learned: whether it loads torch and takes milliseconds.
    """

    dispatcher: Dispatcher
    name: str
    learned: bool = False

    def __str__(self) -> str:
        return f"{self.name} {'when a server is free' if self.dispatcher.holds else 'on arrival'}"


def least_work(moment: Moment) -> Floats:
    """Seconds until each server would begin, `[S]`. Args: moment: any."""
    return moment.starts_s


class RoundRobin:
    """One server after the other, of those that can run the request.

    Args:
        seed: is not read: it begins with the first.

    Example:
        >>> moment = Moment.of(service_s=[[4.0, 1.0]], wait_s=[0.0], starts_s=[0.0, 5.0])
        >>> turns = RoundRobin(0)
        >>> [turns(moment, moment.runs[0]) for _ in range(3)]
        [0, 1, 0]
    """

    def __init__(self, seed: int) -> None:
        self.next = 0

    def __call__(self, moment: Moment, allowed: Bools) -> int:
        count = len(allowed)
        chosen = next(j % count for j in range(self.next, self.next + count) if allowed[j % count])
        self.next = (chosen + 1) % count
        return chosen


class PowerOfTwo:
    """Two servers are drawn, and the one with fewer requests is taken.

    Args:
        seed: of the draws.

    Example:
        >>> moment = Moment.of(service_s=[[4.0, 1.0]], wait_s=[0.0], starts_s=[0.0, 5.0])
        >>> PowerOfTwo(0)(moment, moment.runs[0])
        0
    """

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def __call__(self, moment: Moment, allowed: Bools) -> int:
        able = np.flatnonzero(allowed)
        drawn = able if len(able) < 2 else self.generator.choice(able, 2, replace=False)
        return int(min(drawn, key=lambda j: moment.outstanding[j]))


class Least:
    """The server that costs least; of equal ones it draws.

    Args:
        weigh: from a moment to costs, `[S]`. seed: of the draws.

    Raises:
        InputError: while it decides, the costs are no numbers.

    Example:
        >>> moment = Moment.of(service_s=[[4.0, 1.0]], wait_s=[0.0], starts_s=[0.0, 5.0])
        >>> Least(least_work, 0)(moment, moment.runs[0])
        0
    """

    def __init__(self, weigh: Callable[[Moment], Floats], seed: int) -> None:
        self.weigh, self.generator = weigh, np.random.default_rng(seed)

    def __call__(self, moment: Moment, allowed: Bools) -> int:
        costs = np.asarray(self.weigh(moment), dtype=np.float64)
        if costs.shape != allowed.shape or np.isnan(costs[allowed]).any():
            raise InputError(f"a rule must give a cost for each of {len(allowed)} servers")
        best = np.flatnonzero(allowed & (costs == costs[allowed].min()))
        return int(best[0] if len(best) == 1 else self.generator.choice(best))


Choice = Callable[[Moment, Bools], int]
"""From a moment, whose first request is meant, and the servers it may go to, to one of them."""
WEIGHED: Mapping[str, Callable[[Moment], Floats]] = {**WEIGHINGS, "least-work": least_work}
CHOICES: Mapping[str, Callable[[int], Choice]] = {"round-robin": RoundRobin, "power-of-two": PowerOfTwo}
SAME = {"opt-ts": "least-finish"}
"""What `evaluate` calls a rule that has another name among dispatchers."""
ALIKE = ("least-work",)
"""Rules that see no difference between servers that are free, however many seats they have."""
LEARNED = ("price", "weighted-round-robin", "capacity-proportional")
"""Rules of the offloading problem that know more than a moment tells, and load torch."""
EXPORTED = ".onnx"
"""What a decision file's name ends with."""
NAMES = (*WEIGHED, *CHOICES, *SAME, *LEARNED, *(PRETRAINED + name for name in PRETRAINED_NAMES))
"""All that may stand after `--policy`, beside `module:attribute` and a policy's folder."""


class Chooses:
    """Binds the longest waiting request when it arrives.

    Args:
        make: from a seed to what chooses. seed: of draws. quick: whether that takes microseconds, and never waits.
    """

    holds = False

    def __init__(self, make: Callable[[int], Choice], seed: int = 0, *, quick: bool = False) -> None:
        self.make, self.choice, self.quick = make, make(seed), quick

    def begin(self, seed: int) -> None:
        """Begins anew. Args: seed: of draws."""
        self.choice = self.make(seed)

    def decide(self, moment: Moment) -> Binding | None:
        """Where the longest waiting request goes. Args: moment: at least one request waits."""
        return Binding(0, self.choice(moment, moment.runs[0]))


def make_policy(
    policy: str, *, binding: str = "arrival", order: str | None = None, seed: int = 0, servers: int = 2
) -> Named:
    """A dispatcher, from what a user types.

    Args:
        policy: one of `NAMES`, a folder with a policy of the offloading problem, an ONNX file of `diffpolicy export`,
            or `module:attribute`: a function of a `Moment` that gives what each server costs the request that came
            first, `[S]`, or a whole `Dispatcher`.
        binding: `arrival` or `free`. order: which waiting request goes first, see `make_held`; with `free` alone.
        seed: of draws. servers: how many there are at first.

    Returns:
        It with its name.

    Raises:
        InputError: there is no such rule or order, or they do not go together.

    Example:
        >>> str(make_policy("opt-ts")), str(make_policy("random", binding="free"))
        ('least-finish on arrival', 'shortest-first:cap=6 then random when a server is free')
    """
    if binding == "arrival" and order is not None:
        raise InputError(f"--order works only with --binding free, got --order {order}")
    rule = SAME.get(policy, policy)
    made: object = None
    exported = rule not in NAMES and Path(policy).suffix == EXPORTED
    if rule not in NAMES and not Path(policy).is_dir() and not exported:
        if policy.partition(":")[0] in ORDERS or policy == BUNDLED:
            raise InputError(
                f"policy {check.show(policy)} is an order of waiting requests: --binding free --order {policy}"
            )
        if not is_attribute(policy) or policy.startswith(PRETRAINED):
            raise InputError(
                f"policy {check.show(policy)} is neither one of {', '.join(NAMES)} nor a policy's folder nor an ONNX "
                f"file nor module:attribute{meant(policy, NAMES)}"
            )
        made = import_attribute(policy, "policy")
        made = made() if isinstance(made, type) else made
        if isinstance(made, Dispatcher):
            return _whole(made, policy, binding, order)
        if not callable(made):
            raise InputError(f"policy {policy} must be a function of a Moment or a Dispatcher, got {check.show(made)}")
    if binding == "arrival" and rule in WEIGHINGS:
        return Named(OnArrival(rule, seed), rule)

    learned = rule not in CHOICES and rule not in WEIGHED and made is None and not exported

    def make(seed: int) -> Choice:
        if exported:
            from diffpolicy.edge.serving.exported import exported_choice

            return exported_choice(policy, servers, seed)
        if rule in CHOICES:
            return CHOICES[rule](seed)
        if not learned:
            return Least(made if callable(made) else WEIGHED[rule], seed)
        from diffpolicy.edge.serving.learned import LearnedChoice

        return LearnedChoice(policy, servers, seed)

    if binding == "arrival":
        return Named(Chooses(make, seed, quick=rule in CHOICES or rule in WEIGHED), rule, learned)
    if rule in ALIKE:
        raise InputError(
            f"--policy {policy} works only with --binding arrival: free servers would all begin at once, so it would "
            f"draw one of them; use {DEFAULT}, or random"
        )
    given = order or DEFAULT_ORDER
    held = make_held(given)
    if rule == DEFAULT:
        return Named(held, given)
    if not isinstance(held, Held):
        raise InputError(f"--order {given} is a dispatcher of its own, which asks no --policy {policy}")
    choice = make(seed)
    held = replace(held, choose=lambda moment, request, allowed: choice(alone(moment, request), allowed))
    return Named(held, f"{given} then {rule}", learned)


def _whole(made: Dispatcher, policy: str, binding: str, order: str | None) -> Named:
    """A user's whole dispatcher, which says itself when it binds."""
    if order is not None:
        raise InputError(f"policy {policy} is a dispatcher of its own, which has no --order, got {order}")
    if made.holds != (binding == "free"):
        raise InputError(
            f"policy {policy} is a dispatcher that binds {'when a server is free' if made.holds else 'on arrival'}; "
            f"give --binding {'free' if made.holds else 'arrival'}"
        )
    return Named(made, policy)
