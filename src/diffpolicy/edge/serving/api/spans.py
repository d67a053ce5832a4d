"""`Spans`: one OpenTelemetry span a request, for who asks for it."""

from __future__ import annotations

import importlib
import logging
from collections import OrderedDict
from typing import Any

from diffpolicy.edge.serving.events import Answered, Arrived, Bound, Cancelled, Event, Failed, Retried
from diffpolicy.errors import InputError

logger = logging.getLogger("diffpolicy.serving")
REMEMBERED = 20_000
"""Requests in progress, at most."""


class Spans:
    """A listener; where spans go is set outside, as by `opentelemetry-instrument diffpolicy serve ...`.

    What a tracer raises costs spans, said once, and never an answer.

    Args:
        tracer: None: the one that OpenTelemetry gives.

    Raises:
        InputError: OpenTelemetry is not installed.
    """

    loses = "spans"

    def __init__(self, tracer: Any = None) -> None:
        if tracer is None:
            try:
                tracer = importlib.import_module("opentelemetry.trace").get_tracer("diffpolicy.serving")
            except ModuleNotFoundError:
                raise InputError("--spans needs OpenTelemetry: pip install opentelemetry-distro") from None
        self.tracer = tracer
        self.lost = 0
        self._open: OrderedDict[str, Any] = OrderedDict()

    def __call__(self, event: Event) -> None:
        try:
            self._trace(event)
        except Exception as error:  # of somebody else's tracer, of any kind
            self.lost += 1
            if self.lost == 1:
                logger.error("spans are lost: %s", type(error).__name__)

    def _trace(self, event: Event) -> None:
        if isinstance(event, Arrived):
            told = {"request.id": event.number, "model": event.model, "images": event.images, "client": event.client}
            self._open[event.number] = self.tracer.start_span("image request", attributes=told)
            if len(self._open) > REMEMBERED:
                self._open.popitem(last=False)[1].end()
        elif isinstance(event, (Bound, Retried)):
            span = self._open.get(event.number)
            if span is not None:
                more = {"by": event.by} if isinstance(event, Bound) else {"why": event.why}
                span.add_event(type(event).__name__.lower(), {"server": event.server, **more})
        elif isinstance(event, (Answered, Failed, Cancelled)):
            span = self._open.pop(event.number, None)
            if span is not None:
                status = 499 if isinstance(event, Cancelled) else event.status
                span.set_attribute("http.response.status_code", status)
                span.set_attribute("server", event.server or "")
                span.end()
