"""`Service`: the dispatcher. Requests come in, a policy picks the worker, an answer goes back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from diffpolicy.edge.dispatch.moment import Dispatcher
from diffpolicy.edge.serving import events
from diffpolicy.edge.serving.acting import Acting
from diffpolicy.edge.serving.admission import admit, give_up
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.attempt import attempt
from diffpolicy.edge.serving.binder import Binder
from diffpolicy.edge.serving.decider import Decider, described
from diffpolicy.edge.serving.ending import failed, left
from diffpolicy.edge.serving.fleet import Fleet
from diffpolicy.edge.serving.image_request import ImageRequest
from diffpolicy.edge.serving.repeats import Repeats
from diffpolicy.edge.serving.room import Room
from diffpolicy.edge.serving.settings import Settings
from diffpolicy.edge.serving.snapshot import Snapshot
from diffpolicy.edge.serving.split import gather, parts_of, splits
from diffpolicy.edge.serving.trial import Trial
from diffpolicy.edge.serving.trust import Trust
from diffpolicy.edge.serving.upstream import Answer, Chunk, Upstream
from diffpolicy.edge.serving.work import Ticket, Work
from diffpolicy.edge.serving.worker_spec import WorkerSpec

logger = logging.getLogger("diffpolicy.serving")


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
        room: where images that wait for others of their request count.
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
        room: Room | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings or Settings()
        self.clock, self.room = clock, Room() if room is None else room
        within, seed = self.settings.decide_s, self.settings.seed
        self.decider = Decider(policy, name, within_s=within, seed=seed)
        self.other = None if otherwise is None else Decider(otherwise, name_otherwise, within_s=within, seed=seed)
        mixed = self.other is not None and (policy.holds or self.other.holds)
        share = self.settings.share if self.other is not None and not shadow else 1.0
        self.trial = Trial(share, seed, self.settings.turn_s if mixed else None)
        self.listeners: list[events.Listener] = []
        self.counts: Counter[str] = Counter()
        self.fleet = Fleet(connect, self.settings, clock, self.tell, self._lost, self._found)
        self.waiting: list[Work] = []
        self.running: dict[int, Work] = {}
        self.draining, self._order = False, 0
        self.trust = Trust(self.settings.first_s)
        self.repeats = Repeats(self.settings)
        self._gathering: set[asyncio.Task[None]] = set()
        self.ended = False
        self._binder = Binder(
            Acting(self.decider, self.other, self.trial, shadow=shadow),
            self.fleet,
            self.waiting,
            self.running,
            attempt=partial(attempt, self),
            give_up=partial(give_up, self),
            tell=self.tell,
            clock=clock,
            counts=self.counts,
        )
        self._binding: asyncio.Task[None] | None = None
        self.fleet.replace(workers)

    async def start(self) -> None:
        """Looks at every worker once, and begins."""
        await self.fleet.start()
        self._binding = asyncio.create_task(self._binder.run())

    async def stop(self, grace_s: float = 30.0) -> None:
        """Takes no more requests, ends what is here, and stops.

        Args:
            grace_s: after which what has not ended is given up, answered by 503.
        """
        self.draining = True
        until = self.clock() + grace_s
        while (self.waiting or self.running or self._gathering) and self.clock() < until:
            await asyncio.sleep(min(0.02, grace_s))
        self.ended = self._binder.ended = True
        for work in [*self.waiting, *self.running.values()]:
            name = None if work.server is None else self.fleet.servers[work.server].spec.name
            failed(self, work, name, ApiError(503, "the service is being stopped", code="stopping", retry_after_s=5))
        tasks: list[asyncio.Future[None]] = [work.task for work in self.running.values() if work.task is not None]
        tasks += [self._binding] if self._binding is not None else []
        tasks += self._binder.asking
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._gathering, return_exceptions=True)
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
        self._binder.wake()

    def tell(self, event: events.Event) -> None:
        """Tells all who listen. Args: event: what happened."""
        self.counts[type(event).__name__] += 1
        for listener in self.listeners:
            try:
                listener(event)
            except Exception as error:  # who looks on must not stop those who are served
                self.counts["ListenerFailed"] += 1
                logger.error("a listener failed at %s by %s", type(event).__name__, described(error))
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
            known = self.repeats.find(request, now)
            if known is not None:
                return Ticket(known, chunk, partial(left, self))
            split = splits(self, request)
            admit(self, request, now, parts=request.images if split else 1)
        except ApiError as error:
            self.tell(events.Refused(request.number, now, error.status, error.code or ""))
            raise
        arm = self.trial.arm(request.number, now)
        work = self._work(request, now, arm)
        if split:
            work.parts = tuple(self._work(part, now, arm, work) for part in parts_of(request))
            gathering = asyncio.create_task(gather(self, work))
            self._gathering.add(gathering)
            gathering.add_done_callback(self._gathering.discard)
        self.repeats.add(work)
        for each in work.parts or (work,):
            self.waiting.append(each)
            r, whole = each.request, "" if each is work else request.number
            self.tell(events.Arrived(r.number, now, r.model, r.width, r.height, r.steps, r.images, r.client, whole))
        ticket = Ticket(work, chunk, partial(left, self))
        self.wake()
        return ticket

    def _work(self, request: ImageRequest, now: float, arm: bool, whole: Work | None = None) -> Work:
        """A request as it is kept here."""
        self._order += 1
        result: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        return Work(request, now, self._order - 1, arm, result, whole=whole)

    def _lost(self, j: int, called_s: float, why: str, spare: bool) -> None:
        """Ends the calls of a worker that are in vain.

        Args:
            j: its place. called_s: before when. why: is told. spare: those whose answers have begun may still end.
        """
        for work in list(self.running.values()):
            if spare and (work.comes or work.streamed):
                continue
            if work.server == j and work.called_s is not None and work.called_s <= called_s and work.task is not None:
                work.lost = why
                work.task.cancel()

    def _found(self, j: int) -> None:
        """A worker that could not be reached is there again, so requests may go there. Args: j: its place."""
        for work in self.waiting:
            work.refused.discard(j)

    def again(self, work: Work) -> None:
        """A request waits again, in its place. Args: work: it."""
        work.server = work.task = work.called_s = work.freed_s = None
        work.comes = False
        place = next((i for i, other in enumerate(self.waiting) if other.order > work.order), len(self.waiting))
        self.waiting.insert(place, work)

    def snapshot(self) -> Snapshot:
        """How things stand."""
        return Snapshot.of(self)
