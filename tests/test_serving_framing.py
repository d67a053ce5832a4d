"""Bytes on a socket that two readers of HTTP could understand differently, or without an end: nobody gets them."""

import asyncio

import pytest

pytest.importorskip("fastapi")
from diffpolicy.edge.serving.api import ApiSettings, make_app
from diffpolicy.edge.serving.api.keys import ApiKeys
from diffpolicy.edge.serving.heads import MOST_HEAD
from diffpolicy.edge.serving.running import listen, serving
from diffpolicy.edge.serving.worker.app import make_worker_app
from diffpolicy.edge.serving.worker.desk import Desk
from diffpolicy.edge.serving.worker.engines import make_engine
from serving_fakes import FakeService

BODY = b'{"prompt": "x"}'
HEAD = b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
LENGTH = b"Content-Length: 15\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
ODD = {
    "a length and chunks": HEAD + LENGTH + CHUNKED + b"\r\nf\r\n" + BODY + b"\r\n0\r\n\r\n",
    "two lengths": HEAD + LENGTH + b"Content-Length: 16\r\n\r\n" + BODY,
    "a length with a sign": HEAD + b"Content-Length: +15\r\n\r\n" + BODY,
    "a length below zero": HEAD + b"Content-Length: -1\r\n\r\n" + BODY,
    "a space before the colon": HEAD + b"Content-Length : 15\r\n\r\n" + BODY,
    "two hosts": HEAD + b"Host: elsewhere\r\n" + LENGTH + b"\r\n" + BODY,
    "the same host twice": HEAD + b"host: localhost\r\n" + LENGTH + b"\r\n" + BODY,
    "chunks that are none": HEAD + CHUNKED + b"\r\nzz\r\n" + BODY + b"\r\n0\r\n\r\n",
}


@pytest.mark.parametrize(
    ("raw", "statuses", "taken"),
    [
        *((raw, [b"400"], 0) for raw in ODD.values()),
        ((HEAD + LENGTH + b"\r\n" + BODY) * 2, [b"200", b"200"], 2),
        (HEAD + LENGTH + b"Expect: 100-continue\r\n\r\n" + BODY, [b"100", b"200"], 1),
    ],
    ids=[*ODD, "two at once", "one that waits to be told to go on"],
)
def test_a_request_that_can_be_read_in_two_ways_reaches_nobody(raw, statuses, taken):
    async def go():
        service, listening, got = FakeService(), listen("127.0.0.1", 0), b""
        async with serving(make_app(service), listening):
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            writer.write(raw)
            while got.count(b"HTTP/1.1 ") < len(statuses):
                piece = await asyncio.wait_for(reader.read(65536), 20)
                assert piece, got
                got += piece
            writer.close()
        assert [part[:3] for part in got.split(b"HTTP/1.1 ")[1:]] == statuses
        assert len(service.requests) == taken

    asyncio.run(go())


def dispatcher():
    return make_app(FakeService())


KEYS = ApiSettings(keys=ApiKeys.parse("shop=0123456789abcdef", "keys"))


def dispatcher_with_keys():
    return make_app(FakeService(), KEYS)


def worker():
    return make_worker_app(Desk(make_engine("emulate:tiny-cpu")))


async def answered(raw, app, *, then=None):
    """What comes until the connection is closed. Args: then: is sent again and again after `raw`, without an end."""
    listening, got = listen("127.0.0.1", 0), b""
    async with serving(app, listening):
        reader, writer = await asyncio.open_connection(*listening.getsockname())

        async def send():
            writer.write(raw)
            while then is not None:
                writer.write(then)
                await writer.drain()

        sending = asyncio.ensure_future(send())
        try:
            while piece := await asyncio.wait_for(reader.read(65536), 20):
                got += piece
        except ConnectionResetError:  # it was closed while more came
            pass
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.close()
    return got


LIVE = b"GET /live HTTP/1.1\r\nHost: localhost\r\n"
LONG = {
    "20,000 headers": LIVE + b"".join(b"a%d: b\r\n" % n for n in range(20_000)) + b"\r\n",
    "one long header": LIVE + b"a: " + b"b" * MOST_HEAD + b"\r\n\r\n",
    "a long query and a long header": LIVE.replace(b"/live", b"/live?a=" + b"b" * 60_000)
    + b"a: %b\r\n\r\n" % (b"b" * 6_000),
}


