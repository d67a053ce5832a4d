"""`attempt`: a request at a worker, and what its outcome means."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from diffpolicy.edge.serving import events
from diffpolicy.edge.serving.answered import hand_on, learn
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.decider import described
from diffpolicy.edge.serving.ending import failed
from diffpolicy.edge.serving.refused import refused
from diffpolicy.edge.serving.turns import others_first
from diffpolicy.edge.serving.upstream import Answer, TellsEnd, UpstreamError
from diffpolicy.edge.serving.work import Work

if TYPE_CHECKING:
    from diffpolicy.edge.serving.service import Service

logger = logging.getLogger("diffpolicy.serving")
MOST_BEGUN = 2
"""Workers that may begin one request: images cost too much to try again and again."""
LATE = 3.0
"""Times the expected end after which a worker that has not answered by a client's deadline counts as faulty."""


async def attempt(service: Service, work: Work, j: int, starts_s: float, base_s: float) -> None:
    """Calls a worker and deals with what comes; whatever that is, the request waits again or has its answer then.

    Args:
        service: the dispatcher. work: the request. j: place of the worker.
        starts_s: until it should begin there. base_s: that it should take there, by the model of costs.
    """
    name = service.fleet.servers[j].spec.name
    try:
        await _attempt(service, work, j, starts_s, base_s)
    except Exception as error:  # a fault of ours: it must not leave a client waiting for ever
        service.counts["AttemptFailed"] += 1
        logger.error("a call to %s failed with %s", name, described(error))
    finally:
        # an upstream of somebody else's may also say that it was cancelled, which nobody did
        if work.task is asyncio.current_task() and not work.result.done():
            _over(service, work, j)
            failed(service, work, name, ApiError(500, "the call of a worker failed", code="failed", again=False))


async def _attempt(service: Service, work: Work, j: int, starts_s: float, base_s: float) -> None:
    """See `attempt`."""
    server, settings, sent = service.fleet.servers[j], service.settings, service.clock()
    own = max(settings.call_s, settings.call_times * (starts_s + work.expected_s))
    left = work.deadline_s - sent
    failure: ApiError | None = None
    work.called_s, work.lost = sent, None
    try:
        answer = await _call(service, work, j, min(own, left))
        work.called_s = None  # whatever is found out of its worker from here on
        if not answer.later and not answer.fault:
            # its own seat may have been given to another already
            server.answered(service.clock(), len(service.fleet.account.servers[j]) + (work.freed_s is not None))
            service.fleet.show(j)
            work.full_s = None
            here = work.freed_s is None  # otherwise the next has gone there before the body was read
            _free(service, work, j, whole=True)
            if here and service.waiting:
                await others_first()
            now = _over(service, work, j)
            hand_on(service, work, j, answer, sent if work.began_s is None else work.began_s, now, base_s)
            return
        now = _over(service, work, j)
        if answer.later:
            failure = refused(service, work, j, answer, now)
        else:
            failure = _fault(service, work, j, now, f"answered {answer.status}", reached=True, answered=True)
    except UpstreamError as error:
        begun = service.fleet.account.begun_s(j, work.order)
        now = _over(service, work, j)
        if error.late and own < left and begun is not None:  # so it takes at least as long
            learn(service, work, j, now - begun)
        if error.late and left <= own:
            if now - sent > LATE * (starts_s + work.expected_s):
                server.fault(now)
                service.fleet.show(j, str(error))
            if not service.fleet.costs.knows(work.request.model):
                service.trust.failed(work.request.model, now)
            failure = ApiError(504, "the deadline passed while a worker was at it", code="deadline", again=False)
        else:
            told = str(error), error.said
            failure = _fault(service, work, j, now, *told, reached=error.reached, answered=error.answered)
            if not (error.late or error.answered):
                server.doubted.ring()  # others that it has may be lost with it
    except asyncio.CancelledError:
        now = _over(service, work, j)
        if work.lost is None or service.ended:
            raise
        # that the worker ended is no fault of one that comes back
        failure = _again(service, work, j, now, work.lost, reached=True)
    except Exception as error:  # an upstream of somebody else's must not stop the dispatcher
        now = _over(service, work, j)
        failure = _fault(service, work, j, now, f"cannot be called: {type(error).__name__}", reached=True)
    finally:
        service.wake()
    if failure is not None:
        failed(service, work, server.spec.name, failure)


