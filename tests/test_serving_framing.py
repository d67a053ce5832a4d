"""Bytes on a socket that two readers of HTTP could understand differently: refused, and nothing of them is taken."""

import asyncio

import pytest

pytest.importorskip("fastapi")
from diffpolicy.edge.serving.api import make_app
from diffpolicy.edge.serving.running import listen, serving
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