@pytest.mark.parametrize("make", [dispatcher, worker])
@pytest.mark.parametrize("raw", LONG.values(), ids=LONG)
@pytest.mark.parametrize("protocol", ["httptools", "h11"])
def test_a_head_that_is_too_long_is_told_so_in_a_sentence_and_its_connection_closed(make, raw, protocol, monkeypatch):
    if protocol == "h11":
        monkeypatch.setattr("diffpolicy.edge.serving.running.bounded_http", lambda: "h11")
    else:
        pytest.importorskip("httptools")
    got = asyncio.run(answered(raw, make()))
    assert got.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in got.lower()
    if protocol == "h11" and got.startswith(b"HTTP/1.1 400 "):  # in its own words, where it has not come in one piece
        return
    assert got.startswith(b"HTTP/1.1 431 ")
    assert b"the head of a request may have at most 65536 bytes" in got


@pytest.mark.parametrize("make", [dispatcher, dispatcher_with_keys, worker])
@pytest.mark.parametrize("protocol", ["httptools", "h11"])
def test_only_http_1_0_may_leave_the_host_out(make, protocol, monkeypatch):
    """Whether or not hosts are looked at: a proxy before us may have gone by another one."""
    if protocol == "h11":
        monkeypatch.setattr("diffpolicy.edge.serving.running.bounded_http", lambda: "h11")
    else:
        pytest.importorskip("httptools")
    got = asyncio.run(answered(b"GET /live HTTP/1.1\r\n\r\n", make()))
    assert got.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in got.lower()
    assert protocol == "h11" or b"a request has one header Host, this one has none" in got
    old = asyncio.run(answered(b"GET /live HTTP/1.0\r\n\r\n", make()))
    assert old.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("bytes_more", [-1, 0, 1])
def test_a_head_may_have_64_kib(bytes_more):
    long = b"a: \r\n"
    rest = len(b"/live" + b"Host: localhost\r\n" + b"Connection: close\r\n" + long)
    raw = LIVE + b"Connection: close\r\n" + long.replace(b" ", b" " + b"b" * (MOST_HEAD - rest + bytes_more))
    got = asyncio.run(answered(raw + b"\r\n", dispatcher()))
    assert got.startswith(b"HTTP/1.1 431 " if bytes_more > 0 else b"HTTP/1.1 200 ")


CHUNKS = HEAD + CHUNKED + b"\r\nf\r\n" + BODY + b"\r\n"
ENDLESS = {
    "headers": (LIVE, b"a: b\r\n" * 1000),
    "one header": (LIVE + b"a: ", b"b" * 1000),
    "a path": (b"GET /", b"b" * 1000),
    "lines before a request": (b"\r\n", b"\r\n" * 1000),
    "trailers": (CHUNKS + b"0\r\n", b"a: b\r\n" * 1000),
    "one trailer": (CHUNKS + b"0\r\na: ", b"b" * 1000),
    "an extension of a chunk": (CHUNKS + b"1;a=", b"b" * 1000),
}


@pytest.mark.parametrize(("raw", "then"), ENDLESS.values(), ids=ENDLESS)
def test_what_has_no_end_and_is_no_body_ends_its_connection(raw, then):
    pytest.importorskip("httptools")
    service = FakeService()
    asyncio.run(answered(raw, make_app(service), then=then))
    assert not service.requests


def test_what_comes_after_a_body_in_chunks_is_no_header():
    pytest.importorskip("httptools")
    seen = []

    async def app(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        seen.extend(name for name, _ in scope["headers"])
        await send({"type": "http.response.start", "status": 204, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body"})

    raw = CHUNKS + b"0\r\nAuthorization: Bearer x\r\n\r\n"
    assert asyncio.run(answered(raw, app)).startswith(b"HTTP/1.1 204 ")
    assert seen == [b"host", b"content-type", b"transfer-encoding"]


def test_a_long_body_is_no_long_head():
    service = FakeService()
    body = b'{"prompt": "%b"}' % (b"x" * 20_000)
    one = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    got = asyncio.run(answered(one * 20 + LIVE + b"Connection: close\r\n\r\n", make_app(service)))
    assert got.count(b"HTTP/1.1 200 ") == 21
