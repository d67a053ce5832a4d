"""`FleetChoice`: the exported decision of a live fleet policy, and what a dispatcher remembers for it. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from diffpolicy._types import Bools, Floats
from diffpolicy.edge.dispatch.moment import Moment
from diffpolicy.edge.serving.shown_speeds import ShownSpeeds, finite

FLEET = {
    *("load_gcycles", "waiting", "capacity_gcycles_per_s", "tasks", "work_gcycles", "latent"),
    *("delay_s", "service_s", "turn", "rest", "step_s", "up"),
}
"""Inputs of such a file; `diffpolicy.edge.pricing.decision` says what they are."""
LATENTS = 5
TASKS_PER_SERVER = 160.0
"""As in `diffpolicy.edge.pricing.law`, which loads torch; tests hold them equal."""


@dataclass(frozen=True)
class Memory:
    """What is remembered of each server, `[S]`; latents `[S, K]`.

    Args:
        tasks, work: moving averages of what it is sent in a step. waiting: tasks there. load: work there, as the last
            step ended. latent: of its price.
    """

    tasks: Floats
    work: Floats
    waiting: Floats
    load: Floats
    latent: Floats

    @classmethod
    def fresh(cls, speed: Floats, up: Bools, work: float) -> Memory:
        """Before anything was sent: each server gets its share. Args: speed, up: `[S]`. work: of the first task."""
        share, none = speed * up / (speed * up).sum(), np.zeros_like(speed)
        return cls(share, work * share, none, none, np.full((len(speed), LATENTS), 1 / LATENTS))


class FleetChoice:
    """Sends each request where its own delay plus the price of the time that it takes from others is smallest.

    Each request is a step of its own: work is in seconds of the fastest server, and what the file is to remember is
    renewed for the server that was chosen and for one other, as `FleetRule` does it. Where the file names no server,
    the request goes where it ends soonest, and nothing is remembered.

    Args:
        session: runs the file. servers: their number at first.
    """

    def __init__(self, session: Any, servers: int) -> None:
        self._session, self._shown = session, ShownSpeeds(servers)
        self._names = [output.name for output in session.get_outputs()]
        self._memory: Memory | None = None

    def __call__(self, moment: Moment, allowed: Bools) -> int:
        """A server. Args: moment: whose first request is meant. allowed: servers that it may go to, bool `[S]`."""
        row = finite(moment.service_s[0])
        if self._shown.take(row):
            self._memory = None
        speed = self._shown.speed
        before = self._memory or Memory.fresh(speed, allowed, float(row.min()))
        load = np.where(allowed, moment.starts_s * speed, 0.0)
        left = np.divide(load, before.load, out=np.zeros_like(load), where=before.load > 0).clip(max=1)
        now = replace(before, waiting=before.waiting * left, load=load)
        told = self._decide(now, row, allowed, turn=0.0)
        chosen = int(told["action"][0])
        if chosen < 0:  # what is remembered is not finite any more, and the index would be the last server's
            self._memory = None
            return int(np.where(allowed, row + moment.starts_s, np.inf).argmin())
        self._remember(replace(now, latent=told["next_latent"][0]), chosen, row, allowed)
        return chosen

    def _decide(self, now: Memory, row: Floats, up: Bools, *, turn: float) -> dict[str, Any]:
        """The file's outputs. Args: now: of the servers. row: seconds of the task on each. turn: 0, and 1 after it."""
        each = {
            "load_gcycles": now.load,
            "waiting": now.waiting,
            "capacity_gcycles_per_s": self._shown.speed,
            "tasks": now.tasks,
            "work_gcycles": now.work,
            "latent": now.latent,
            "delay_s": row,
            "service_s": row,
        }
        feed: dict[str, Any] = {name: value[None].astype(np.float32) for name, value in each.items()}
        feed |= {"turn": np.array([turn], np.float32), "rest": np.array([1.0 - turn], np.float32)}
        feed |= {"step_s": np.array([self._shown.every_s], np.float32), "up": up[None]}
        return dict(zip(self._names, self._session.run(None, feed), strict=True))

    def _remember(self, now: Memory, chosen: int, row: Floats, up: Bools) -> None:
        """Takes up where the task went. Args: now: before it was sent."""
        speed = self._shown.speed
        sent = np.arange(len(speed)) == chosen
        work = sent * row[chosen] * speed[chosen]
        after = replace(now, load=now.load + work, waiting=now.waiting + sent)
        renewed = self._decide(after, row, up, turn=1.0)["next_latent"][0]
        other = np.argsort(speed, kind="stable")[1 % len(speed)]
        who = sent | (np.arange(len(speed)) == other)
        share = 1 - np.exp(-1 / (TASKS_PER_SERVER * up.sum()))
        self._memory = replace(
            after,
            tasks=now.tasks + share * (sent - now.tasks),
            work=now.work + share * (work - now.work),
            latent=np.where(who[:, None], renewed, now.latent),
        )
