"""Streams of workers: what of them counts as answered, what is told otherwise, and when another worker may try."""

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from functools import partial

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")
import json

import httpx

from diffpolicy.edge.dispatch import OnArrival
from diffpolicy.edge.serving.api import make_app
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.events import Retried
from diffpolicy.edge.serving.http_upstream import HttpUpstream
from diffpolicy.edge.serving.image_request import ImageRequest
from diffpolicy.edge.serving.image_stream import ImageStream
from diffpolicy.edge.serving.room import Room
from diffpolicy.edge.serving.service import Service
from diffpolicy.edge.serving.upstream import UpstreamError
from diffpolicy.edge.serving.whole_events import ENDS, each_of
from diffpolicy.edge.serving.work import Work
from diffpolicy.edge.serving.worker_spec import WorkerSpec
from serving_fakes import IMAGE, Caller, event

ERROR = b'event: error\ndata: {"error": {"message": "no", "type": "server_error"}}\n\n'
STREAMS = {
    "nothing": ([], 0, 0, "without an image"),
    "comments": ([b": held\n\n", b": held\r\n\r\n"], 0, 0, "without an image"),
    "partial": ([event("partial_image", "AA==")], 1, 0, "without an image"),
    "partial, then done": ([event("partial_image", "AA=="), b"data: [DONE]\n\n"], 2, 0, "without an image"),
    "completed without one": ([event("completed")], 1, 0, "without an image"),
    "error first": ([b": held\n\n", ERROR], 0, 0, "by an error"),
    "error later": ([event("partial_image", "AA=="), ERROR], 1, 0, "by an error"),
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
        assert (sum(1 for _ in each_of(b"".join(took))), stream.images) == (passed, images)

    asyncio.run(go())
    ends = b"".join(part for part in sent if b"error" not in part)  # errors are told by who answers the client
    assert ends.rstrip().endswith(b"".join(took).rstrip())


@pytest.mark.parametrize(
    ("first", "ends", "status", "text"),
    [
        (b": held\n\n", True, 200, event("completed", "AA==")),
        (ERROR, True, 200, event("completed", "AA==")),
        (event("partial_image", "AA=="), True, None, "middle of the stream"),
        (event("partial_image", "AA=="), False, None, "middle of the stream"),
        (event("partial_image", "AA==") + ERROR, True, None, "middle of the stream: no$"),
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
            if status is None:
                assert b"".join(took) == event("partial_image", "AA==")
            return Counter(type(each).__name__ for each in told)

    told = asyncio.run(go())
    assert (told["Answered"], told["Failed"]) == ((1, 0) if status else (0, 1))
    assert told["Retried"] == (first in (b": held\n\n", ERROR))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ERROR, ": no"),
        (ERROR * 2, ": no"),
        (b'event: error\r\ndata: {"message": "too hot",\r\ndata: "code": 7}\r\n\r\n', ": too hot"),
        (b'data: {"error": "no"}\n\n', ": no"),
        (b'data: {"type": "error", "message": "%s"}\n\n' % (b"x" * 3000), ": " + "x" * 2000),
        (b'event: error\ndata: {"message": "%s"}\n\n' % (b"x" * 2**16), ""),
        (b"event: error\ndata: [[\n\n", ""),
        (b'event: error\ndata: {"error": {"message": 5}}\n\n', ""),
    ],
)
def test_a_client_is_told_of_an_error_amid_its_stream_once_and_in_the_shape_that_its_reader_knows(error, said):
    sent = [event("partial_image", "AA=="), error, event("partial_image", "BB==")]

    async def stream():
        for piece in sent:
            yield piece

    def handle(request):
        if request.url.path.endswith("/health"):
            return httpx.Response(404)
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=stream())

    async def go():
        connect = partial(HttpUpstream, transport=httpx.MockTransport(handle))
        service, told = Service([WorkerSpec("http://a:1", "a")], connect, OnArrival()), []
        service.listeners.append(told.append)
        await service.start()
        try:
            caller = Caller(make_app(service), "/v1/images/generations", b'{"prompt": "x", "stream": true}')
            await caller.task
            assert len(said) < 5 or said[2:] not in str(told)  # which are logged
            return caller.body
        finally:
            await service.stop(0)

    body = asyncio.run(go())
    *before, last = list(each_of(body))
    assert before == [sent[0], sent[2]]
    name, data, *_ = last.decode().split("\n")
    told = json.loads(data.removeprefix("data: "))["error"]
    assert name == "event: error"
    assert told["message"] == f"the worker failed in the middle of the stream{said}"
    assert told["code"] == "worker_failed"


