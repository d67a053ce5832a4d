"""`Service`: the dispatcher. Requests come in, a policy picks the worker, an answer goes back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from diffpolicy._types import Bools
from diffpolicy.edge.dispatch.moment import Binding, Dispatcher, Moment
from diffpolicy.edge.serving import events
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.attempt import attempt
from diffpolicy.edge.serving.decider import Decider, Decision
from diffpolicy.edge.serving.fair_share import FairShare
from diffpolicy.edge.serving.fleet import Fleet
from diffpolicy.edge.serving.image_request import ImageRequest
from diffpolicy.edge.serving.moments import Costs, moment_of
from diffpolicy.edge.serving.repeats import Repeats
from diffpolicy.edge.serving.settings import Settings
from diffpolicy.edge.serving.snapshot import Snapshot
from diffpolicy.edge.serving.trial import Trial
from diffpolicy.edge.serving.upstream import Chunk, Upstream
from diffpolicy.edge.serving.work import Ticket, Work
from diffpolicy.edge.serving.worker_spec import WorkerSpec

logger = logging.getLogger("diffpolicy.serving")
TICK_S = 0.1
"""Between looks at deadlines and breakers while requests wait."""
GONE = 499
"""nginx's status for a client that went away; nobody reads it."""


class Service:
    """Takes requests, binds each to a worker when the policy says so, and sees it through.

    All of it lives in one event loop. No request that was taken is lost or answered twice: while it waits it may go
    anywhere; once it reached a worker it is tried at most once more, on another.

    Args:
        workers: the fleet.
        connect: makes the upstream of a worker.
        policy: decides which request goes to which worker, when.
        name: of the policy, as it is shown.
        settings: None: the defaults.
        otherwise: decides on the share that the policy does not; or, with `shadow`, on all. name_otherwise: its name.
        shadow: the policy is asked and not followed.
        clock: seconds that only go up.

    Raises:
        InputError: a worker is named twice.

    Example:
        >>> service = Service([WorkerSpec("http://127.0.0.1:8001")], HttpUpstream, Held())
        >>> service.usable, service.draining, service.snapshot().servers[0].state
        (False, False, 'unknown')
    """

    def __init__(
        self,
        workers: Sequence[WorkerSpec],
        connect: Callable[[WorkerSpec], Upstream],
        policy: Dispatcher,
        name: str = "policy",
        settings: Settings | None = None,
        *,
        otherwise: Dispatcher | None = None,
        name_otherwise: str = "least-finish",
        shadow: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings or Settings()
        self.clock, self.shadow = clock, shadow
        within, seed = self.settings.decide_s, self.settings.seed
        self.decider = Decider(policy, name, within_s=within, seed=seed)
        self.other = None if otherwise is None else Decider(otherwise, name_otherwise, within_s=within, seed=seed)
        mixed = self.other is not None and (policy.holds or self.other.holds)
        share = self.settings.share if self.other is not None and not shadow else 1.0
        self.trial = Trial(share, seed, self.settings.turn_s if mixed else None)
        self.listeners: list[events.Listener] = []
        self.counts: Counter[str] = Counter()
        self.fleet = Fleet(connect, self.settings, clock, self.tell)
        self.waiting: list[Work] = []
        self.running: dict[int, Work] = {}
        self.draining, self._order = False, 0
        self._repeats, self._fair = Repeats(self.settings), FairShare()
        self._wake, self._looked_s = asyncio.Event(), -np.inf
        self._binding: asyncio.Task[None] | None = None
        self._shadowing: asyncio.Future[None] | None = None
        self._ended = False
        self.fleet.replace(workers)

    async def start(self) -> None:
        """Looks at every worker once, and begins."""
        await self.fleet.start()
        self._binding = asyncio.create_task(self._bind_for_ever())

    async def stop(self, grace_s: float = 30.0) -> None:
        """Takes no more requests, ends what is here, and stops.

        Args:
            grace_s: after which what has not ended is given up, answered by 503.
        """
        self.draining = True
        until = self.clock() + grace_s
        while (self.waiting or self.running) and self.clock() < until:
            await asyncio.sleep(min(0.02, grace_s))
        self._ended = True
        for work in [*self.waiting, *self.running.values()]:
            name = None if work.server is None else self.fleet.servers[work.server].spec.name
            self.failed(work, name, ApiError(503, "the service is being stopped", code="stopping", retry_after_s=5))
        tasks = [work.task for work in self.running.values() if work.task is not None]
        tasks += [self._binding] if self._binding is not None else []
        tasks += [self._shadowing] if self._shadowing is not None else []  # type: ignore[list-item]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.waiting.clear()
        await self.fleet.stop()
        for decider in (self.decider, self.other):
            if decider is not None:
                decider.close()

    def replace_workers(self, workers: Sequence[WorkerSpec]) -> None:
        """Takes another fleet: new workers are added; those that lack get nothing more, and end what they have.

        Args:
            workers: all of them; one that is described as before stays as it is.
        """
        self.fleet.replace(workers)
        self.wake()

    def wake(self) -> None:
        """Something happened that may let a request go."""
        self._wake.set()

    def tell(self, event: events.Event) -> None:
        """Tells all who listen. Args: event: what happened."""
        self.counts[type(event).__name__] += 1
        for listener in self.listeners:
            try:
                listener(event)
            except Exception:  # who looks on must not stop those who are served
                self.counts["ListenerFailed"] += 1
                logger.exception("a listener failed at %s", type(event).__name__)
        if isinstance(event, events.WorkerChanged):
            self.wake()

    @property
    def usable(self) -> bool:
        """Whether there is a worker that takes requests, and the service does."""
        now = self.clock()
        return not self.draining and any(s.state(now) in ("ready", "half-open") for s in self.fleet.servers)

    def models(self) -> tuple[str, ...]:
        """Names of the models that workers say they serve."""
        present = [server.models or () for server in self.fleet.servers if not server.removed]
        return tuple(dict.fromkeys(name for names in present for name in names))

    def submit(self, request: ImageRequest, chunk: Chunk | None = None) -> Ticket:
        """Takes a request.

        Args:
            request: what is asked for. chunk: where the pieces of a stream go.

        Returns:
            A hold on it.

        Raises:
            ApiError: it is not taken: the queue is full, no worker is usable or has the model, or its deadline cannot
                be met.
        """
        now = self.clock()
        try:
            known = self._repeats.find(request, now)
            if known is not None:
                return Ticket(known, chunk, self._left)
            self._admit(request, now)
        except ApiError as error:
            self.tell(events.Refused(request.number, now, error.status, error.code or ""))
            raise
        result: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        work = Work(request, now, self._order, self.trial.arm(request.number, now), result)  # type: ignore[arg-type]
        self._order += 1
        self._repeats.add(work)
        self.waiting.append(work)
        r = request
        self.tell(events.Arrived(r.number, now, r.model, r.width, r.height, r.steps, r.images, r.client))
        ticket = Ticket(work, chunk, self._left)
        self.wake()
        return ticket

    def _admit(self, request: ImageRequest, now: float) -> None:
        """Refuses what cannot be done."""
        if self.draining:
            raise ApiError(503, "the service is being stopped", code="stopping", retry_after_s=5)
        if not any(s.serves(request.model) for s in self.fleet.servers if not s.removed):
            raise ApiError(404, f"no worker serves model {request.model!r}", param="model", code="model_not_found")
        if not self.usable:
            raise ApiError(503, "no worker is usable now", code="no_worker", retry_after_s=self.settings.probe_s)
        account = self.fleet.account
        queue = len(self.waiting) + int((account.outstanding - np.array(account.seats)).clip(0).sum())
        if queue >= self.settings.limits.queue:
            seconds = self.fleet.costs.mean_s * queue / max(len(self.fleet.servers), 1)
            raise ApiError(
                429,
                f"the queue is full ({queue} requests wait)",
                code="queue_full",
                retry_after_s=min(max(seconds / 2, 1.0), 60.0),
            )
        if np.isfinite(request.deadline_s):
            ends = self.fleet.account.starts_s(now) + self.fleet.costs_now(now).soon_s(request)
            if float(ends.min(initial=np.inf)) > request.deadline_s:
                raise ApiError(
                    504,
                    f"the request cannot be done within its {request.deadline_s:g} s: the earliest end is in "
                    f"{float(ends.min(initial=np.inf)):.3g} s",
                    code="deadline",
                    again=False,
                )

    def _left(self, work: Work) -> None:
        """The last client of a request went away."""
        if work.result.done():
            return
        now = self.clock()
        server = None if work.server is None else self.fleet.servers[work.server].spec.name
        self.tell(events.Cancelled(work.request.number, now, server))
        self.trial.seen(work.arm, (now - work.arrived_s) / max(self.fleet.costs.mean_s, 1e-9), work.arrived_s)
        work.fail(ApiError(GONE, "the client went away", code="client_gone"))
        if work in self.waiting:
            self.waiting.remove(work)
        if work.task is not None:
            work.task.cancel()
        self._repeats.ended(work, now)

    async def _bind_for_ever(self) -> None:
        """Binds whenever something may have changed."""
        while not self._ended:
            self._wake.clear()
            try:
                self._give_up()
                while await self._bind_one() and not self._ended:
                    pass
            except Exception:  # one request must not end the service of all others
                self.counts["BindingFailed"] += 1
                logger.exception("a decision failed")
                await asyncio.sleep(TICK_S)
            if self._ended:  # whatever was awaited may have swallowed that this task was cancelled
                return
            opens = self.fleet.account.opens_s(self.clock()) if self.waiting else float("inf")
            await _first(self._wake, min(opens, TICK_S) if self.waiting else None)

    async def _bind_one(self) -> bool:
        """Binds a request, if the policy wants one bound."""
        now = self.clock()
        foreign = bool(self.fleet.account.foreign_count.any())
        if not self.waiting or (self._all_hold and not foreign and not self.fleet.account.free(now).any()):
            return False
        costs, version = self.fleet.costs_now(now), self.fleet.version
        idle: tuple[list[Work], Decider, Moment] | None = None
        for works, decider in self._turns(now):
            service = costs.service_s(works)
            able: Bools = np.asarray(np.isfinite(service).any(-1))
            if not able.any():
                continue
            if not able.all():
                works, service = [work for work, can in zip(works, able, strict=True) if can], service[able]
            moment = moment_of(works, service, self.fleet.account, now)
            if decider.holds and foreign:
                decision = decider.fall_back(moment)
            elif decider.holds and not moment.feasible.any():
                continue
            else:
                decision = await decider.decide(moment)
            if self.fleet.version != version:  # while a policy thought, places have got other workers
                return True
            if decision.failed is not None:
                self.tell(events.FellBack(now, decision.failed))
            if decision.binding is not None:
                self._bound(works, moment, decision, costs)
                return True
            idle = idle or (works, decider, moment)
        if idle is not None and not self.fleet.account.outstanding.any():
            works, decider, moment = idle  # nothing runs, so nothing will change: to wait on would be for ever
            decision = decider.fall_back(moment, "idle")
            self.tell(events.FellBack(now, "idle"))
            if decision.binding is not None:
                self._bound(works, moment, decision, costs)
                return True
        return False

    def _bound(self, works: Sequence[Work], moment: Moment, decision: Decision, costs: Costs) -> None:
        """Does what was decided. Args: works: of the moment. costs: from which it was made."""
        assert decision.binding is not None
        i, j = decision.binding
        work = works[i]
        if self.shadow and self.other is not None:
            self._ask_shadow(works, moment, work)
        if work in self.waiting:  # its client may have gone while the policy thought
            self._begin(work, j, decision, float(costs.base_s(work.request)[j]), float(moment.service_s[i, j]))

    def _ask_shadow(self, works: Sequence[Work], moment: Moment, work: Work) -> None:
        """Asks the policy what it would have done, beside what is done; nobody waits for it."""
        if self._shadowing is not None and not self._shadowing.done():
            return

        async def ask() -> None:
            asked = await self.decider.decide(moment)
            would = asked.failed or (self._shown(asked.binding, works) if asked.binding else "wait")
            self.tell(events.Shadowed(work.request.number, self.clock(), would))

        self._shadowing = asyncio.ensure_future(ask())

    @property
    def _all_hold(self) -> bool:
        """Whether no request is bound while no worker is free."""
        return all(decider.holds for decider in (self.decider, self.other) if decider is not None)

    def _turns(self, now: float) -> Iterator[tuple[list[Work], Decider]]:
        """Who may be bound next, and who decides on it, by turns."""
        arms: dict[bool, list[Work]] = {}
        acting = None if self.trial.turn_s is None else self.trial.arm("", now)
        for work in self.waiting:
            arms.setdefault(work.arm if acting is None else acting, []).append(work)
        for arm, works in arms.items():
            ours = arm and not self.shadow and self.trial.share > 0
            decider = self.decider if ours else self.other or self.decider
            of: dict[str, list[Work]] = {}
            for work in works:
                of.setdefault(work.request.client, []).append(work)
            for client in self._fair.turns(of):
                yield of[client], decider

    def _shown(self, binding: Binding, works: Sequence[Work]) -> str:
        """A binding in words."""
        return f"{works[int(binding.request)].request.number} to {self.fleet.servers[int(binding.server)].spec.name}"

    def _begin(
        self,
        work: Work,
        j: int,
        decision: Decision,
        base_s: float,
        expected: float,
    ) -> None:
        """Sends a request to a worker."""
        now = self.clock()
        self.waiting.remove(work)
        for other in self.waiting:
            other.passes += other.order < work.order
        clients = {w.request.client for w in self.waiting} | {work.request.client}
        if len(clients) > 1:
            self._fair.given(work.request.client, expected, among=clients)
        work.server, work.expected_s = j, expected
        starts = float(self.fleet.account.starts_s(now)[j])
        self.fleet.account.sent(j, work.order, expected_s=expected, now_s=now, cost=work.request.size or expected)
        self.running[work.order] = work
        wait = now - work.arrived_s
        name = self.fleet.servers[j].spec.name
        self.tell(
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
        for ticket in work.tickets:
            ticket.bound()
        task = work.task = asyncio.create_task(attempt(self, work, j, starts, base_s))
        task.add_done_callback(lambda done: self._settle(work, j, done))

    def _settle(self, work: Work, j: int, done: asyncio.Task[None]) -> None:
        """Takes a request off the account whose task was cancelled before it had begun."""
        if work.task is done and self.running.get(work.order) is work:
            self.fleet.account.done(j, work.order, self.clock())
            del self.running[work.order]
            self.wake()

    def _give_up(self) -> None:
        """Ends requests that nobody can do any more; it looks now and then, since that takes a while."""
        now = self.clock()
        if not self.waiting or now < self._looked_s + TICK_S:
            return
        self._looked_s = now
        costs = self.fleet.costs_now(now)
        able: Bools = np.asarray(np.isfinite(costs.service_s(self.waiting)).any(-1))
        for work, can in zip(list(self.waiting), able, strict=True):
            if work.deadline_s <= now:
                self.failed(work, None, ApiError(504, "the deadline passed", code="deadline", again=False))
                continue
            if can:
                work.stranded_s = None
                continue
            could = costs.could(work)
            work.stranded_s = now if work.stranded_s is None else work.stranded_s
            if not could.any():
                self.failed(
                    work, None, ApiError(503, "no other worker can run the request", code="failed", again=False)
                )
            elif now - work.stranded_s >= self.settings.patience_s and self._nobody(could, now):
                self.failed(work, None, ApiError(503, "no worker is usable", code="no_worker", retry_after_s=5))

    def _nobody(self, could: Bools, now: float) -> bool:
        """Whether none of some servers is alive."""
        return not any(
            s.state(now) in ("ready", "half-open") for s, able in zip(self.fleet.servers, could, strict=True) if able
        )

    def again(self, work: Work) -> None:
        """A request waits again, in its place. Args: work: it."""
        work.server = work.task = None
        place = next((i for i, other in enumerate(self.waiting) if other.order > work.order), len(self.waiting))
        self.waiting.insert(place, work)

    def failed(self, work: Work, server: str | None, error: ApiError) -> None:
        """A request ends without an answer. Args: work: it. server: where it was last. error: what is told."""
        if work in self.waiting:
            self.waiting.remove(work)
        if work.result.done():
            return
        now = self.clock()
        work.fail(error)
        self.trial.lost(work.arm, work.arrived_s)
        self.tell(events.Failed(work.request.number, now, server, error.status, error.code or ""))
        self._repeats.ended(work, now)

    def answered(self, work: Work, now: float, measure: float) -> None:
        """A request was answered. Args: work: it. now: when. measure: its delay over what it should take alone."""
        self._repeats.ended(work, now)
        if self.trial.seen(work.arm, measure, work.arrived_s):
            self.tell(events.FellBack(now, "rolled-back"))

    def snapshot(self) -> Snapshot:
        """How things stand."""
        return Snapshot.of(self)


async def _first(event: asyncio.Event, within_s: float | None) -> None:
    """Waits for an event, at most so long."""
    # not by wait_for: before Python 3.12 it swallows a cancellation that comes at the same moment as the event
    happened = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({happened}, timeout=within_s)
    finally:
        happened.cancel()
