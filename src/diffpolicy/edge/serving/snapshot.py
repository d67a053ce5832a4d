"""`Snapshot`: the dispatcher at one moment, for whoever looks on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffpolicy.edge.serving.trial import Side

if TYPE_CHECKING:
    from diffpolicy.edge.serving.service import Service

SHOWN = 100
"""Waiting requests of a snapshot."""


@dataclass(frozen=True)
class ServerView:
    """A worker.

    Args:
        state: see `Server.state`. slots, outstanding: requests. starts_s: until one that is sent now would begin.
        models: that it serves; None: nobody says. slower: how many times as long as expected it takes of late.
        foreign: requests there of others. running: those of ours, by number, those of `coming` among them.
        coming: answers on the way of requests that it is done with.
    """

    name: str
    state: str
    slots: int
    outstanding: int
    starts_s: float
    models: tuple[str, ...] | None
    slower: float
    foreign: int
    running: tuple[str, ...]
    coming: int


@dataclass(frozen=True)
class WaitingView:
    """A request that waits. Args: as in `ImageRequest`; passes: later arrivals that were bound before it."""

    number: str
    wait_s: float
    model: str
    width: int | None
    height: int | None
    steps: int | None
    images: int
    passes: int


@dataclass(frozen=True)
class Snapshot:
    """All of it.

    Args:
        time_s: of the dispatcher's clock. policy: its name. share: of the requests that it decides on.
        trial: what was seen of `policy` and of `other`, which decides on the rest; empty where there is none.
        evidence: that the policy is worse, see `Trial`; None where there is no trial.
        left: how many more of its answers the trial should take to end; None where nothing speaks against it.
        holds: whether requests wait for a free worker. draining: it takes no more requests.
        counts: of events by name, such as answered, failed, retried, fell-back.
        servers: in order. waiting: in order of arrival, at most the first hundred; queue: how many there are.
    """

    time_s: float
    policy: str
    share: float
    trial: Mapping[str, Side]
    evidence: float | None
    left: int | None
    holds: bool
    draining: bool
    counts: Mapping[str, int]
    servers: tuple[ServerView, ...]
    waiting: tuple[WaitingView, ...]
    queue: int

    @classmethod
    def of(cls, service: Service) -> Snapshot:
        """How a dispatcher stands. Args: service: it."""
        now, fleet = service.clock(), service.fleet
        starts, out = fleet.account.starts_s(now), fleet.account.outstanding
        foreign = fleet.account.foreign_count
        at: dict[int | None, list[str]] = {}
        for work in service.running.values():
            at.setdefault(work.server, []).append(work.request.number)
        return cls(
            now,
            service.decider.name,
            service.trial.share,
            service.trial.sides,
            service.trial.evidence,
            service.trial.left,
            service.decider.holds,
            service.draining,
            dict(service.counts),
            tuple(
                ServerView(
                    server.spec.name,
                    server.state(now),
                    server.slots,
                    int(out[j]),
                    float(starts[j]),
                    server.models,
                    server.drift.factor,
                    int(foreign[j]),
                    tuple(at.get(j, ())),
                    server.coming,
                )
                for j, server in enumerate(fleet.servers)
                if not server.removed or out[j] or server.coming
            ),
            tuple(
                WaitingView(r.number, now - work.arrived_s, r.model, r.width, r.height, r.steps, r.images, work.passes)
                for work in service.waiting[:SHOWN]
                for r in (work.request,)
            ),
            len(service.waiting),
        )
