"""`WorkerMetrics`: what a worker does, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from diffpolicy.edge.serving.worker.desk import Desk, Outcome

KIND = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)


class WorkerMetrics:
    """Listens to a desk, with a registry of its own, so that two workers in one process have two.

    Args:
        desk: which it listens to from now on.
    """

    def __init__(self, desk: Desk) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "diffpolicy_worker_requests", "requests that ended", ("outcome",), registry=self.registry
        )
        self._wait, self._work = (
            Histogram(f"diffpolicy_worker_{name}_seconds", what, buckets=SECONDS, registry=self.registry)
            for name, what in (("wait", "from arrival to the start of the work"), ("service", "at work"))
        )
        self.registry.register(_Standing(desk))
        desk.heard.append(self._heard)

    def text(self) -> bytes:
        """All metrics in Prometheus's format."""
        return generate_latest(self.registry)

    def _heard(self, outcome: Outcome, waited_s: float, worked_s: float) -> None:
        self._requests.labels(outcome).inc()
        if outcome in ("ok", "failed"):
            self._wait.observe(waited_s)
            self._work.observe(worked_s)


class _Standing(Collector):
    """Gauges, read when they are asked for."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def describe(self) -> Iterator[Metric]:
        """Nothing: there need be no event loop yet."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        now = self._desk.standing()
        yield GaugeMetricFamily("diffpolicy_worker_running", "requests at work", now.running)
        yield GaugeMetricFamily("diffpolicy_worker_waiting", "requests that wait", now.waiting)
        yield GaugeMetricFamily("diffpolicy_worker_ready", "whether it takes requests", now.status == "ready")
        if now.remaining_s is not None:
            yield GaugeMetricFamily("diffpolicy_worker_remaining_seconds", "of work that is left", now.remaining_s)
