"""`Outcome`: what became of requests under a dispatcher."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffpolicy._types import Floats, Ints
from diffpolicy.edge.dispatch.arrivals import Arrivals

MUCH_DEAD = 0.01
"""Share of dead time above which holding loses a good part of what it gains."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """The result of `simulate`: what became of K requests.

    Args:
        arrivals: they.
        server: where each ran, int64 `[K]`.
        bound_s: when it was bound, seconds `[K]`. start_s: when it began. finish_s: when it had ended.
        passes: how many later arrivals were bound before each, int64 `[K]`.
        refused_s: the longest time at a stretch for which a server that could run it was free and it waited, `[K]`.
        dead_s: seconds for which the server stood still between the binding and the start, `[K]`.
        sendings: how often each was sent: once, and again whenever its server failed, int64 `[K]`. All other columns
            are of the last time, but for `passes` and `refused_s`.

    Example:
        >>> arrivals = Arrivals(arrival_s=[0.0, 1.0, 2.0], service_s=[[4.0], [5.0], [1.0]])
        >>> outcome = simulate(arrivals, Held())
        >>> outcome.delay_s.tolist(), outcome.passes.tolist()
        ([4.0, 9.0, 3.0], [0, 1, 0])
    """

    arrivals: Arrivals
    server: Ints
    bound_s: Floats
    start_s: Floats
    finish_s: Floats
    passes: Ints
    refused_s: Floats
    dead_s: Floats
    sendings: Ints

    @property
    def delay_s(self) -> Floats:
        """From arrival to the end of each, links included, seconds `[K]`."""
        links = self.arrivals.link_s[np.arange(len(self.server)), self.server]
        return self.finish_s + links - self.arrivals.arrival_s

    @property
    def request_delay_s(self) -> Floats:
        """The same of whole requests, which end with their last part, in order of their numbers."""
        return self.delay_s[self.last]

    @property
    def last(self) -> Ints:
        """Which part of each whole request ended last, int64, in order of their numbers."""
        number, delay = self._whole, self.delay_s
        order = np.lexsort((delay, number))
        ends = np.append(np.flatnonzero(np.diff(number[order])), len(number) - 1)
        result: Ints = order[ends]
        return result

    def most(self, values: Floats | Ints) -> Floats:
        """The greatest value of the parts of each whole request. Args: values: at least 0, of each part, `[K]`."""
        result = np.zeros(self._whole.max() + 1)
        np.maximum.at(result, self._whole, values)
        return result

    def total(self, values: Floats | Ints) -> Floats:
        """The sum over the parts of each whole request. Args: values: of each part, `[K]`."""
        return np.bincount(self._whole, values).astype(np.float64)

    @property
    def _whole(self) -> Ints:
        """Place of the whole request of each part, in order of their numbers, `[K]`."""
        _, number = np.unique(self.arrivals.request, return_inverse=True)
        result: Ints = number.reshape(-1)
        return result

    @property
    def service_s(self) -> Floats:
        """How long each kept its server busy, a switch of the model included, seconds `[K]`."""
        return self.finish_s - self.start_s

    @property
    def dead_share(self) -> float:
        """Dead time as a share of the service time; `MUCH_DEAD` is much."""
        return float(self.dead_s.sum() / max(self.service_s.sum(), 1e-12))
