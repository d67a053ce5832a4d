"""`Metrics`: what a service does, as Prometheus reads it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Protocol, runtime_checkable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from diffpolicy.edge.serving.events import (
    Answered,
    Bound,
    Cancelled,
    Event,
    Failed,
    FellBack,
    FileChanged,
    Joined,
    Listener,
    Refused,
    Retried,
    WorkerChanged,
)

KIND = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
SHORT = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1)
DIFFERENCES = (-60, -20, -10, -5, -2, -1, -0.5, -0.2, 0, 0.2, 0.5, 1, 2, 5, 10, 20, 60)
REMEMBERED = 20_000
"""Requests whose binding is remembered: more than can be in progress."""
GONE = 64
"""Removed workers whose series are kept: where each start of a worker is a new name, there is no end of them."""


HELD: ContextVar[Any] = ContextVar("snapshot", default=None)
"""The snapshot that is told now, where it was taken before."""


@runtime_checkable
class Loses(Protocol):
    """A listener that writes what it hears. Attributes: loses: where to. lost: how much could not be written."""

    loses: str
    lost: int


class Metrics:
    """A listener with a registry of its own, so that two services in one process have two.

    Args:
        snapshot: of the service, a dataclass whose `servers` have `name`, `state`, `outstanding`, whose `queue`
            is a number, whose `trial` has sides by their names, and whose `evidence` and `left` are its; asked when
            metrics are. beside: who listens as well; of those that are `Loses` it is told what they lost.
    """

    def __init__(self, snapshot: Callable[[], Any], beside: Sequence[Listener] = ()) -> None:
        self.registry = CollectorRegistry()

        def histogram(name: str, help_: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"diffpolicy_{name}", help_, labels, buckets=buckets, registry=self.registry)

        def counter(name: str, help_: str, *labels: str) -> Counter:
            return Counter(f"diffpolicy_{name}", help_, labels, registry=self.registry)

        self.requests = counter("requests", "requests that ended", "worker", "outcome")
        self.whole = histogram(
            "whole_request_seconds", "from arrival to answer of requests whose images were sent one by one", SECONDS
        )
        self.wholes = counter("whole_requests", "such requests that ended", "outcome")
        self.retries = counter("retries", "requests that a worker failed and that went to another", "worker")
        self.fallbacks = counter("fallbacks", "decisions in which the policy was not followed", "why")
        self.latency = histogram("request_seconds", "from arrival to answer", SECONDS, "worker")
        self.wait = histogram("wait_seconds", "from arrival to the first binding", SECONDS)
        self.service = histogram("service_seconds", "for which a request kept its worker busy", SECONDS, "worker")
        self.decision = histogram("decision_seconds", "that a decision took", SHORT)
        self.dead = histogram("dead_time_seconds", "of a binding for which its worker stood still", SHORT, "worker")
        self.missed = histogram(
            "predicted_minus_actual_seconds", "expected service minus what it was", DIFFERENCES, "worker"
        )
        self.expected = counter("expected_seconds", "of service that were expected of what was answered", "worker")
        self.served = counter("served_seconds", "of service of what was answered", "worker")
        self.files = Gauge(
            "diffpolicy_file_refused", "1 while a file says what is not followed", ("file",), registry=self.registry
        )
        self.registry.register(_Standing(snapshot, beside))
        self._bound: OrderedDict[str, Bound] = OrderedDict()
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._outcomes: dict[str, set[str]] = {}
        self._end_s: dict[str, float] = {}
        self._sent: dict[str, dict[str, tuple[float, float, float] | None]] = {}
        """Of each worker the requests that it has, in the order in which they were bound, and of one whose answer
        overtook another's: since when the worker could have begun it, when it was done with it, and seconds at it."""

    def text(self, now: Any = None) -> bytes:
        """All metrics in Prometheus's format; of hundreds of workers that takes a tenth of a second.

        Args:
            now: a snapshot, with which it may be called in a thread beside the service's; None: it is asked for.
        """
        held = HELD.set(now)
        try:
            return generate_latest(self.registry)
        finally:
            HELD.reset(held)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Bound):
            self.decision.observe(event.decision_s)
            if event.attempt == 1:
                self.wait.observe(event.wait_s)
            self._forget(event.number)
            self._bound[event.number] = event
            self._sent.setdefault(event.server, {})[event.number] = None
            if len(self._bound) > REMEMBERED:
                self._forget(next(iter(self._bound)))
        elif isinstance(event, Answered):
            self._answered(event)
        elif isinstance(event, Joined):
            self.wholes.labels(_outcome(event.status)).inc()
            if event.status < 400:
                self.whole.observe(event.delay_s)
        elif isinstance(event, Retried):
            self.retries.labels(event.server).inc()
            self._forget(event.number)
        elif isinstance(event, FellBack):
            self.fallbacks.labels(event.why).inc()
        elif isinstance(event, WorkerChanged):
            self._changed(event.server, event.state)
        elif isinstance(event, FileChanged):
            self.files.labels(event.file).set(not event.taken)
        elif isinstance(event, (Failed, Cancelled, Refused)):
            self._forget(event.number)
            server = None if isinstance(event, Refused) else event.server
            self._ended(server or "", type(event).__name__.lower())

    def _ended(self, server: str, outcome: str) -> None:
        self.requests.labels(server, outcome).inc()
        self._outcomes.setdefault(server, set()).add(outcome)

    def _changed(self, server: str, state: str) -> None:
        """Forgets those that were removed longest ago. Args: server: which is, or is there. state: its."""
        self._gone.pop(server, None)
        if state == "removed":
            self._gone[server] = None
        if len(self._gone) <= GONE:
            return
        name, _ = self._gone.popitem(last=False)
        self._end_s.pop(name, None)
        own = (self.retries, self.latency, self.service, self.dead, self.missed, self.expected, self.served)
        for metric in own:
            with suppress(KeyError):  # of one that has none, by older releases
                metric.remove(name)
        for outcome in self._outcomes.pop(name, ()):
            self.requests.remove(name, outcome)

    def _answered(self, event: Answered) -> None:
        server, end = event.server, event.time_s if event.freed_s is None else event.freed_s
        self._ended(server, _outcome(event.status))
        self.latency.labels(server).observe(event.delay_s)
        self.service.labels(server).observe(event.service_s)
        self.missed.labels(server).observe(event.expected_s - event.service_s)
        self.expected.labels(server).inc(max(event.expected_s, 0.0))
        self.served.labels(server).inc(max(event.service_s, 0.0))
        bound = self._bound.pop(event.number, None)
        if bound is not None:
            # what the dispatcher took to react is dead time
            self._sent[server][event.number] = bound.time_s - bound.lag_s, end, event.service_s
            self._settle(server)
        else:
            self._end_s[server] = max(end, self._end_s.get(server, end))

    def _forget(self, number: str) -> None:
        """A request is at its worker no more, and was not answered. Args: number: of it."""
        bound = self._bound.pop(number, None)
        if bound is not None:
            del self._sent[bound.server][number]
            self._settle(bound.server)

    def _settle(self, server: str) -> None:
        """Counts dead time of answers none of which others may have overtaken: only then is known what was before."""
        sent, known = self._sent[server], list[tuple[float, float, float]]()
        while sent and (first := sent[next(iter(sent))]) is not None:
            known.append(first)
            del sent[next(iter(sent))]
        if not sent:
            del self._sent[server]
        for since, end, service_s in sorted(known, key=lambda each: each[1]):
            # what waited at the worker for the one before it is none
            before = max(since, self._end_s.get(server, since))
            self.dead.labels(server).observe(max(end - before - service_s, 0.0))
            self._end_s[server] = max(end, before)


