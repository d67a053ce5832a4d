"""Streams of workers: what of them counts as answered, what is told otherwise, and when another worker may try."""

import asyncio
import contextlib
from collections import Counter

import pytest

pytest.importorskip("fastapi")
import json

from diffpolicy.edge.dispatch import OnArrival
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.http_upstream import HttpUpstream
from diffpolicy.edge.serving.image_request import ImageRequest
from diffpolicy.edge.serving.image_stream import ImageStream
from diffpolicy.edge.serving.room import Room
from diffpolicy.edge.serving.service import Service
from diffpolicy.edge.serving.upstream import UpstreamError
from diffpolicy.edge.serving.worker_spec import WorkerSpec
from serving_fakes import event

ERROR = b'event: error\ndata: {"error": {"message": "no", "type": "server_error"}}\n\n'
STREAMS = {
    "nothing": ([], 0, 0, "without an image"),
    "comments": ([b": held\n\n", b": held\r\n\r\n"], 0, 0, "without an image"),
    "partial": ([event("partial_image", "AA==")], 1, 0, "without an image"),
    "partial, then done": ([event("partial_image", "AA=="), b"data: [DONE]\n\n"], 2, 0, "without an image"),
    "completed without one": ([event("completed")], 1, 0, "without an image"),
    "error first": ([b": held\n\n", ERROR], 0, 0, "by an error"),
    "error later": ([event("partial_image", "AA=="), ERROR], 2, 0, "by an error"),
    "error without a name": ([b'data: {"error": "no"}\n\n'], 0, 0, "by an error"),
    "error by its type": ([b'data: {"code": 5, "type": "error"}\n\n'], 0, 0, "by an error"),
    "a prompt that looks so": (
        [b"data: %s\n\n" % json.dumps({"of": '"b64_json": "AA"', "type": "image"}).encode()],
        1, 0, "without an image",
    ),
    "completed": ([event("partial_image", "AA=="), event("completed", "AA==")], 2, 1, None),
    "lines of its own": ([event("completed", "AA==", "\r\n"), event("completed", "AA==", "\r")], 2, 2, None),
    "cut at its end": ([event("completed", "AA==").rstrip()], 1, 1, None),
    "of another server": ([b'data: {"data": [{"url": "http://x/1"}]}\n\n'], 1, 1, None),
    "large": ([event("completed", "A" * 2**21)], 1, 1, None),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "passed", "images", "said"), STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("cut", [1 << 30, 5])
def test_a_stream_counts_as_answered_where_an_image_was_in_it(sent, passed, images, said, cut):
    if cut == 5 and sum(map(len, sent)) > 2**16:
        cut = 2**14
    took, room = [], Room()

    async def chunk(part):
        took.append(part)

    async def go():
        with room.share() as share:
            stream = ImageStream(chunk, share)
            whole = b"".join(sent)
            for begun in range(0, len(whole), cut):
                await stream.take(whole[begun : begun + cut])
            with pytest.raises(UpstreamError, match=said) if said else contextlib.nullcontext():
                await stream.end()
            assert share.held == 0
        assert (len(took), stream.images) == (passed, images)

    asyncio.run(go())
    assert b"".join(took).rstrip() == b"".join(sent[len(sent) - passed :]).rstrip()


@pytest.mark.parametrize(
    ("first", "ends", "status", "text"),
    [
        (b": held\n\n", True, 200, event("completed", "AA==")),
        (ERROR, True, 200, event("completed", "AA==")),
        (event("partial_image", "AA=="), True, None, "middle of the stream"),
        (event("partial_image", "AA=="), False, None, "middle of the stream"),
        (event("completed", "BB=="), False, 200, event("completed", "BB==")),
    ],
)
def test_a_stream_without_an_image_is_a_failure_and_tried_elsewhere_if_nothing_of_it_was_sent_on(
    first, ends, status, text
):
    """Whether it ends in order or breaks off; one that had its image before is answered."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    bodies = [first, event("completed", "AA==")]

    def chunked(body, whole=True):
        return head + b"%x\r\n%s\r\n" % (len(body), body) + b"0\r\n\r\n" * whole

    async def go():
        async with contextlib.AsyncExitStack() as stack:

            async def url(j):
                none = b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"

                async def serve(reader, writer):
                    asked = (await reader.readuntil(b"\r\n\r\n")).startswith(b"POST")
                    writer.write(chunked(bodies[j], ends or j) if asked else none)
                    await writer.drain()
                    writer.close()

                listening = await stack.enter_async_context(await asyncio.start_server(serve, "127.0.0.1", 0))
                return f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"

            workers = [WorkerSpec(await url(0), speed=10.0), WorkerSpec(await url(1), speed=1.0)]
            service, told, took = Service(workers, HttpUpstream, OnArrival()), [], []
            service.listeners.append(told.append)

            async def chunk(part):
                took.append(part)

            await service.start()
            try:
                ticket = service.submit(ImageRequest.parse({"prompt": "x", "stream": True}, "r1"), chunk)
                if status is None:
                    with pytest.raises(ApiError, match=text):
                        await ticket.answer()
                else:
                    assert (await ticket.answer()).status == status
                    assert b"".join(took) == text
            finally:
                await service.stop(0)
            return Counter(type(each).__name__ for each in told)

    told = asyncio.run(go())
    assert (told["Answered"], told["Failed"]) == ((1, 0) if status else (0, 1))
    assert told["Retried"] == (first in (b": held\n\n", ERROR))
