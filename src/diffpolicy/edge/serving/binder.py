"""`Binder`: asks the policy which waiting request goes to which worker, and sends it there."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np

from diffpolicy._types import Bools
from diffpolicy.edge.dispatch.moment import Binding, Moment
from diffpolicy.edge.serving import events
from diffpolicy.edge.serving.acting import Acting
from diffpolicy.edge.serving.bell import Bell
from diffpolicy.edge.serving.decider import Decider, Decision, described
from diffpolicy.edge.serving.fleet import Fleet
from diffpolicy.edge.serving.moments import Costs, moment_of
from diffpolicy.edge.serving.work import Work

logger = logging.getLogger("diffpolicy.serving")
TICK_S = 0.1
"""Between looks at deadlines and breakers while requests wait."""
LATE_S = 1.0
"""After which they are looked at between two bindings, where one follows the other without a pause."""


class Binder:
    """Decides, one binding after the other, whenever something may have changed.

    Args:
        acting: who decides. fleet: the workers.
        waiting: requests in order of arrival. running: those at workers, by their order; both are changed in place.
        attempt: calls a worker, at a place, and sees to what comes of it, given the seconds until it should begin and
            those that it should take.
        give_up: ends, at a time, requests that nobody can do any more. tell: takes events. clock: tells the time.
        counts: of what went wrong, by name.

    Attributes:
        ended: it is to bind nothing more.
    """

    def __init__(
        self,
        acting: Acting,
        fleet: Fleet,
        waiting: list[Work],
        running: dict[int, Work],
        *,
        attempt: Callable[[Work, int, float, float], Coroutine[Any, Any, None]],
        give_up: Callable[[float], None],
        tell: events.Listener,
        clock: Callable[[], float],
        counts: Counter[str],
    ) -> None:
        self._acting, self._fleet, self._waiting, self._running = acting, fleet, waiting, running
        self._attempt, self._give_up, self._tell, self._clock, self._counts = attempt, give_up, tell, clock, counts
        self.ended, self._looked_s = False, -np.inf
        self._woken, self._rung_s, self._since_s = Bell(), np.inf, np.inf
        """Rings when something happened that may let a request go; when it did so first, and of what is done now."""
        self._shadowing: asyncio.Future[None] | None = None

    @property
    def asking(self) -> list[asyncio.Future[None]]:
        """What is asked in the shadow now."""
        return [] if self._shadowing is None else [self._shadowing]

    def wake(self) -> None:
        """Something happened that may let a request go."""
        self._rung_s = min(self._rung_s, self._clock())
        self._woken.ring()

    async def run(self) -> None:
        """Binds whenever something may have changed."""
        while not self.ended:
            self._woken.clear()
            self._since_s, self._rung_s = self._rung_s, np.inf
            try:
                rung = np.isfinite(self._since_s)  # so a worker may be free, which need not wait for the look
                if not rung:
                    self._look()
                try:
                    while not self.ended and await self._bind_one():
                        await asyncio.sleep(0)  # it is sent before anything else is decided
                        self._look(LATE_S)
                finally:  # deadlines pass while binding fails, too
                    if rung and not self.ended:
                        self._look()
            except Exception as error:  # one request must not end the service of all others
                self._counts["BindingFailed"] += 1
                logger.error("a decision failed with %s", described(error))
                await asyncio.sleep(TICK_S)
            if self.ended:  # whatever was awaited may have swallowed that this task was cancelled
                return
            opens = self._fleet.account.opens_s(self._clock()) if self._waiting else np.inf
            await self._woken.wait(min(opens, TICK_S) if self._waiting else None)

    def _look(self, after_s: float = TICK_S) -> None:
        """Looks for requests that nobody can do any more, now and then, since that takes a while."""
        now = self._clock()
        if self._waiting and now >= self._looked_s + after_s:
            self._looked_s = now
            self._give_up(now)

    async def _bind_one(self) -> bool:
        """Binds a request, if the policy wants one bound."""
        now, fleet = self._clock(), self._fleet
        foreign = fleet.account.has_foreign
        if not self._waiting or (self._acting.all_hold and not foreign and not fleet.account.free(now).any()):
            return False
        costs, version = fleet.costs_now(now), fleet.version
        idle: tuple[list[Work], Decider, Moment] | None = None
        for works, decider in self._acting.turns(self._waiting, now):
            service = costs.service_s(works)
            able: Bools = np.asarray(np.isfinite(service).any(-1))
            if not able.any():
                continue
            if not able.all():
                works, service = [work for work, can in zip(works, able, strict=True) if can], service[able]
            moment = moment_of(works, service, fleet.account, now)
            if decider.holds and foreign:
                decision = decider.fall_back(moment)
            elif decider.holds and not moment.feasible.any():
                continue
            else:
                decision = await decider.decide(moment)
            if fleet.version != version:  # while a policy thought, places have got other workers
                return True
            if decision.failed is not None:
                self._tell(events.FellBack(now, decision.failed))
            if decision.binding is not None:
                self._bound(works, moment, decision, costs)
                return True
            idle = idle or (works, decider, moment)
        if idle is not None and not fleet.account.outstanding.any():
            works, decider, moment = idle  # nothing runs, so nothing will change: to wait on would be for ever
            decision = decider.fall_back(moment, "idle")
            self._tell(events.FellBack(now, "idle"))
            if decision.binding is not None:
                self._bound(works, moment, decision, costs)
                return True
        return False

    def _bound(self, works: Sequence[Work], moment: Moment, decision: Decision, costs: Costs) -> None:
        """Does what was decided. Args: works: of the moment. costs: from which it was made."""
        assert decision.binding is not None
        i, j = decision.binding
        work, shadowed = works[i], self._acting.shadowed
        if shadowed is not None:
            self._ask_shadow(shadowed, works, moment, work)
        if work in self._waiting:  # its client may have gone while the policy thought
            self._begin(work, j, decision, float(costs.base_s(work.request)[j]), float(moment.service_s[i, j]))

    def _ask_shadow(self, policy: Decider, works: Sequence[Work], moment: Moment, work: Work) -> None:
        """Asks the policy what it would have done, beside what is done; nobody waits for it."""
        if self._shadowing is not None and not self._shadowing.done():
            return

        async def ask() -> None:
            asked = await policy.decide(moment)
            would = asked.failed or (self._shown(asked.binding, works) if asked.binding else "wait")
            self._tell(events.Shadowed(work.request.number, self._clock(), would))

        self._shadowing = asyncio.ensure_future(ask())

    def _shown(self, binding: Binding, works: Sequence[Work]) -> str:
        """A binding in words."""
        return f"{works[binding.request].request.number} to {self._fleet.servers[binding.server].spec.name}"

    def _begin(self, work: Work, j: int, decision: Decision, base_s: float, expected_s: float) -> None:
        """Sends a request to a worker."""
        now, account = self._clock(), self._fleet.account
        self._waiting.remove(work)
        for other in self._waiting:
            other.passes += other.order < work.order
        self._acting.bound(work, expected_s, self._waiting)
        work.server, work.expected_s = j, expected_s
        starts_s = account.start_s(j, now)
        account.sent(j, work.order, expected_s=expected_s, now_s=now, cost=work.request.size or expected_s)
        self._running[work.order] = work
        number, wait_s, name = work.request.number, now - work.arrived_s, self._fleet.servers[j].spec.name
        work.bindings += 1
        # it may have come while the policy thought about another
        attempts, lag_s = work.bindings, max(now - max(self._since_s, work.arrived_s), 0.0)
        self._tell(events.Bound(number, now, name, wait_s, expected_s, decision.seconds, decision.by, attempts, lag_s))
        for ticket in (work.whole or work).tickets:
            ticket.bound()
        task = work.task = asyncio.create_task(self._attempt(work, j, starts_s, base_s))
        task.add_done_callback(lambda done: self._settle(work, j, done))

    def _settle(self, work: Work, j: int, done: asyncio.Task[None]) -> None:
        """Takes a request off the account whose task was cancelled before it had begun."""
        if work.task is done and self._running.get(work.order) is work:
            self._fleet.account.done(j, work.order, self._clock())
            del self._running[work.order]
            self.wake()
