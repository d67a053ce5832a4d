"""What a policy is shown: the requests that wait and the workers that could take them, as a `Moment`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from diffpolicy._types import Bools, Floats
from diffpolicy.edge.dispatch.account import Account
from diffpolicy.edge.dispatch.cost_model import CostModel
from diffpolicy.edge.dispatch.moment import Moment
from diffpolicy.edge.serving.image_request import ImageRequest
from diffpolicy.edge.serving.server import Server
from diffpolicy.edge.serving.work import Work


def expected_s(model: CostModel, servers: Sequence[Server], request: ImageRequest) -> Floats:
    """Seconds of a request on each server, as it has learned them of sizes, `[S]`.

    Of what the request leaves open, a server that says what it makes of it (a workflow of ComfyUI) has its own size;
    the others take the mean of the model for each image.

    Args:
        model: what was learned. servers: in its order. request: any.
    """
    if request.size is not None:
        return model.expected_s(request.model, request.size)
    seconds = request.images * model.expected_s(request.model)
    for j, server in enumerate(servers):
        size = server.size_of(request)
        if size is not None:
            seconds[j] = model.expected_s(request.model, size)[j]
    return seconds


class Costs:
    """Expected seconds of works on servers, each kind of request worked out once.

    Args:
        model: what was learned of kinds. servers: for what is learned of late. now_s: the time.
        outstanding: requests that each was sent and has not answered. starts_s: tells, of a time, the seconds until
            each would begin one more, `[S]`; None: they begin at once.
    """

    def __init__(
        self,
        model: CostModel,
        servers: Sequence[Server],
        now_s: float,
        outstanding: Sequence[int],
        starts_s: Callable[[float], Floats] | None = None,
    ) -> None:
        self._model, self._servers = model, servers
        self._now_s = now_s
        self._kinds: dict[tuple[object, ...], Floats] = {}
        self._rows: dict[tuple[object, ...], Floats] = {}
        self._drift = np.array([server.drift.factor for server in servers])
        self.takes: Bools = np.array([s.takes(now_s, int(n)) for s, n in zip(servers, outstanding, strict=True)])
        self._failing: Bools = np.array([s.failed_s is not None and s.failing(now_s) for s in servers], np.bool_)
        self._starts_s = starts_s(now_s) if starts_s is not None and self._failing.any() else np.zeros(len(servers))
        self._serves: dict[str, Bools] = {}

    def base_s(self, request: ImageRequest) -> Floats:
        """As the cost model has them, `[S]`. Args: request: any."""
        kind = request.kind
        if kind not in self._kinds:
            self._kinds[kind] = expected_s(self._model, self._servers, request)
        return self._kinds[kind]

    def could(self, work: Work) -> Bools:
        """Which servers may be given a work at all, now or later, `[S]`. Args: work: any."""
        able = self._able(work.request.model)
        if work.begun or work.refused:
            able = able.copy()
            able[[*work.begun, *work.refused]] = False
        return able

    def _able(self, model: str) -> Bools:
        """Which servers have a model, `[S]`."""
        if model not in self._serves:
            self._serves[model] = np.array([s.serves(model) and not s.removed for s in self._servers])
        return self._serves[model]

    def soon_s(self, request: ImageRequest) -> Floats:
        """Seconds on each server that may be given it, now or when it takes requests again, `[S]`."""
        return np.where(self._able(request.model), self.base_s(request) * self._drift, np.inf)

    def first_s(self, request: ImageRequest) -> Floats:
        """Seconds on each server of a request that has not been anywhere, infinite where it may not go, `[S]`."""
        return np.where(self.takes & self._able(request.model), self.base_s(request) * self._drift, np.inf)

    def service_s(self, works: Sequence[Work]) -> Floats:
        """Seconds on each server as it is of late, infinite where it may not go now, `[W, S]`.

        A work that a server failed has one try left, which servers that failed of late get where nobody else can end it
        by its deadline: several that fail at once would otherwise take both tries of a work each, until their breakers
        open.

        Args:
            works: any.
        """
        rows = self._rows
        found = []
        for work in works:
            request = work.request
            gone = frozenset(work.begun | work.refused) if work.begun or work.refused else 0
            later = work.later(self._now_s) if work.refusals else ()
            key = (request.kind, gone, later)
            row = rows.get(key)
            if row is None:
                row = rows[key] = np.where(self.could(work), self.first_s(request), np.inf)
                row[list(later)] = np.inf
            if work.begun and self._failing.any():
                ends = (self._starts_s + row)[~self._failing]
                if (np.isfinite(ends) & (ends <= work.deadline_s - self._now_s)).any():
                    row = np.where(self._failing, np.inf, row)
            found.append(row)
        return np.array(found)


def moment_of(works: Sequence[Work], service_s: Floats, account: Account, now_s: float) -> Moment:
    """Of W works and S servers.

    Args:
        works: that wait, in order of arrival. service_s: of each on each server, `[W, S]`.
        account: of what was sent. now_s: the time.
    """
    finite = np.where(np.isfinite(service_s), service_s, 0.0)
    mean = finite.sum(-1) / np.isfinite(service_s).sum(-1).clip(1)
    return Moment(
        wait_s=np.array([now_s - work.arrived_s for work in works]),
        service_s=service_s,
        rest_s=_rest_s(works, service_s),
        link_s=np.zeros_like(service_s),
        passes=np.array([work.passes for work in works], np.int64),
        deadline_s=np.array([work.deadline_s - now_s for work in works]),
        weight=np.ones(len(works)),
        cost=np.array([m if w.request.size is None else w.request.size for w, m in zip(works, mean, strict=True)]),
        free=account.free(now_s),
        starts_s=account.starts_s(now_s),
        outstanding=account.outstanding,
        outstanding_cost=account.outstanding_cost,
        number=np.array([work.order for work in works], np.int64),
        loaded=np.full(service_s.shape[1], -1),
        foreign=account.foreign_count,
        seats=np.array(account.seats, np.int64),
    )


def _rest_s(works: Sequence[Work], service_s: Floats) -> Floats:
    """Of all parts of the same requests that wait, as `Arrivals.split` has it, `[W, S]`."""
    if all(work.whole is None for work in works):
        return service_s
    unsent = {id(work.whole): float(work.unsent) for work in works}
    left: Floats = np.array([1.0 if work.whole is None else unsent[id(work.whole)] for work in works])
    return service_s * left[:, None]