def _call(service: Service, work: Work, j: int, timeout_s: float) -> Awaitable[Answer]:
    """Sends a request to a worker; one that tells when it is done with it is free then."""
    upstream, chunk = service.fleet.servers[j].upstream, work.piece if work.request.stream else None
    if _tells_end(type(upstream)):
        call = cast(TellsEnd, upstream).call_telling
        return call(work.request, timeout_s=timeout_s, chunk=chunk, done=lambda: _free(service, work, j))
    return upstream.call(work.request, timeout_s=timeout_s, chunk=chunk)


@lru_cache(maxsize=64)
def _tells_end(kind: type) -> bool:
    """Whether upstreams of a class are of `TellsEnd`, to ask for which takes longer than to bind a request.

    One whose `call` was overridden below the class that tells is called by that, which would be passed by otherwise.
    """
    if not issubclass(kind, TellsEnd):
        return False
    names = [vars(base) for base in kind.__mro__]
    first = {name: [name in own for own in names].index(True) for name in ("call", "call_telling")}
    return first["call_telling"] <= first["call"]


def _free(service: Service, work: Work, j: int, *, whole: bool = False) -> None:
    """Gives the seat of a request to whoever waits: its worker is done with it.

    Answers on the way are as many as its slots at most, and further ones keep their seats until one of them has come:
    a worker whose answers get stuck would draw in the whole queue, and a slow link carry all of them at once, each too
    late.

    Args:
        service: the dispatcher. work: the request. j: place of its worker. whole: its answer is here.
    """
    if service.running.get(work.order) is not work:
        return
    work.comes = True
    server = service.fleet.servers[j]
    if work.freed_s is None and (whole or server.coming < server.slots):
        work.freed_s = service.clock()
        work.began_s = service.fleet.account.begun_s(j, work.order)
        service.fleet.account.done(j, work.order, work.freed_s)
        server.coming += 1
        service.wake()


def _over(service: Service, work: Work, j: int) -> float:
    """Takes a request off a worker's account. Returns: the time."""
    now = service.clock()
    if service.running.get(work.order) is work:
        if work.freed_s is None:
            service.fleet.account.done(j, work.order, now)
        else:
            service.fleet.servers[j].coming -= 1
        del service.running[work.order]
        kept = (w for w in service.running.values() if w.server == j and w.comes and w.freed_s is None)
        if (other := next(kept, None)) is not None:
            _free(service, other, j)
    return now


def _fault(
    service: Service, work: Work, j: int, now: float, why: str, said: str = "", *, reached: bool, answered: bool = False
) -> ApiError | None:
    """A worker failed a request: it waits again, or it is given up. Returns: what is told where it is.

    Why is told to all, and what the worker said to the client alone.

    One that two workers answer so may be at fault itself, and is held against neither that answers others well: some
    such requests of one client would otherwise open the breakers of all.
    """
    server, first = service.fleet.servers[j], work.blamed
    if answered and first is not None:
        blamed, fault_s = first
        if blamed.spare(fault_s):
            blamed.breaker.forgive(fault_s)
            for i, each in enumerate(service.fleet.servers):
                if each is blamed:
                    service.fleet.show(i)
    server.fault(now, spared=answered and first is not None and server.spare(now))
    work.blamed = (server, now) if answered else None
    service.fleet.show(j, why)
    return _again(service, work, j, now, why, said, reached=reached)


def _again(
    service: Service, work: Work, j: int, now: float, why: str, said: str = "", *, reached: bool
) -> ApiError | None:
    """A request waits again, for another worker, or it is given up. Returns: what is told where it is."""
    server = service.fleet.servers[j]
    (work.begun if reached else work.refused).add(j)
    if work.result.done():
        return None
    if work.streamed:
        message = f"the worker failed in the middle of the stream{f': {said}' if said else ''}"
        return ApiError(503, message, code="worker_failed", again=False)
    if len(work.begun) >= MOST_BEGUN:
        return ApiError(503, "two workers failed the request", code="worker_failed", again=False)
    work.refused_s = now if work.refused_s is None else work.refused_s
    if not reached and now - work.refused_s >= service.settings.patience_s:
        return ApiError(
            503, f"no worker takes the request: {server.spec.name} {why}", code="no_worker", retry_after_s=5
        )
    service.tell(events.Retried(work.request.number, now, server.spec.name, why))
    others = (i for i, s in enumerate(service.fleet.servers) if not s.removed and s.serves(work.request.model))
    if not reached and all(i in work.begun or i in work.refused for i in others):
        work.refused.clear()  # it began at none of these, so it may go there once one is back
    service.again(work)
    return None