def test_an_event_stream_that_nobody_asked_for_is_a_fault_of_its_worker_and_reaches_no_client():
    """Its client reads JSON; another worker may have some."""
    stream = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=event("completed", "AA=="))
    whole = httpx.Response(200, json=IMAGE)

    def handle(request):
        return httpx.Response(404) if request.method == "GET" else stream if request.url.host == "a" else whole

    async def go():
        workers = [WorkerSpec("http://a:1", "a", speed=10.0), WorkerSpec("http://b:1", "b", speed=1.0)]
        connect, told = partial(HttpUpstream, transport=httpx.MockTransport(handle)), []
        service = Service(workers, connect, OnArrival())
        service.listeners.append(told.append)
        await service.start()
        try:
            answer = await service.submit(ImageRequest.parse({"prompt": "x"}, "r1")).answer()
            assert json.loads(answer.body) == IMAGE
        finally:
            await service.stop(0)
        assert [(e.server, e.why) for e in told if isinstance(e, Retried)] == [
            ("a", "answers with a stream of events, which was not asked for")
        ]

    asyncio.run(go())


def test_events_are_cut_at_the_first_empty_line_of_any_kind():
    for length in range(1, 8):
        for text in map(bytes, itertools.product(b"\n\ra", repeat=length)):
            begun, cut = 0, []
            while begun < length:
                ends = [text.find(end, begun) + len(end) for end in ENDS if end in text[begun:]]
                cut.append(text[begun : min(ends, default=length)])
                begun += len(cut[-1])
            assert list(each_of(text)) == cut


def test_to_cut_many_events_takes_time_in_proportion_to_them():
    def seconds(events):
        body, taken = b"data: 1\n\n" * events, []
        for _ in range(5):
            begun = time.process_time()
            assert sum(1 for _ in each_of(body)) == events
            taken.append(time.process_time() - begun)
        return min(taken)

    assert seconds(40_000) < 30 * seconds(4_000)  # ten times; to read all for each event a hundred times


@pytest.mark.parametrize(("event", "pieces"), [(b"data: 1\n\n", 101), (b":\n\n", 0)])
def test_others_have_their_turn_while_a_read_holds_many_events(event, pieces):
    """And neighbours go on as one piece, of which each takes room in this process."""
    events, turns, took = 6401, 0, []

    async def other():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def chunk(piece):
        took.append(piece)

    async def go():
        beside = asyncio.ensure_future(other())
        with Room().share() as share:
            await ImageStream(chunk, share).take(event * events)
        beside.cancel()

    asyncio.run(go())
    assert len(took) == pieces
    assert b"".join(took) == (event * events if pieces else b"")
    assert turns >= events // 64 - 1


def test_others_have_their_turn_while_a_worker_of_any_kind_gives_many_pieces():
    pieces, turns = 6400, 0

    async def other():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def go():
        work = Work(ImageRequest.parse({"prompt": "x"}, "r"), 0.0, 0, True, asyncio.get_running_loop().create_future())
        beside = asyncio.ensure_future(other())
        for _ in range(pieces):
            await work.piece(b"data: 1\n\n")
        beside.cancel()
        assert work.streamed == pieces * [b"data: 1\n\n"]

    asyncio.run(go())
    assert turns >= pieces / 64 - 1
