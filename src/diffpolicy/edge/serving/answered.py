"""`hand_on` and `learn`: an answer goes to its client, and what its worker took is taken up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffpolicy.edge.serving import ending, events
from diffpolicy.edge.serving.upstream import Answer
from diffpolicy.edge.serving.work import Work

if TYPE_CHECKING:
    from diffpolicy.edge.serving.service import Service


def hand_on(service: Service, work: Work, j: int, answer: Answer, begun: float, now: float, base_s: float) -> None:
    """Hands an answer on, and learns from it.

    Args:
        service: the dispatcher. work: the request. j: place of its worker. answer: of whatever status.
        begun: when it began there, as far as the account knows. now: the time.
        base_s: that it should have taken, by the model of costs.
    """
    server, freed = service.fleet.servers[j], now if work.freed_s is None else work.freed_s
    seconds = freed - begun if answer.service_s is None else min(answer.service_s, now - work.arrived_s)
    if answer.status == 200:
        server.drift.observe(seconds, expected_s=base_s)
        learn(service, work, j, seconds)
    delay = now - work.arrived_s
    if not work.result.done():
        work.result.set_result(answer)
    name, number = server.spec.name, work.request.number
    start = freed - seconds
    service.tell(events.Answered(number, now, name, answer.status, start, seconds, delay, work.expected_s, freed))
    ending.answered(service, work, now, delay / ending.alone_s(service, work))


def learn(service: Service, work: Work, j: int, seconds: float) -> None:
    """Takes up how long a worker took; where nobody tells the size, for each image.

    Args:
        service: the dispatcher. work: the request. j: place of its worker. seconds: of service.
    """
    size = service.fleet.servers[j].size_of(work.request)
    images = 1 if size is not None else work.request.images
    service.fleet.costs.observe(j, seconds / images, model=work.request.model, size=size)
