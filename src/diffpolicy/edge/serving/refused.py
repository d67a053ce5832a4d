"""`refused`: a worker says that it takes a request later, since it is full, drains or loads."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.upstream import Answer
from diffpolicy.edge.serving.work import Refusal, Work

if TYPE_CHECKING:
    from diffpolicy.edge.serving.service import Service

FULL = 429
MOST_FULL_S = 30.0
"""Longest for which a worker that says it is full is not asked again."""
LEAST_FULL_S, UNTOLD_S = 0.05, 0.5
OTHERS_S = 0.25
"""For which others may try first when a worker may be asked again: it may be this request alone that it refuses."""


def refused(service: Service, work: Work, j: int, answer: Answer, now: float) -> ApiError | None:
    """A request waits again that a worker refused for now, or it is given up.

    With requests of ours there, the worker is sent as many as it has. Without, or if it has taken more since it refused
    this one before, the request does not go there for a while; nor do others to one without, once a second one was
    refused as well. So one that no worker takes keeps nobody waiting, and lets no seat stand empty.

    Args:
        service: the dispatcher. work: the request. j: place of the worker. answer: `later` of it is true.
        now: the time.

    Returns:
        What is told where it is given up: every worker has refused it for as long as the service's patience.
    """
    server, wait = service.fleet.servers[j], _retry_after_s(answer)
    work.full_s = now if work.full_s is None else work.full_s
    again = j in work.refusals
    refusal = work.refusals.setdefault(j, Refusal(now))
    outstanding, full = len(service.fleet.account.servers[j]), answer.status == FULL
    others = again and server.answered_s > refusal.first_s
    if full and outstanding and not refusal.odd and not (others and outstanding < server.held):
        server.most, refusal.first_s = float(outstanding), now
    else:
        refusal.odd += others
        if not refusal.until_s:  # before, it may have been full
            refusal.first_s = now
        refusal.until_s = now + min(wait * 2.0 ** min(max(refusal.odd - 1, 0), 10), MOST_FULL_S) + OTHERS_S
        if full and not refusal.odd:
            if server.refused not in (None, work.order):
                server.full_until_s = now + wait
                for other in service.waiting:
                    if (met := other.refusals.get(j)) is not None:
                        met.until_s = max(met.until_s, now + wait + OTHERS_S)
            server.refused = work.order
        if not full:
            server.doubted.ring()  # if it drains, its health says so
    if now - _since_s(service, work, j) < service.settings.patience_s:
        service.again(work)
        return None
    if full:
        return ApiError(FULL, "all workers are full", code="workers_full", retry_after_s=wait)
    return ApiError(503, "no worker takes requests now", code="no_worker", retry_after_s=wait)


def _since_s(service: Service, work: Work, j: int) -> float:
    """Since when no worker that is usable takes a request.

    One that waits while others are answered is in a queue, which has a bound of its own; unless it is the request
    itself that is not taken.
    """
    now, since = service.clock(), -math.inf
    for i, server in enumerate(service.fleet.servers):
        usable = not server.removed and server.serves(work.request.model) and i not in work.begun
        if i != j and not (usable and server.state(now) in ("ready", "half-open")):
            continue
        refusal = work.refusals.get(i)
        odd = refusal is not None and refusal.odd
        since = max(since, refusal.first_s if odd and refusal else max(work.full_s or 0.0, server.answered_s))
    return since


def _retry_after_s(answer: Answer) -> float:
    """What a worker that is full asks for, within bounds."""
    try:
        told = float(answer.headers.get("retry-after", ""))
    except ValueError:
        told = UNTOLD_S
    return min(max(told, LEAST_FULL_S), MOST_FULL_S) if math.isfinite(told) else UNTOLD_S