def _outcome(status: int) -> str:
    """A status as a label."""
    return "ok" if status < 400 else f"status-{status}"


class _Standing(Collector):
    """Gauges, read when they are asked for."""

    def __init__(self, snapshot: Callable[[], Any], beside: Sequence[Listener]) -> None:
        self.snapshot, self.beside = snapshot, beside

    def describe(self) -> Iterator[Metric]:
        """Nothing: the service need not have begun."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        held = HELD.get()
        now = self.snapshot() if held is None else held
        yield GaugeMetricFamily("diffpolicy_queue_depth", "requests that wait at the dispatcher", now.queue)
        sent = GaugeMetricFamily("diffpolicy_outstanding", "requests that a worker was sent", labels=["worker"])
        state = GaugeMetricFamily("diffpolicy_worker_state", "1 for the state it is in", labels=["worker", "state"])
        for server in now.servers:
            sent.add_metric([server.name], server.outstanding)
            state.add_metric([server.name, server.state], 1)
        seen = GaugeMetricFamily("diffpolicy_trial_answers", "answers, or turns, of a side of --share", labels=["side"])
        slower = GaugeMetricFamily(
            "diffpolicy_trial_slowdown", "of a side of --share: mean delay over what it takes alone", labels=["side"]
        )
        for name, side in now.trial.items():
            seen.add_metric([name], side.answers)
            if side.slowdown is not None:
                slower.add_metric([name], side.slowdown)
        proof = GaugeMetricFamily("diffpolicy_trial_evidence", "that the policy of --share is worse; at 200 it ends")
        left = GaugeMetricFamily("diffpolicy_trial_answers_left", "of the policy until then, if it goes on so")
        for gauge, value in ((proof, now.evidence), (left, now.left)):
            if value is not None:
                gauge.add_metric([], value)
        lost = CounterMetricFamily(
            "diffpolicy_lost", "lines of the log or of stderr, or spans, that were not written", labels=["of"]
        )
        for listener in self.beside:
            if isinstance(listener, Loses):
                lost.add_metric([listener.loses], listener.lost)
        yield from (sent, state, seen, slower, proof, left, lost)
