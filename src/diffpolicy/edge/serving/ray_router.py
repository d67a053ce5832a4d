"""`PolicyRouter`: a request router of Ray Serve that ranks the replicas of a deployment by a policy.

Importing it imports Ray. Ray calls its router interface alpha; this is tested on 2.60.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.serve.request_router import RequestRouter

from diffpolicy.edge.dispatch.account import Account
from diffpolicy.edge.dispatch.cost_model import CostModel
from diffpolicy.edge.dispatch.moment import Moment
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.image_request import ImageRequest
from diffpolicy.edge.serving.rules import make_policy

REMEMBERED = 10_000
"""Requests whose numbers are remembered while they are routed: one that its caller gives up is never told of again."""


class PolicyRouter(RequestRouter):
    """Ranks replicas: first the one that the policy names, then the others by when they would have done the request.

    Each router, that is each handle and each proxy, keeps an account of its own, so one ingress should call the
    deployment. What a request takes on a replica is learned from those that it answered: what failed or was cancelled
    teaches nothing. Requests are OpenAI bodies, a dictionary as the first argument; of others the size is not known,
    and they take the mean.

    Set `max_ongoing_requests` of the deployment above the longest queue that a replica may get, else Ray overrules the
    policy by backing off.

    Example of a deployment:
        `RequestRouterConfig(request_router_class="diffpolicy.edge.serving.ray_router:PolicyRouter",
        request_router_kwargs={"policy": "least-finish"})`
    """

    def initialize_state(
        self, policy: str = "least-finish", slots: int = 1, first_s: float = 1.0, seed: int = 0
    ) -> None:
        """Is called by Ray with the deployment's `request_router_kwargs`.

        Args:
            policy: a rule of `diffpolicy serve` that binds on arrival. slots: requests that a replica works on at once.
            first_s: what a request is expected to take before any was done. seed: of draws.
        """
        self._policy = make_policy(policy, seed=seed).dispatcher
        self._slots = slots
        self._places: dict[str, int] = {}
        self._holders: dict[int, str] = {}
        self._counting = itertools.count()
        self._numbers: OrderedDict[Hashable, int] = OrderedDict()
        self._account = Account([])
        self._costs = CostModel(1, first_s=first_s)
        self._sent: dict[Hashable, Sent] = {}
        self._ended: dict[int, float] = {}

    def _place(self, replica_id: Any) -> int:
        """The number of a replica, a new one if it is new."""
        name = replica_id.unique_id
        if name not in self._places:
            taken = {*self._places.values(), *np.flatnonzero(self._account.outstanding).tolist()}
            j = self._places[name] = next(j for j in itertools.count() if j not in taken)
            self._holders[j] = name
            self._account.seat(j, self._slots)
            self._ended.pop(j, None)
            self._costs.forget(j)
        return self._places[name]

    def update_replicas(self, replicas: list[Any]) -> None:
        """Is called by Ray when replicas came or went. Args: replicas: all of them; the places of others are free."""
        there = {replica.replica_id.unique_id for replica in replicas}
        self._places = {name: j for name, j in self._places.items() if name in there}
        super().update_replicas(replicas)

    def _number(self, pending_request: Any) -> int:
        """What a policy calls a request, the same as often as Ray asks for it."""
        name = None if pending_request is None else pending_request.metadata.internal_request_id
        if name is None:
            return next(self._counting)
        if name not in self._numbers:
            self._numbers[name] = next(self._counting)
            if len(self._numbers) > REMEMBERED:
                self._numbers.popitem(last=False)
        return self._numbers[name]

    async def choose_replicas(self, candidate_replicas: list[Any], pending_request: Any = None) -> list[list[Any]]:
        """Replicas, each a rank of its own. Args: candidate_replicas: that may be asked. pending_request: for which."""
        if not candidate_replicas:
            return []
        request = _read(pending_request)
        now = time.monotonic()
        places = [self._place(replica.replica_id) for replica in candidate_replicas]
        starts = self._account.starts_s(now)
        service = np.full((1, len(starts)), np.inf)
        service[0, places] = self._costs.expected_s(request.model, request.size)[places]
        moment = Moment(
            wait_s=np.zeros(1),
            service_s=service,
            rest_s=service,
            link_s=np.zeros_like(service),
            passes=np.zeros(1, np.int64),
            deadline_s=np.full(1, np.inf),
            weight=np.ones(1),
            cost=np.array([request.size or self._costs.mean_s]),
            free=self._account.free(now),
            starts_s=starts,
            outstanding=self._account.outstanding,
            outstanding_cost=self._account.outstanding_cost,
            number=np.array([self._number(pending_request)], np.int64),
            loaded=np.full(service.shape[1], -1),
            seats=np.array(self._account.seats, np.int64),
        )
        binding = self._policy.decide(moment)
        first = -1 if binding is None else binding.server
        order = sorted(
            range(len(places)), key=lambda i: (places[i] != first, starts[places[i]] + service[0, places[i]])
        )
        return [[candidate_replicas[i]] for i in order]

    def on_request_routed(self, pending_request: Any, replica_id: Any, result: Any) -> None:
        """Notes where a request went. Args: pending_request: it. replica_id: where. result: of the call."""
        request, j, now = _read(pending_request), self._place(replica_id), time.monotonic()
        number = pending_request.metadata.internal_request_id
        self._numbers.pop(number, None)
        expected = float(self._costs.expected_s(request.model, request.size)[j])
        self._account.sent(j, number, expected_s=expected, now_s=now, cost=request.size or expected)
        sent = self._sent[number] = Sent(j, replica_id.unique_id, now, request)
        sent.watch = asyncio.ensure_future(self._watch(sent, result))

    async def _watch(self, sent: Sent, result: Any) -> None:
        """Waits for what a request came to, of which `on_request_completed` is not told."""
        try:
            await (await result.to_object_ref_async())
        except Exception:  # of whatever the deployment raises; and a stream has no one result
            sent.answered = False
        else:
            sent.answered = True
        self._learn(sent)

    def on_request_completed(self, replica_id: Any, internal_request_id: str) -> None:
        """Takes a request off the account. Args: replica_id: where. internal_request_id: which."""
        sent, now = self._sent.pop(internal_request_id, None), time.monotonic()
        if sent is None:
            return
        self._account.done(sent.place, internal_request_id, now)
        begun = max(sent.at_s, self._ended.get(sent.place, sent.at_s)) if self._slots == 1 else sent.at_s
        self._ended[sent.place] = now
        sent.seconds = now - begun
        self._learn(sent)

    def _learn(self, sent: Sent) -> None:
        """Takes up what a request took, once it is known that it has ended and was answered."""
        # what it came to may be told when its replica has gone and another has the place
        if sent.answered and sent.seconds is not None and self._holders[sent.place] == sent.replica:
            self._costs.observe(sent.place, sent.seconds, model=sent.request.model, size=sent.request.size)


@dataclass
class Sent:
    """A request at a replica.

    Args:
        place: of the replica. replica: its name. at_s: when it went there.
        answered: whether it was; None: that is not known yet. seconds: of its service, once it has ended.
        watch: waits for its answer.
    """

    place: int
    replica: str
    at_s: float
    request: ImageRequest
    answered: bool | None = None
    seconds: float | None = None
    watch: asyncio.Future[None] | None = None


def _read(pending_request: Any) -> ImageRequest:
    """What a request asks for, as far as it tells."""
    arguments: tuple[Any, ...] = getattr(pending_request, "args", None) or ({},)
    body = arguments[0] if isinstance(arguments[0], dict) else {}
    try:
        return ImageRequest.parse({"prompt": "-", **body}, "")
    except ApiError:
        return ImageRequest("", {})
