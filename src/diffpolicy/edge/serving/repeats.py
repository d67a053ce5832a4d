"""`Repeats`: requests that a client sends again under the same key are one request."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.image_request import ImageRequest
from diffpolicy.edge.serving.settings import Settings
from diffpolicy.edge.serving.work import Work


class Repeats:
    """Remembers works by client and key while they run, and their answers for a while.

    Args:
        settings: how long, how many and how large.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._works: OrderedDict[tuple[str, str], tuple[Work, str]] = OrderedDict()
        self._ended: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()
        """When each ended, and the bytes of its answer, oldest first."""
        self._bytes = 0

    def find(self, request: ImageRequest, now_s: float) -> Work | None:
        """The work of an earlier request of the same key.

        Args:
            request: which came now. now_s: the time.

        Raises:
            ApiError: with status 400, when the earlier one asked for something else.
        """
        if request.repeat_key is None:
            return None
        self._forget(now_s)
        found = self._works.get((request.client, request.repeat_key))
        if found is None:
            return None
        if found[1] != request.digest:
            raise ApiError(
                400, "this idempotency key was used for another request", param="idempotency-key", code="key_reused"
            )
        return found[0]

    def add(self, work: Work) -> None:
        """Remembers a work that begins. Args: work: it."""
        if work.request.repeat_key is not None:
            self._works[work.request.client, work.request.repeat_key] = (work, work.request.digest)

    def ended(self, work: Work, now_s: float) -> None:
        """Keeps an answer, and forgets a failure, so that it may be tried again. Args: work: ended. now_s: when."""
        if work.request.repeat_key is None:
            return
        key = (work.request.client, work.request.repeat_key)
        known = self._works.get(key)
        if known is None or known[0] is not work:
            return
        result = work.result
        if not result.done() or result.cancelled() or result.exception() is not None or result.result().status != 200:
            del self._works[key]
            return
        size = len(result.result().body) + sum(map(len, work.streamed))
        work.request = replace(work.request, body={}, files=())  # the answer is kept, and not what was asked
        self._ended[key] = (now_s, size)
        self._bytes += size
        self._forget(now_s)

    def _forget(self, now_s: float) -> None:
        """Drops the oldest answers while there are too many of them."""
        most = self._settings
        while self._ended:
            key, (ended_s, size) = next(iter(self._ended.items()))
            if now_s - ended_s < most.keep_s and len(self._ended) <= most.keep and self._bytes <= most.keep_bytes:
                return
            del self._ended[key], self._works[key]
            self._bytes -= size
