"""`Server`: a worker as the dispatcher sees it."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from diffpolicy.edge.serving.bell import Bell
from diffpolicy.edge.serving.breaker import Breaker
from diffpolicy.edge.serving.drift import Drift
from diffpolicy.edge.serving.image_request import ImageRequest
from diffpolicy.edge.serving.upstream import Health, Upstream
from diffpolicy.edge.serving.worker_spec import WorkerSpec

MISSES = 2
"""Looks at a worker in a row that must fail before it is taken for dead."""

SURE = 6
"""Looks in a row, each by a connection of its own, that must find a worker started anew before its calls are ended:
where several machines answer at its address, one of them is soon another again."""

MORE = 0.5
"""By how much each answer of a worker that once was full raises how many requests it is sent at a time, and lowers how
many it is known to take where it had fewer."""

WELL_S, SPARED = 60.0, 6
"""For how long, and for how many faults of requests that another fails too, an answer says that a worker is well."""

YIELD_S = 0.25
"""For which first tries alone go to a server that may be well again: to find out costs none of them its answer."""

BOOTS = 64
"""Starts of a worker that are remembered."""


@dataclass
class Server:
    """One worker and what is known of it.

    Args:
        spec: as configured. upstream: how it is called. breaker: of its faults. drift: of its speed.
        health: as it last said; None: it was not asked yet. misses: looks in a row that failed.
        gone_s: since when it refuses connections; None: it does not.
        removed: it is no longer configured, and gets no more requests.
        retired: ways in which it was called before, until what began by them has ended.
        full_until_s: when it may be asked again after it said of two requests in a row that it is full.
        most: requests that it may have at a time, as it said by refusing more; infinite where it never did.
        held: that it had of late when it answered one of them.
        answered_s: when it answered last. refused: order of the request that it refused since, with none of ours there.
        spared: faults since then that were not held against it. failed_s: when it failed a request last, one that was
            not held against it or was forgiven, too; None: it has answered since.
        doubted: rings to look at it at once.
        foreign_seen: looks in a row that found requests there which this dispatcher did not send.
        coming: answers on the way of requests that it is done with, whose seats others have.
        boots: drawn by what answered as it, the last ones. shared: several machines do, so that they tell no restart.
        anew: looks that are left until it is believed that it started anew, 0 where nothing says so; anew_s: what was
            called before then is lost.
    """

    spec: WorkerSpec
    upstream: Upstream
    breaker: Breaker
    drift: Drift = field(default_factory=Drift)
    health: Health | None = None
    misses: int = 0
    gone_s: float | None = None
    removed: bool = False
    retired: list[Upstream] = field(default_factory=list)
    full_until_s: float = 0.0
    most: float = math.inf
    held: float = 0.0
    answered_s: float = -math.inf
    refused: int | None = None
    spared: int = 0
    failed_s: float | None = None
    doubted: Bell = field(default_factory=Bell)
    foreign_seen: int = 0
    coming: int = 0
    boots: deque[str] = field(default_factory=lambda: deque(maxlen=BOOTS))
    shared: bool = False
    anew: int = 0
    anew_s: float = 0.0
    shown: str = "unknown"
    """The state that listeners were told last."""

    def answered(self, now_s: float, held: int) -> None:
        """It answered a request and did not fail it. Args: now_s: when. held: requests that it had, this one too."""
        self.well()
        self.held = max(self.held - MORE, held)
        self.most, self.answered_s, self.refused, self.spared = self.most + MORE, now_s, None, 0

    def well(self) -> None:
        """It answered, or started anew: its faults are past."""
        self.breaker.success()
        self.failed_s = None

    def fault(self, fault_s: float, *, spared: bool = False) -> None:
        """It failed a request. Args: fault_s: when. spared: see `spare`."""
        if not spared:
            self.breaker.fault(fault_s)
        self.failed_s = fault_s

    def failing(self, now_s: float) -> bool:
        """Whether it failed what it did last, for as long as a breaker would open: nobody may try it by then.

        Args:
            now_s: the time.
        """
        if self.failed_s is None:
            return False
        return now_s < max(self.failed_s + self.breaker.open_s, self.breaker.until_s or 0.0) + YIELD_S

    def spare(self, fault_s: float) -> bool:
        """Whether a fault of a request that another worker failed too is not held against it, since it is well.

        Otherwise two workers that fail all at once, and look idle, would each clear the other. Args: fault_s: when.
        """
        well = self.spared < SPARED and self.answered_s >= fault_s - WELL_S
        self.spared += well
        return well

    @property
    def slots(self) -> int:
        """Requests that it works on at once."""
        told = self.health.slots if self.health is not None else None
        return self.spec.slots or told or 1

    @property
    def models(self) -> tuple[str, ...] | None:
        """Names that it serves; None: nobody says."""
        return self.spec.models or (self.health.models if self.health is not None else None)

    def serves(self, model: str) -> bool:
        """Whether it has a model. Args: model: its name, "" for any."""
        return not model or self.models is None or model in self.models

    def size_of(self, request: ImageRequest) -> float | None:
        """Images x steps x megapixels that it will make of a request; None: nobody tells. Args: request: any."""
        if self.health is None:
            return request.size
        return request.size_with(self.health.width, self.health.height, self.health.steps)

    def state(self, now_s: float) -> str:
        """removed, unknown, dead, draining, open, half-open or ready. Args: now_s: the time."""
        if self.removed:
            return "removed"
        if self.misses >= MISSES or (self.health is not None and not self.health.usable and not self.health.draining):
            return "dead"
        if self.health is None:
            return "unknown"
        if self.health.draining:
            return "draining"
        faults = self.breaker.state(now_s)
        return "ready" if faults == "closed" else faults

    def takes(self, now_s: float, outstanding: int) -> bool:
        """Whether a request may be sent to it now.

        Args:
            now_s: the time. outstanding: requests that it was sent and is not done with; a worker whose breaker is half
                open gets one alone, until its whole answer is here.
        """
        state = self.state(now_s)
        if now_s < self.full_until_s or outstanding + 1 > self.most:
            return False
        return state == "ready" or (state == "half-open" and outstanding == 0 and self.coming == 0)
