"""`Fleet`: the workers, what was sent to them, and what was learned of them."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence

from diffpolicy.edge.dispatch.account import Account
from diffpolicy.edge.dispatch.cost_model import CostModel
from diffpolicy.edge.serving import events
from diffpolicy.edge.serving.breaker import Breaker
from diffpolicy.edge.serving.decider import described
from diffpolicy.edge.serving.drift import Drift
from diffpolicy.edge.serving.moments import Costs
from diffpolicy.edge.serving.server import MISSES, SURE, Server
from diffpolicy.edge.serving.settings import Settings
from diffpolicy.edge.serving.upstream import Health, Upstream, UpstreamError
from diffpolicy.edge.serving.worker_spec import WorkerSpec, paired
from diffpolicy.errors import InputError

logger = logging.getLogger("diffpolicy.serving")
AGAIN_S = 0.25
"""After which a worker is looked at again where nothing was."""
LAST_S = 10.0
"""For which answers that have begun may still come from a worker that takes no connections any more: one that ends in
order gives them half of that."""
SEEN = 2
"""Looks in a row that must find foreign work: one may cross an answer on its way."""


class Fleet:
    """Workers in places that are theirs until they are removed and have ended what they had.

    Args:
        connect: makes the upstream of a worker. settings: of the dispatcher. clock: seconds that only go up.
        tell: takes events. lose: is told a worker, a time and a reason: what it was called for before is in vain; and
            whether answers that have begun are not.
        found: is told a worker that is there again.
    """

    def __init__(
        self,
        connect: Callable[[WorkerSpec], Upstream],
        settings: Settings,
        clock: Callable[[], float],
        tell: events.Listener,
        lose: Callable[[int, float, str, bool], None],
        found: Callable[[int], None],
    ) -> None:
        self._connect, self._settings, self._clock, self._tell = connect, settings, clock, tell
        self._lose, self._found = lose, found
        self.servers: list[Server] = []
        self.account = Account([], settings.lead_s)
        self.costs = CostModel(1, first_s=settings.first_s)
        self.version = 0
        """Changes with the workers: places mean others then."""
        self._watches: dict[int, asyncio.Task[None]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._ending: set[asyncio.Task[None]] = set()
        """Watches that were cancelled, which may take a while to heed it."""
        self._started = False

    async def start(self) -> None:
        """Looks at every worker once, and goes on looking."""
        self._started = True
        await asyncio.gather(*(self._looked(j) for j in range(len(self.servers))))
        for j in range(len(self.servers)):
            self._watches[j] = asyncio.create_task(self._watch(j))

    async def stop(self) -> None:
        """Looks no more, and ends the connections."""
        for j in list(self._watches):
            self._unwatch(j)
        tasks = [*self._ending, *self._closing]
        for task in self._ending:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        open_ = [upstream for server in self.servers for upstream in (server.upstream, *server.retired)]
        await asyncio.gather(*(upstream.aclose() for upstream in open_), return_exceptions=True)

    def replace(self, workers: Sequence[WorkerSpec]) -> None:
        """Takes another fleet: new workers are added; those that lack get nothing more, and end what they have.

        Args:
            workers: all of them. One whose address is there is the same machine, whatever else is said of it now: it
                keeps its account, its learned speed and what it runs.

        Raises:
            InputError: two have one name.
        """
        names = {worker.name for worker in workers}
        if len(names) < len(workers):
            raise InputError(f"workers must have different names, got {[worker.name for worker in workers]}")
        self.version += 1
        kept = paired([server.spec for server in self.servers], workers)
        for j, server in enumerate(self.servers):
            if j in kept:
                self._keep(j, kept[j])
            elif not server.removed:
                self._remove(j)
        for spec in workers:
            if spec not in kept.values():
                self._add(spec)

    def _remove(self, j: int) -> None:
        """Sends a worker nothing more. Args: j: its place."""
        server = self.servers[j]
        server.removed, server.shown = True, "removed"
        self._clear_foreign(j)
        self._tell(events.WorkerChanged(self._clock(), server.spec.name, "removed"))
        if not self._has_any(j):
            self._unwatch(j)

    def _has_any(self, j: int) -> bool:
        """Whether a worker has requests of ours, or sends answers. Args: j: its place."""
        return bool(self.account.outstanding[j]) or self.servers[j].coming > 0

    def _rewatch(self, j: int) -> None:
        """Looks at whoever is at a place now. Args: j: it."""
        if self._started:
            self._unwatch(j)
            self._watches[j] = asyncio.create_task(self._watch(j))

    def _unwatch(self, j: int) -> None:
        """Looks no more. Args: j: the worker's place."""
        if j in self._watches:
            self._end(self._watches.pop(j))

    def _keep(self, j: int, spec: WorkerSpec) -> None:
        """Takes up what is said of a worker now. Args: j: its place. spec: of the same address."""
        server, old = self.servers[j], self.servers[j].spec
        server.spec = spec
        if spec.reached != old.reached:  # what runs ends by the connections on which it began
            server.retired.append(server.upstream)
            server.upstream = self._connect(spec)
        if spec.speed is not None and spec.speed != old.speed:
            self.costs.tell(j, spec.speed)
        self.account.seat(j, server.slots)
        if server.removed:
            server.removed, server.misses, server.gone_s, server.health = False, 0, None, None
            self._rewatch(j)
        elif spec.name != old.name:
            self._tell(events.WorkerChanged(self._clock(), old.name, "removed"))
            server.shown = "unknown"
        self.show(j)

    def _add(self, spec: WorkerSpec) -> None:
        """Gives a worker the place of one that is gone, or a new one."""
        most = self._settings
        made = Server(spec, self._connect(spec), Breaker(most.faults, most.open_s, most.longest_open_s))
        left = (j for j, server in enumerate(self.servers) if server.removed and not self._has_any(j))
        j = next(left, len(self.servers))
        if j < len(self.servers):
            self._close([self.servers[j].upstream, *self.servers[j].retired])
        self.servers[j : j + 1] = [made]
        self.account.seat(j, made.slots)
        self.costs.forget(j)
        if spec.speed is not None:
            self.costs.tell(j, spec.speed)
        self._rewatch(j)

    def _close(self, upstreams: Sequence[Upstream]) -> None:
        """Ends connections that nobody uses any more."""
        for upstream in upstreams if self._started else ():
            task = asyncio.ensure_future(upstream.aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _end(self, task: asyncio.Task[None]) -> None:
        """Cancels a watch, for which `stop` will wait."""
        task.cancel()
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def costs_now(self, now_s: float) -> Costs:
        """Expected seconds as things are. Args: now_s: the time."""
        return Costs(self.costs, self.servers, now_s, self.account.outstanding.tolist(), self.account.starts_s)

    async def _watch(self, j: int) -> None:
        """Looks for as long as the worker has its place, or requests of ours after that. Args: j: its place."""
        server = self.servers[j]
        # `wait_for` may swallow a cancellation, and another watch has its place by then
        while self._watches.get(j) is asyncio.current_task() and (not server.removed or self._has_any(j)):
            server.doubted.clear()
            soon = await self._looked(j)
            await server.doubted.wait(AGAIN_S if soon else self._settings.probe_s)

    async def _looked(self, j: int) -> bool:
        """See `look`: an upstream of somebody else's may say of itself what nobody can read."""
        try:
            return await self.look(j)
        except Exception as error:
            logger.error("a look at %s failed with %s", self.servers[j].spec.name, described(error))
            return False

    async def look(self, j: int) -> bool:
        """Looks at a worker's health.

        Args:
            j: its place.

        Returns:
            Whether it seems to have ended or to have started anew, which is looked at again before it is believed.
        """
        server, before = self.servers[j], int(self.account.outstanding[j])
        asked_s, why, gone = self._clock(), "", False
        if server.retired and not self._has_any(j):
            self._close(server.retired)
            server.retired = []
        try:
            health = await asyncio.wait_for(server.upstream.health(), self._settings.probe_timeout_s)
        except (UpstreamError, TimeoutError, asyncio.TimeoutError) as error:
            server.misses += 1
            why = str(error) or "does not answer in time"
            gone = isinstance(error, UpstreamError) and error.gone
        except Exception as error:  # an upstream of somebody else's must not end the watch
            server.misses += 1
            why = type(error).__name__
        else:
            self._take(j, health, before, asked_s)
            why = health.why
        server.gone_s = (self._clock() if server.gone_s is None else server.gone_s) if gone else None
        if server.gone_s is not None and server.misses >= MISSES:
            now = self._clock()
            self._lose(j, now, f"is gone: {why}", now < server.gone_s + LAST_S)
        if server.state(self._clock()) == "dead":
            self._clear_foreign(j)  # nobody knows any more, and nothing goes there
        self.show(j, why)
        return (gone and server.misses < MISSES) or server.anew > 0

    def _clear_foreign(self, j: int) -> None:
        """Forgets what others have at a worker. Args: j: its place."""
        self.servers[j].foreign_seen = 0
        self.account.foreign(j, 0, self._clock())

    def _take(self, j: int, health: Health, before: int, asked_s: float) -> None:
        """Takes up what a worker said. Args: before: requests that it had of ours when it was asked. asked_s: when."""
        server, old = self.servers[j], self.servers[j].health
        if server.misses:
            self._found(j)
        server.misses, server.health = 0, health
        if old is not None and old.boot != health.boot:
            if self._shared(server, health.boot):
                server.anew = 0
            else:
                server.well()
                server.most, server.held = math.inf, 0.0
                if old.boot is not None and health.boot is not None:
                    # a third start right after a second takes with it what was called between the two
                    server.anew, server.anew_s = SURE, asked_s
            if old.models != health.models:
                server.drift = Drift()
                self.costs.forget(j)
        if server.anew:
            server.anew -= 1
            if not server.anew:
                self._lose(j, server.anew_s, "has started anew", False)
        if health.boot is not None and health.boot not in server.boots:
            server.boots.append(health.boot)
        self.account.seat(j, server.slots)
        if server.removed:  # others' work there keeps nobody waiting
            return
        own = max(before, int(self.account.outstanding[j]))
        running = (health.running or 0) + (health.waiting or 0)
        server.foreign_seen = server.foreign_seen + 1 if running > own else 0
        self.account.foreign(j, running if server.foreign_seen >= SEEN else 0, self._clock(), own=own)

    @staticmethod
    def _shared(server: Server, boot: str | None) -> bool:
        """Whether several machines answer as a worker: one says again what it said before another did.

        Args:
            server: the worker. boot: that it says now, which is not what it said last.
        """
        if not server.shared and boot in server.boots and boot != server.boots[-1]:
            server.shared = True
            logger.warning(
                "several machines answer at the address of worker %s: name each by an address of its own, since"
                " restarts, loads and speeds of one cannot be told from another's",
                server.spec.name,
            )
        return server.shared

    def show(self, j: int, why: str = "") -> None:
        """Tells a change of a worker's state. Args: j: its place. why: the end of a sentence about it."""
        server, now = self.servers[j], self._clock()
        state = server.state(now)
        if state != server.shown:
            server.shown = state
            self._tell(events.WorkerChanged(now, server.spec.name, state, why))
