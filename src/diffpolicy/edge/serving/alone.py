"""`alone`: a moment as if one request waited."""

from __future__ import annotations

from dataclasses import replace

from diffpolicy.edge.dispatch.moment import Moment

OF_REQUESTS = ("wait_s", "service_s", "rest_s", "link_s", "passes", "deadline_s", "weight", "cost", "number")
"""Fields of a moment with a row for each request."""


def alone(moment: Moment, request: int) -> Moment:
    """A moment in which one request waits.

    Args:
        moment: any. request: its place in it.

    Example:
        >>> moment = Moment.of(service_s=[[4.0], [1.0]], wait_s=[3.0, 0.5], starts_s=[0.0])
        >>> alone(moment, 1).wait_s.tolist()
        [0.5]
    """
    return replace(moment, **{name: getattr(moment, name)[[request]] for name in OF_REQUESTS})
