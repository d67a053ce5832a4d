"""`Desk`: takes requests into a bounded queue, and has an engine make them, first come, first served."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from diffpolicy import _validate as check
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.image_request import ImageRequest
from diffpolicy.edge.serving.upstream import Chunk
from diffpolicy.edge.serving.worker.engine import Engine, StoppedError
from diffpolicy.edge.serving.worker.job import Job
from diffpolicy.edge.serving.worker.work import Claim, Work, digest_parts

logger = logging.getLogger("diffpolicy.serving")
KEPT_S, KEPT, KEPT_BYTES = 300.0, 256, 2**28
"""For how long, how many, and of how many bytes finished answers are kept for who asks again."""
SLOWEST_S = 5.0
"""Where nobody knows how long a request takes, a client is told to ask again after this."""
CANCELLED = 499
"""Of a request whose client left; nobody reads it."""
Outcome = Literal["ok", "failed", "cancelled", "late", "refused"]


@dataclass(frozen=True)
class Standing:
    """How a worker stands.

    Args:
        status: `loading`, `ready` or `draining`. boot: drawn when it started. models: that it serves.
        running: requests at work. waiting: that wait. slots: at work at once, at most.
        remaining_s: seconds of work that are left; None: nobody knows yet.
    """

    status: str
    boot: str
    models: tuple[str, ...]
    running: int
    waiting: int
    slots: int
    remaining_s: float | None


class Desk:
    """A worker without its HTTP: takes requests, queues them and runs the engine.

    A request of a number that was seen, with the same body of the same client, joins the one that is there or gets its
    answer, so that what a dispatcher sends once more after a lost connection is made once.

    Args:
        engine: makes the images. queue: requests that may wait.

    Raises:
        InputError: the queue is no such number.

    Example:
        >>> desk = Desk(make_engine("emulate:tiny-cpu", scale=0.001))
        >>> async def one() -> int:
        ...     await desk.start()
        ...     return (await desk.submit(ImageRequest.parse({"prompt": "a cat"}, "r1")).answer()).status
        >>> import asyncio
        >>> asyncio.run(one())
        200
    """

    def __init__(self, engine: Engine, queue: int = 16) -> None:
        self.engine = engine
        self.queue = check.integer(queue, "queue", least=0, most=100_000)
        self.boot = secrets.token_hex(8)
        self.heard: list[Callable[[Outcome, float, float], None]] = []
        """Told of each request's end: outcome, seconds that it waited, seconds at work."""
        self._status = "loading"
        self._waiting: deque[Work] = deque()
        self._running: set[Work] = set()
        self._packing: set[Work] = set()
        """Whose images are made, and whose files are being written while the device has the next: as many as its slots
        at most, since what writes more slowly than its device makes would otherwise hold ever more images."""
        self._known: dict[bytes, Work] = {}
        self._kept: deque[tuple[float, bytes, int]] = deque()
        self._kept_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Loads the model, then takes requests.

        Raises:
            InputError: it cannot be loaded.
        """
        await self.engine.load()
        if self._status == "loading":
            self._status = "ready"

    async def stop(self, grace_s: float) -> None:
        """Takes no more, ends what it has, and after a while leaves the rest.

        Args:
            grace_s: seconds for all that it has.
        """
        self._status = "draining"
        left = [work.done for work in (*self._running, *self._packing, *self._waiting)]
        if left:
            await asyncio.wait(left, timeout=grace_s)
        for work in (*self._waiting, *self._running, *self._packing):
            work.fail(ApiError(503, "the worker ended before the request did", code="draining", again=True))
            work.run.stop()
        self._waiting.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def submit(self, request: ImageRequest, chunk: Chunk | None = None) -> Claim:
        """Takes a request.

        Args:
            request: what is asked for. chunk: takes the events of a stream.

        Returns:
            The client's claim on its answer.

        Raises:
            ApiError: with status 400, it cannot be made; 404, of another model; 429, the queue is full; 503, the
                worker is loading or ends.
        """
        self._forget()
        key = _key(request)
        known = self._known.get(key)
        if known is not None and not known.failed:
            known.run.go_on()
            return Claim(known, chunk)
        if self._status != "ready":
            raise ApiError(503, f"the worker is {self._status}", code=self._status, retry_after_s=2.0)
        engine = self.engine
        if request.model not in ("", engine.model):
            message = f"model {check.show(request.model)} is not served here; this worker has {engine.model}"
            raise ApiError(404, message, param="model", code="model_not_found")
        if request.files and not engine.edits:
            raise ApiError(400, f"model {engine.model} edits no images", code="no_edits")
        job = Job.of(request, engine.standard, engine.kinds)
        if len(self._running) >= engine.slots and len(self._waiting) >= self.queue:
            self._tell("refused", 0.0, 0.0)
            raise ApiError(
                429, f"the queue is full ({self.queue} requests)", code="queue_full", retry_after_s=self._turn_s()
            )
        loop = asyncio.get_running_loop()
        work = Work(request, job, loop.time(), engine.expected_s(job))
        work.left = lambda: self._left(work)
        self._known[key] = work
        work.done.add_done_callback(lambda _: self._keep(key, work))
        if work.deadline_s < float("inf"):
            timer = loop.call_at(work.deadline_s, self._late, work)
            work.done.add_done_callback(lambda _: timer.cancel())
        self._waiting.append(work)
        self._begin()
        return Claim(work, chunk)

    @property
    def remaining_s(self) -> float | None:
        """Seconds of work that are left; None where nobody knows of one of them."""
        now, left = asyncio.get_running_loop().time(), 0.0
        for work in (*self._running, *self._waiting):
            if work.expected_s is None:
                return None
            since = 0.0 if work.began_s is None else now - work.began_s
            left += max(work.expected_s - since, 0.0)
        return left

    def standing(self) -> Standing:
        """How it stands now."""
        counts = len(self._running), len(self._waiting), self.engine.slots
        return Standing(self._status, self.boot, (self.engine.model,), *counts, self.remaining_s)

    def _begin(self) -> None:
        """Sets to work what there is room for."""
        for work in [work for work in self._running if work.made.done()]:
            if len(self._packing) < self.engine.slots:
                self._running.discard(work)
                self._packing.add(work)
        while self._waiting and len(self._running) < self.engine.slots:
            work = self._waiting.popleft()
            self._running.add(work)
            task = asyncio.ensure_future(self._make(work))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _make(self, work: Work) -> None:
        """Has the engine make one request."""
        loop = asyncio.get_running_loop()
        begun = work.began_s = loop.time()
        outcome: Outcome = "failed"

        def freed() -> None:
            if work in self._running and not work.done.done() and not work.made.done():
                work.made.set_result(loop.time() - begun)
                self._begin()

        work.run.freed, made = freed, work.made
        try:
            files = await self.engine.generate(work.job, work.run)
            work.finish(files, loop.time() - begun)
            outcome = "ok"
        except StoppedError:
            outcome = "cancelled"
            if work.claims and not work.done.done():  # somebody came back for it just too late
                work.run.go_on()
                work.made = loop.create_future()  # it will be made once more
                self._waiting.appendleft(work)
            else:
                work.fail(ApiError(CANCELLED, "its client went away", code="cancelled"))
        except ApiError as error:
            work.fail(error)
        except Exception as error:
            # where it was raised, and not what it says, which may hold a prompt
            at = " <- ".join(f"{f.filename}:{f.lineno}" for f in reversed(traceback.extract_tb(error.__traceback__)))
            number = work.request.number
            logger.error("request %s failed: %s at %s", number, type(error).__name__, at)
            message = f"the model failed; the worker's log says more about request {number}"
            work.fail(ApiError(500, message, code="internal_error"))
        finally:
            self._running.discard(work)
            self._packing.discard(work)
            worked_s = made.result() if made.done() else loop.time() - begun
            self._tell(outcome, begun - work.arrived_s, worked_s)
            self._begin()

    def _left(self, work: Work) -> None:
        """Nobody waits for it any more: it leaves the queue at once, or ends between two steps."""
        work.run.stop()
        if work in self._waiting:
            self._waiting.remove(work)
            self._tell("cancelled", asyncio.get_running_loop().time() - work.arrived_s, 0.0)
            work.fail(ApiError(CANCELLED, "its client went away", code="cancelled"))

    def _late(self, work: Work) -> None:
        """Its deadline passed."""
        if work in self._waiting:
            self._waiting.remove(work)
            self._tell("late", work.request.deadline_s, 0.0)
            work.fail(ApiError(504, "its deadline passed while it waited", code="deadline_passed", again=False))

    def _turn_s(self) -> float:
        """Seconds until one of the requests should be done."""
        left = self.remaining_s
        return SLOWEST_S if not left else left / (len(self._running) + len(self._waiting))

    def _tell(self, outcome: Outcome, waited_s: float, worked_s: float) -> None:
        for listener in self.heard:
            listener(outcome, waited_s, worked_s)

    def _keep(self, key: bytes, work: Work) -> None:
        """Keeps an answer; a failure is forgotten at once, so that to ask again is to try again."""
        if work.failed:
            if self._known.get(key) is work:  # and nobody has come back for it meanwhile
                del self._known[key]
        else:
            size = work.kept_bytes
            self._kept.append((asyncio.get_running_loop().time() + KEPT_S, key, size))
            self._kept_bytes += size
            self._forget()

    def _forget(self) -> None:
        """Drops answers that are too old, or too many."""
        now = asyncio.get_running_loop().time()
        while self._kept and (self._kept[0][0] < now or len(self._kept) > KEPT or self._kept_bytes > KEPT_BYTES):
            _, key, size = self._kept.popleft()
            self._kept_bytes -= size
            self._known.pop(key, None)


def _key(request: ImageRequest) -> bytes:
    """What two requests have in common that are one."""
    digest = hashlib.sha256(request.number.encode())
    for part in digest_parts(request):
        digest.update(hashlib.sha256(part).digest())
    return digest.digest()
