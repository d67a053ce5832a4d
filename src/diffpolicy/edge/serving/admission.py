"""Which requests are taken, and which of those that were are given up."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from diffpolicy._types import Bools, Floats
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.ending import failed
from diffpolicy.edge.serving.image_request import ImageRequest

if TYPE_CHECKING:
    from diffpolicy.edge.serving.service import Service


def admit(service: Service, request: ImageRequest, now: float, *, parts: int = 1) -> None:
    """Refuses what cannot be done.

    Args:
        service: the dispatcher. request: what is asked for. now: the time. parts: in which it is sent.

    Raises:
        ApiError: it is not taken.
    """
    if service.draining:
        raise ApiError(503, "the service is being stopped", code="stopping", retry_after_s=5)
    if not any(s.serves(request.model) for s in service.fleet.servers if not s.removed):
        raise ApiError(404, f"no worker serves model {request.model!r}", param="model", code="model_not_found")
    if not service.usable:
        raise ApiError(503, "no worker is usable now", code="no_worker", retry_after_s=service.settings.probe_s)
    account = service.fleet.account
    sent = zip(account.outstanding.tolist(), account.seats, service.fleet.servers, strict=True)
    # what is on its way back holds memory and a connection, too
    queue = len(service.waiting) + sum(max(count + server.coming - seats, 0) for count, seats, server in sent)
    if queue >= service.settings.limits.queue:
        seconds = service.fleet.costs.mean_s * queue / max(len(service.fleet.servers), 1)
        raise ApiError(
            429,
            f"the queue is full ({queue} requests wait)",
            code="queue_full",
            retry_after_s=min(max(seconds / 2, 1.0), 60.0),
        )
    if np.isfinite(request.deadline_s):
        part = request if parts == 1 else replace(request, images=1)
        each_s = service.fleet.costs_now(now).soon_s(part)
        end = earliest_end_s(service.fleet.account.starts_s(now), each_s, parts)
        if end > request.deadline_s:
            known = service.fleet.costs.knows(request.model)
            if not known and service.trust.tries(request.model, now):
                return
            unknown = "no request for its model has been answered yet, and others missed their deadlines"
            why = f"the earliest end is in {end:.3g} s" if known else unknown
            raise ApiError(
                504,
                f"the request cannot be done within its {request.deadline_s:g} s: {why}",
                code="deadline",
                again=False,
            )


def earliest_end_s(starts_s: Floats, each_s: Floats, parts: int) -> float:
    """When the last part would end, if each went where it ends soonest.

    Args:
        starts_s: seconds until each server begins, `[S]`. each_s: of a part on each, `[S]`. parts: how many.

    Example:
        >>> earliest_end_s(np.array([0.0, 1.0]), np.array([2.0, 2.0]), 3)
        4.0
    """
    ends = starts_s + each_s
    last = float(ends.min(initial=np.inf))
    for _ in range(parts - 1):
        place = int(ends.argmin())
        ends[place] += each_s[place]
        last = max(last, float(ends.min()))
    return last


def give_up(service: Service, now: float) -> None:
    """Ends requests that nobody can do any more. Args: service: the dispatcher. now: the time."""
    costs = service.fleet.costs_now(now)
    able: Bools = np.asarray(np.isfinite(costs.service_s(service.waiting)).any(-1))
    for work, can in zip(list(service.waiting), able, strict=True):
        if work.deadline_s <= now:
            failed(service, work, None, ApiError(504, "the deadline passed", code="deadline", again=False))
            continue
        if can:
            work.stranded_s = None
            continue
        could = costs.could(work)
        work.stranded_s = now if work.stranded_s is None else work.stranded_s
        if not could.any():
            failed(
                service, work, None, ApiError(503, "no other worker can run the request", code="failed", again=False)
            )
        elif now - work.stranded_s >= service.settings.patience_s and _nobody(service, could, now):
            failed(service, work, None, ApiError(503, "no worker is usable", code="no_worker", retry_after_s=5))


def _nobody(service: Service, could: Bools, now: float) -> bool:
    """Whether none of some servers is alive."""
    return not any(
        s.state(now) in ("ready", "half-open") for s, able in zip(service.fleet.servers, could, strict=True) if able
    )
