"""How a request ends, whatever with: its clients are told, and so are those who listen and the trial."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from diffpolicy.edge.serving import events
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.moments import expected_s
from diffpolicy.edge.serving.work import Work

if TYPE_CHECKING:
    from diffpolicy.edge.serving.service import Service

logger = logging.getLogger("diffpolicy.serving")
GONE = 499
"""nginx's status for a client that went away; nobody reads it."""


def answered(service: Service, work: Work, now: float, slowdown: float) -> None:
    """A request was answered.

    Args:
        service: the dispatcher. work: the request. now: when. slowdown: its delay over what it should take alone.
    """
    service.repeats.ended(work, now)
    _seen(service, work, slowdown)


def failed(service: Service, work: Work, server: str | None, error: ApiError) -> None:
    """A request ends without an answer.

    Args:
        service: the dispatcher. work: the request. server: where it was last. error: what is told.
    """
    if work in service.waiting:
        service.waiting.remove(work)
    if work.result.done():
        return
    now = service.clock()
    work.fail(error)
    _seen(service, work, np.inf)
    service.tell(events.Failed(work.request.number, now, server, error.status, error.code or ""))
    service.repeats.ended(work, now)


def left(service: Service, work: Work) -> None:
    """The last client of a request went away. Args: service: the dispatcher. work: the request."""
    if work.parts and not work.result.done():
        work.fail(ApiError(GONE, "the client went away", code="client_gone"))
        service.repeats.ended(work, service.clock())
    for each in work.parts or (work,):
        dropped(service, each)


def dropped(service: Service, work: Work) -> None:
    """Nobody wants a request any more, which ends if it has not. Args: service: as above. work: it, or a part."""
    if work.result.done():
        return
    now = service.clock()
    server = None if work.server is None else service.fleet.servers[work.server].spec.name
    service.tell(events.Cancelled(work.request.number, now, server))
    _seen(service, work, (now - work.arrived_s) / max(service.fleet.costs.mean_s, 1e-9))
    work.fail(ApiError(GONE, "the client went away", code="client_gone"))
    if work in service.waiting:
        service.waiting.remove(work)
    if work.task is not None:
        work.task.cancel()
    service.repeats.ended(work, now)


def joined(service: Service, whole: Work) -> None:
    """A request that was split has ended, and its parts are not needed any more.

    Args:
        service: the dispatcher. whole: the request.
    """
    whole.parts, now = (), service.clock()
    error = whole.result.exception()
    status = whole.result.result().status if error is None else error.status if isinstance(error, ApiError) else 500
    number, images = whole.request.number, whole.request.images
    delay = now - whole.arrived_s
    service.tell(events.Joined(number, now, status, images, delay))
    service.repeats.ended(whole, now)
    _seen(service, whole, np.inf if status >= 500 else delay / alone_s(service, whole))


def alone_s(service: Service, work: Work) -> float:
    """Seconds of a request on the fastest worker that has its model: what a delay is measured by.

    By those of the worker that it was sent to, a rule that takes slow workers would look as good as any.

    Args:
        service: the dispatcher. work: the request.
    """
    request, fleet = work.request, service.fleet
    able = [x.serves(request.model) and not x.removed for x in fleet.servers]
    seconds = expected_s(fleet.costs, fleet.servers, request)
    return max(float(min(seconds[able], default=np.inf)), 1e-9)


def _seen(service: Service, work: Work, slowdown: float) -> None:
    """Takes up for the trial how a request ended, and tells when that ends it. Args: slowdown: of the request."""
    trial, other = service.trial, service.other
    if work.whole is not None:  # the parts of one request are of one lot, which counts once
        return
    if not trial.seen(work.arm, slowdown, work.arrived_s) or other is None:
        return
    service.tell(events.FellBack(service.clock(), "rolled-back"))
    logger.warning("%s", trial.verdict(service.decider.name, other.name))
