"""`Arrivals`: requests as a dispatcher meets them, with what each takes on each server."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffpolicy import _validate as check
from diffpolicy._types import Floats, Ints
from diffpolicy.errors import InputError

Numbers = npt.ArrayLike


class Arrivals:
    """K requests, or parts of requests, in order of arrival, on S servers.

    Args:
        arrival_s: seconds, not decreasing, `[K]`.
        service_s: seconds that each keeps a server busy, its model loaded, `[K, S]`; infinite where it cannot run.
        expected_s: the same as the dispatcher believes it, `[K, S]`; by default it is right.
        link_s: seconds on the links, which keep no server busy, `[K, S]`; 0 by default.
        cost: as declared, in any unit, `[K]`; by default the service on the first server that can run it.
        request: number of the request that each is a part of, int64 `[K]`; by default each is one.
        model: number of the model that it needs, int64 `[K]`; by default all need the same.
        switch_s: seconds in which each server loads another model, `[S]`; 0 by default.
        cold_s: the same of the first model of all, `[S]`; by default `switch_s`.
        deadline_s: when it should have ended, `[K]`; never by default.
        weight: importance, `[K]`; 1 by default.
        kind: number of its class, for reports, int64 `[K]`; all the same by default.

    Raises:
        InputError: a shape or a value is wrong, or no server can run a request.

    Example:
        >>> arrivals = Arrivals(arrival_s=[0.0, 1.0], service_s=[[4.0, 8.0], [1.0, 2.0]])
        >>> len(arrivals), arrivals.cost.tolist()
        (2, [4.0, 1.0])
    """

    arrival_s: Floats
    service_s: Floats
    expected_s: Floats
    link_s: Floats
    cost: Floats
    request: Ints
    model: Ints
    switch_s: Floats
    cold_s: Floats
    deadline_s: Floats
    weight: Floats
    kind: Ints

    def __init__(
        self,
        arrival_s: Numbers,
        service_s: Numbers,
        expected_s: Numbers | None = None,
        link_s: Numbers | None = None,
        cost: Numbers | None = None,
        request: Numbers | None = None,
        model: Numbers | None = None,
        switch_s: Numbers | None = None,
        cold_s: Numbers | None = None,
        deadline_s: Numbers | None = None,
        weight: Numbers | None = None,
        kind: Numbers | None = None,
    ) -> None:
        service = np.array(service_s, dtype=np.float64, ndmin=2)
        k, s = service.shape
        if k == 0 or s == 0:
            raise InputError(f"service_s must be [requests, servers] of at least one each, got {list(service.shape)}")
        self.service_s = _real("service_s", service, (k, s), least=0.0, endless=True)
        self.arrival_s = _real("arrival_s", arrival_s, (k,))
        for late in np.flatnonzero(np.diff(self.arrival_s) < 0)[:1]:
            raise InputError(f"arrival_s must not decrease, got {self.arrival_s[late : late + 2].tolist()}")
        for row in np.flatnonzero(~np.isfinite(service).any(-1))[:1]:
            raise InputError(f"request {row} can run on none of the {s} servers")
        believed = service if expected_s is None else expected_s
        self.expected_s = _real("expected_s", believed, (k, s), least=0.0, endless=True)
        if (np.isfinite(self.expected_s) != np.isfinite(service)).any():
            raise InputError("expected_s must be infinite just where service_s is: where a request cannot run")
        self.link_s = _real("link_s", np.zeros((k, s)) if link_s is None else link_s, (k, s), least=0.0)
        first = service[np.arange(k), np.isfinite(service).argmax(-1)]
        self.cost = _real("cost", first if cost is None else cost, (k,), least=0.0)
        self.switch_s = _real("switch_s", np.zeros(s) if switch_s is None else switch_s, (s,), least=0.0)
        self.cold_s = _real("cold_s", self.switch_s if cold_s is None else cold_s, (s,), least=0.0)
        never = np.full(k, np.inf)
        self.deadline_s = _real("deadline_s", never if deadline_s is None else deadline_s, (k,), endless=True)
        self.weight = _real("weight", np.ones(k) if weight is None else weight, (k,), above=0.0)
        self.request = _whole("request", np.arange(k) if request is None else request, k)
        self.model = _whole("model", np.zeros(k) if model is None else model, k)
        self.kind = _whole("kind", np.zeros(k) if kind is None else kind, k)

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def servers(self) -> int:
        """How many there are, S."""
        return int(self.service_s.shape[1])

    def split(self, parts: Ints) -> Arrivals:
        """Each request as so many equal parts, which may go to different servers.

        Args:
            parts: how many, at least 1, `[K]`; a request's times, cost and links are shared out evenly.

        Returns:
            The parts, `request` telling what they belong to.
        """
        parts = np.asarray(parts, np.int64)
        if parts.shape != (len(self),) or parts.min() < 1:
            raise InputError(
                f"parts must be whole numbers of at least 1, [{len(self)}], got {check.show(parts.tolist())}"
            )
        rows, share = np.repeat(np.arange(len(self)), parts), 1 / np.repeat(parts, parts)
        picked = {
            name: getattr(self, name)[rows]
            for name in (
                "arrival_s",
                "service_s",
                "expected_s",
                "link_s",
                "cost",
                "model",
                "deadline_s",
                "weight",
                "kind",
            )
        }
        for name in ("service_s", "expected_s", "link_s"):
            picked[name] = picked[name] * share[:, None]
        picked |= {"cost": picked["cost"] * share, "request": self.request[rows]}
        return Arrivals(**picked, switch_s=self.switch_s, cold_s=self.cold_s)

    def until(self, count: int) -> Arrivals:
        """The first of them. Args: count: how many, at least 1."""
        rows = {name: value[:count] for name, value in vars(self).items() if name not in ("switch_s", "cold_s")}
        return Arrivals(**rows, switch_s=self.switch_s, cold_s=self.cold_s)


def _real(
    name: str,
    value: Numbers,
    shape: tuple[int, ...],
    *,
    least: float = -np.inf,
    above: float = -np.inf,
    endless: bool = False,
) -> Floats:
    """A real array, checked."""
    array: Floats = np.array(value, dtype=np.float64)
    if array.shape != shape:
        raise InputError(f"{name} must have shape {list(shape)}, got {list(array.shape)}")
    bad = np.isnan(array) | (array < least) | (array <= above) | (np.isinf(array) & (not endless))
    for wrong in array[bad][:1]:
        bound = " and at least 0" if least == 0 else " and above 0" if above == 0 else ""
        raise InputError(f"{name} must be {'a number' if endless else 'finite'}{bound}, got {wrong:g}")
    return array


def _whole(name: str, value: Numbers, k: int) -> Ints:
    """An array of whole numbers, checked."""
    array = np.asarray(value, dtype=np.float64)
    if array.shape != (k,) or (array != np.floor(array)).any() or array.min() < 0:
        raise InputError(f"{name} must be {k} whole numbers of at least 0, got {check.show(array.tolist())}")
    result: Ints = array.astype(np.int64)
    return result
