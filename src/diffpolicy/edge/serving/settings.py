"""`Settings`: how the dispatcher watches its workers, waits and gives up."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from diffpolicy import _validate as check
from diffpolicy.edge.serving.limits import Limits
from diffpolicy.errors import InputError


@dataclass(frozen=True)
class Settings:
    """Settings of a dispatcher, in seconds unless they say otherwise.

    Args:
        limits: of requests.
        lead_s: a seat counts as free so long before its request is expected to end.
        decide_s: within which a policy must decide; later, the request goes where it ends soonest.
        probe_s: between two looks at a worker's health. probe_timeout_s: of one of them.
        patience_s: for which a request waits while no worker is usable.
        call_s: least time-out of a call; call_times: its time-out in expected services.
        faults: of a worker in a row that open its circuit breaker. open_s: for how long, doubled each time.
        longest_open_s: at most.
        keep_s: for which the answer to an idempotency key is kept. keep: how many of them. keep_bytes: of all.
        first_s: what a request is expected to take before any was answered.
        share: of the requests that the policy decides on, beside `otherwise`; 1: all of them.
        split: whether a request of several images is sent image by image, see `splits`.
        turn_s: where one of both holds, they take turns of so long, and the share is one of turns.
        seed: of draws.

    Raises:
        InputError: a number is out of range.

    Example:
        >>> Settings(lead_s=0.05).faults
        3
    """

    limits: Limits = field(default_factory=Limits)
    lead_s: float = 0.0
    decide_s: float = 0.05
    probe_s: float = 2.0
    probe_timeout_s: float = 2.0
    patience_s: float = 60.0
    call_s: float = 30.0
    call_times: float = 10.0
    faults: int = 3
    open_s: float = 2.0
    longest_open_s: float = 60.0
    keep_s: float = 600.0
    keep: int = 256
    keep_bytes: int = 256 * 2**20
    first_s: float = 10.0
    share: float = 1.0
    split: bool = False
    turn_s: float = 300.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.limits, Limits):
            raise InputError(f"limits must be Limits, got {check.show(self.limits)}")
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in ("faults", "keep", "keep_bytes"):
                object.__setattr__(self, each.name, check.integer(value, each.name, least=1))
            elif each.name == "seed":
                object.__setattr__(self, "seed", check.integer(value, "seed", least=0))
            elif each.name in ("lead_s", "patience_s"):
                check.number(value, each.name, least=0)
            elif each.name == "split":
                check.flag(value, "split")
            elif each.name == "share":
                check.number(value, "share", above=0, most=1)
            elif each.name != "limits":
                check.number(value, each.name, above=0)
