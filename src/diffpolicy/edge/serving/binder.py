"""`Binder`: asks the policy which waiting request goes to which worker, and sends it there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from diffpolicy._types import Bools
from diffpolicy.edge.dispatch.moment import Binding, Moment
from diffpolicy.edge.serving import events
from diffpolicy.edge.serving.admission import give_up
from diffpolicy.edge.serving.attempt import attempt
from diffpolicy.edge.serving.decider import Decider, Decision, described
from diffpolicy.edge.serving.fair_share import FairShare
from diffpolicy.edge.serving.moments import Costs, moment_of
from diffpolicy.edge.serving.work import Work

if TYPE_CHECKING:
    from diffpolicy.edge.serving.service import Service

logger = logging.getLogger("diffpolicy.serving")
TICK_S = 0.1
"""Between looks at deadlines and breakers while requests wait."""


class Binder:
    """Decides, one binding after the other, whenever something may have changed.

    Args:
        service: the dispatcher, whose waiting requests and workers it binds.
    """

    def __init__(self, service: Service) -> None:
        self._service, self._fair, self._looked_s = service, FairShare(), -np.inf
        self._shadowing: asyncio.Future[None] | None = None

    @property
    def asking(self) -> list[asyncio.Future[None]]:
        """What is asked in the shadow now."""
        return [] if self._shadowing is None else [self._shadowing]

    def _give_up(self) -> None:
        """Looks for requests that nobody can do any more, now and then, since that takes a while."""
        now = self._service.clock()
        if self._service.waiting and now >= self._looked_s + TICK_S:
            self._looked_s = now
            give_up(self._service, now)

    async def run(self) -> None:
        """Binds whenever something may have changed."""
        while not self._service.ended:
            self._service.woken.clear()
            try:
                self._give_up()
                while await self._bind_one() and not self._service.ended:
                    pass
            except Exception as error:  # one request must not end the service of all others
                self._service.counts["BindingFailed"] += 1
                logger.error("a decision failed by %s", described(error))
                await asyncio.sleep(TICK_S)
            if self._service.ended:  # whatever was awaited may have swallowed that this task was cancelled
                return
            opens = (
                self._service.fleet.account.opens_s(self._service.clock()) if self._service.waiting else float("inf")
            )
            await self._service.woken.wait(min(opens, TICK_S) if self._service.waiting else None)

    async def _bind_one(self) -> bool:
        """Binds a request, if the policy wants one bound."""
        now = self._service.clock()
        foreign = bool(self._service.fleet.account.foreign_count.any())
        if not self._service.waiting or (
            self._all_hold and not foreign and not self._service.fleet.account.free(now).any()
        ):
            return False
        costs, version = self._service.fleet.costs_now(now), self._service.fleet.version
        idle: tuple[list[Work], Decider, Moment] | None = None
        for works, decider in self._turns(now):
            service = costs.service_s(works)
            able: Bools = np.asarray(np.isfinite(service).any(-1))
            if not able.any():
                continue
            if not able.all():
                works, service = [work for work, can in zip(works, able, strict=True) if can], service[able]
            moment = moment_of(works, service, self._service.fleet.account, now)
            if decider.holds and foreign:
                decision = decider.fall_back(moment)
            elif decider.holds and not moment.feasible.any():
                continue
            else:
                decision = await decider.decide(moment)
            if self._service.fleet.version != version:  # while a policy thought, places have got other workers
                return True
            if decision.failed is not None:
                self._service.tell(events.FellBack(now, decision.failed))
            if decision.binding is not None:
                self._bound(works, moment, decision, costs)
                return True
            idle = idle or (works, decider, moment)
        if idle is not None and not self._service.fleet.account.outstanding.any():
            works, decider, moment = idle  # nothing runs, so nothing will change: to wait on would be for ever
            decision = decider.fall_back(moment, "idle")
            self._service.tell(events.FellBack(now, "idle"))
            if decision.binding is not None:
                self._bound(works, moment, decision, costs)
                return True
        return False

    def _bound(self, works: Sequence[Work], moment: Moment, decision: Decision, costs: Costs) -> None:
        """Does what was decided. Args: works: of the moment. costs: from which it was made."""
        assert decision.binding is not None
        i, j = decision.binding
        work = works[i]
        if self._service.shadow and self._service.other is not None:
            self._ask_shadow(works, moment, work)
        if work in self._service.waiting:  # its client may have gone while the policy thought
            self._begin(work, j, decision, float(costs.base_s(work.request)[j]), float(moment.service_s[i, j]))

    def _ask_shadow(self, works: Sequence[Work], moment: Moment, work: Work) -> None:
        """Asks the policy what it would have done, beside what is done; nobody waits for it."""
        if self._shadowing is not None and not self._shadowing.done():
            return

        async def ask() -> None:
            asked = await self._service.decider.decide(moment)
            would = asked.failed or (self._shown(asked.binding, works) if asked.binding else "wait")
            self._service.tell(events.Shadowed(work.request.number, self._service.clock(), would))

        self._shadowing = asyncio.ensure_future(ask())

    @property
    def _all_hold(self) -> bool:
        """Whether no request is bound while no worker is free."""
        return all(decider.holds for decider in (self._service.decider, self._service.other) if decider is not None)

    def _turns(self, now: float) -> Iterator[tuple[list[Work], Decider]]:
        """Who may be bound next, and who decides on it, by turns."""
        arms: dict[bool, list[Work]] = {}
        acting = None if self._service.trial.turn_s is None else self._service.trial.arm("", now)
        for work in self._service.waiting:
            arms.setdefault(work.arm if acting is None else acting, []).append(work)
        for arm, works in arms.items():
            ours = arm and not self._service.shadow and self._service.trial.share > 0
            decider = self._service.decider if ours else self._service.other or self._service.decider
            of: dict[str, list[Work]] = {}
            for work in works:
                of.setdefault(work.request.client, []).append(work)
            for client in self._fair.turns(of):
                yield of[client], decider

    def _shown(self, binding: Binding, works: Sequence[Work]) -> str:
        """A binding in words."""
        server = self._service.fleet.servers[binding.server]
        return f"{works[binding.request].request.number} to {server.spec.name}"

    def _begin(
        self,
        work: Work,
        j: int,
        decision: Decision,
        base_s: float,
        expected: float,
    ) -> None:
        """Sends a request to a worker."""
        now = self._service.clock()
        self._service.waiting.remove(work)
        for other in self._service.waiting:
            other.passes += other.order < work.order
        clients = {w.request.client for w in self._service.waiting} | {work.request.client}
        if len(clients) > 1:
            self._fair.given(work.request.client, expected, among=clients)
        work.server, work.expected_s = j, expected
        starts = float(self._service.fleet.account.starts_s(now)[j])
        self._service.fleet.account.sent(
            j, work.order, expected_s=expected, now_s=now, cost=work.request.size or expected
        )
        self._service.running[work.order] = work
        wait = now - work.arrived_s
        name = self._service.fleet.servers[j].spec.name
        self._service.tell(
            events.Bound(
                work.request.number,
                now,
                name,
                wait,
                expected,
                decision.seconds,
                decision.by,
                len(work.begun) + 1,
            )
        )
        for ticket in (work.whole or work).tickets:
            ticket.bound()
        task = work.task = asyncio.create_task(attempt(self._service, work, j, starts, base_s))
        task.add_done_callback(lambda done: self._settle(work, j, done))

    def _settle(self, work: Work, j: int, done: asyncio.Task[None]) -> None:
        """Takes a request off the account whose task was cancelled before it had begun."""
        if work.task is done and self._service.running.get(work.order) is work:
            self._service.fleet.account.done(j, work.order, self._service.clock())
            del self._service.running[work.order]
            self._service.wake()
