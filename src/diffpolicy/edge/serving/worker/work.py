"""`Work`: one request at a worker, and `Claim`: one client's interest in it."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from diffpolicy.edge.serving import headers
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.image_request import ImageRequest
from diffpolicy.edge.serving.told_images import answer_body
from diffpolicy.edge.serving.upstream import Answer, Chunk
from diffpolicy.edge.serving.worker.engine import Run
from diffpolicy.edge.serving.worker.job import Job

NO_TOKENS = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}
"""The count that OpenAI's clients expect in the last event."""


class Work:
    """A request and how far it is; several clients may wait for it.

    Args:
        request: as it came. job: what is to be made. arrived_s: of the event loop's clock. expected_s: that it takes.
    """

    def __init__(self, request: ImageRequest, job: Job, arrived_s: float, expected_s: float | None) -> None:
        self.request, self.job, self.arrived_s, self.expected_s = request, job, arrived_s, expected_s
        self.deadline_s = arrived_s + request.deadline_s
        self.run = Run(arrived_s, self._show)
        self.began_s: float | None = None
        self.claims = 0
        self.left: Callable[[], None] = self.run.stop
        """Is called when the last client has left before the end."""
        self.done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.made: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        """Seconds that it kept the device busy, once they are known."""
        self.frames: list[bytes] = []
        self._moved = asyncio.Event()

    @property
    def failed(self) -> bool:
        """Whether it is known that it will not be made."""
        return self.done.done() and self.done.exception() is not None

    @property
    def kept_bytes(self) -> int:
        """Bytes that it holds once it is done."""
        answer = self.done.result() if self.done.done() and not self.failed else Answer(0)
        return len(answer.body) + sum(map(len, self.frames)) + sum(len(file.content) for file in self.request.files)

    def finish(self, files: list[bytes], service_s: float) -> None:
        """It is made. Args: files: of the images. service_s: seconds that it took, unless `made` knows them."""
        service_s = self.made.result() if self.made.done() else service_s
        shared = {"created": int(time.time()), "output_format": self.job.kind, "size": self._size}
        images = [base64.b64encode(file) for file in files]
        body = b""
        if self.request.stream:
            for image in images:
                self._push("completed", {"b64_json": image.decode(), "usage": NO_TOKENS})
        else:
            body = answer_body(shared, images)
        self._end(Answer(200, head_of(service_s), body, service_s))

    def fail(self, error: ApiError) -> None:
        """It will not be made. Args: error: why."""
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # nobody may be waiting
            self._moved.set()

    async def follow(self, chunk: Chunk | None) -> Answer:
        """Waits for its end.

        Args:
            chunk: takes the events of a stream, those before it came among them.

        Raises:
            ApiError: it will not be made.
        """
        told = 0
        while chunk is not None:
            self._moved.clear()
            for frame in self.frames[told:]:
                await chunk(frame)
                told += 1
            if self.done.done() and told == len(self.frames):
                break
            if told == len(self.frames):
                await self._moved.wait()
        return await asyncio.shield(self.done)

    @property
    def _size(self) -> str:
        return f"{self.job.width}x{self.job.height}"

    def _end(self, answer: Answer) -> None:
        if not self.done.done():
            self.done.set_result(answer)
            self._moved.set()

    def _show(self, index: int, picture: bytes) -> None:
        image = base64.b64encode(picture).decode()
        self._push("partial_image", {"b64_json": image, "partial_image_index": index})

    def _push(self, event: str, more: dict[str, Any]) -> None:
        kind = f"image_{'edit' if self.request.files else 'generation'}.{event}"
        shared = {"created_at": int(time.time()), "output_format": self.job.kind, "size": self._size}
        frame = json.dumps({"type": kind, **shared, "quality": "auto", "background": "auto", **more})
        self.frames.append(f"event: {kind}\ndata: {frame}\n\n".encode())
        self._moved.set()


class Claim:
    """What one client holds: its interest in a piece of work. Args: work: it. chunk: takes the events of a stream."""

    def __init__(self, work: Work, chunk: Chunk | None) -> None:
        self.number = work.request.number
        self._work, self._chunk, self._held = work, chunk, True
        work.claims += 1

    @property
    def ends(self) -> tuple[asyncio.Future[float], asyncio.Future[Answer]]:
        """Done once its images are made, with the seconds that they kept the device busy; and once it has its answer.

        The first may be left undone where the second is done, and is done first where files are still to be written.
        """
        return self._work.made, self._work.done

    async def answer(self) -> Answer:
        """The images.

        Returns:
            Status 200 and the body, which is empty where they were streamed.

        Raises:
            ApiError: there are none.
        """
        return await self._work.follow(self._chunk)

    def cancel(self) -> None:
        """Its client went away; once the last one has, the work ends between two steps."""
        if self._held:
            self._held = False
            self._work.claims -= 1
            if not self._work.claims and not self._work.done.done():
                self._work.left()


def head_of(service_s: float) -> dict[str, str]:
    """Headers of an answer with images. Args: service_s: seconds that they kept the device busy."""
    return {"content-type": "application/json", headers.SERVICE_S: f"{service_s:.6f}"}


def digest_parts(request: ImageRequest) -> Iterator[bytes]:
    """What makes two requests the same. Args: request: any."""
    yield json.dumps([request.client, dict(request.body)], sort_keys=True).encode()
    for file in request.files:
        yield file.key.encode()
        yield file.content
