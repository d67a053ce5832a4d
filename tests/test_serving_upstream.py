"""A worker as the dispatcher sees it: what is sent, what comes back, and every way in which nothing does."""

import asyncio
import contextlib
import errno
import gzip
import json
import shutil
import socket
import ssl
import struct
import subprocess
import time
from types import SimpleNamespace as Of

import httpx
import pytest

from diffpolicy import InputError
from diffpolicy.edge.dispatch import OnArrival
from diffpolicy.edge.serving import headers, http_upstream
from diffpolicy.edge.serving.api.errors import error_body
from diffpolicy.edge.serving.api.stream import completed
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.health_report import own_health
from diffpolicy.edge.serving.http_calls import HttpCalls
from diffpolicy.edge.serving.http_connection import HttpConnection
from diffpolicy.edge.serving.http_upstream import HttpUpstream
from diffpolicy.edge.serving.image_request import ImageRequest, SentFile
from diffpolicy.edge.serving.limits import Limits
from diffpolicy.edge.serving.room import Room
from diffpolicy.edge.serving.service import Service
from diffpolicy.edge.serving.upstream import Answer, TellsEnd, Upstream, UpstreamError
from diffpolicy.edge.serving.worker_spec import WorkerSpec
from serving_fakes import event

IMAGES = {"data": [{"b64_json": "AA=="}]}


def request(files=(), **body):
    return ImageRequest.parse({"prompt": "a cat", **body}, "r1", files=tuple(files))


def mocked(answer, url="http://worker:1", limits=None, **spec):
    """An upstream whose network is a function, and the list of what it was sent."""
    sent = []

    def answered(got):
        sent.append(got)
        found = answer(got)
        return found if isinstance(found, httpx.Response) else httpx.Response(200, json=found)

    return HttpUpstream(WorkerSpec(url, **spec), limits, transport=httpx.MockTransport(answered)), sent


def call(upstream, asked=None, timeout_s=5.0, chunk=None):
    async def once():
        try:
            return await upstream.call(asked or request(), timeout_s=timeout_s, chunk=chunk)
        finally:
            await upstream.aclose()

    return asyncio.run(once())


def failed(upstream, **others):
    with pytest.raises(UpstreamError) as caught:
        call(upstream, **others)
    return caught.value


@contextlib.asynccontextmanager
async def raw(serve):
    """A server that writes what `serve(reader, writer)` does once a request has come, and its address."""

    async def taken(reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next((int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-l")), 0)
            await reader.readexactly(length)
            await serve(writer)
        writer.close()

    server = await asyncio.start_server(taken, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def failed_at(serve, timeout_s=5.0, limits=None):
    async def once():
        async with raw(serve) as url:
            upstream = HttpUpstream(WorkerSpec(url), limits)
            try:
                with pytest.raises(UpstreamError) as caught:
                    await upstream.call(request(), timeout_s=timeout_s)
            finally:
                await upstream.aclose()
            return caught.value

    return asyncio.run(once())


def test_heads_of_status_1xx_may_come_before_an_answer_and_not_without_end():
    early, body = b"HTTP/1.1 102 Processing\r\n\r\n", json.dumps(IMAGES).encode()
    whole = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)

    async def some(reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-l"))
                await reader.readexactly(length)
                writer.write(early * 600 + whole)

    connections = 0

    async def taken(reader, writer):
        nonlocal connections
        connections += 1
        await some(reader, writer)
        writer.close()

    async def twice():
        async with await asyncio.start_server(taken, "127.0.0.1", 0) as server:
            upstream = HttpUpstream(WorkerSpec(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
            try:
                return [(await upstream.call(request(), timeout_s=20)).status for _ in range(2)]
            finally:
                await upstream.aclose()

    assert (asyncio.run(twice()), connections) == ([200, 200], 1)  # each answer has its own count

    async def endless(writer):
        while True:
            writer.write(early * 100)
            await writer.drain()

    error = failed_at(endless, timeout_s=20)
    assert str(error) == "dropped the call: more than 1000 heads of status 1xx before an answer"
    assert (error.reached, error.late) == (True, False)


def test_others_have_their_turn_while_an_answer_comes_in_pieces_of_a_byte():
    body = json.dumps({"data": [{"b64_json": "a" * 20_000}]}).encode()

    async def pieces(writer):
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
        await writer.drain()

    async def main():
        turns = 0

        async def other():
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        async with raw(pieces) as url:
            upstream, beside = HttpUpstream(WorkerSpec(url)), asyncio.ensure_future(other())
            try:
                answer = await upstream.call(request(), timeout_s=60)
            finally:
                beside.cancel()
                await upstream.aclose()
        return answer.body, turns

    got, turns = asyncio.run(main())
    assert got == body
    assert turns >= len(body) / 64


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate by it")
def test_a_certificate_is_taken_if_the_environment_vouches_for_it_and_for_that_name_alone(tmp_path, monkeypatch):
    own = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "own.pem")]
    command = ["openssl", "req", "-x509", "-nodes", "-subj", "/CN=worker", "-days", "2", *own, *files]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "own.pem", tmp_path / "key.pem")

    async def go(host):
        async with await asyncio.start_server(Server(lambda body: WHOLE), "127.0.0.1", 0, ssl=context) as server:
            upstream = HttpUpstream(WorkerSpec(f"https://{host}:{server.sockets[0].getsockname()[1]}"))
            try:
                return await upstream.call(request(), timeout_s=30)
            except UpstreamError as error:
                return error
            finally:
                await upstream.aclose()

    unknown = asyncio.run(go("127.0.0.1"))
    assert "CERTIFICATE_VERIFY_FAILED" in str(unknown)
    assert (unknown.reached, unknown.gone) == (False, False)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "own.pem"))
    assert asyncio.run(go("127.0.0.1")).body == PICTURE
    assert "CERTIFICATE_VERIFY_FAILED" in str(asyncio.run(go("localhost")))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent.pem"))
    with pytest.raises(InputError, match=r"certificates of SSL_CERT_FILE .* cannot be read"):
        HttpUpstream(WorkerSpec("https://worker:1"))
    HttpUpstream(WorkerSpec("http://worker:1"))  # which needs none


def test_what_is_sent_names_the_request_its_deadline_and_the_key_and_asks_for_base64(monkeypatch):
    monkeypatch.setenv("WORKER_KEY", "secret-key")
    upstream, sent = mocked(lambda got: IMAGES, "http://worker:1/v1?api=query-key", api_key_env="WORKER_KEY")
    assert isinstance(upstream, Upstream)
    assert call(upstream, request(size="64x64", style={"x": 1}, seed=3)).status == 200
    (got,) = sent
    assert got.url == "http://worker:1/v1/images/generations?api=query-key"
    assert json.loads(got.content) == {
        "prompt": "a cat",
        "size": "64x64",
        "style": {"x": 1},
        "seed": 3,
        "response_format": "b64_json",
    }
    assert got.headers[headers.REQUEST_ID] == "r1"
    assert float(got.headers[headers.DEADLINE_S]) == 5
    assert got.headers["authorization"] == "Bearer secret-key"
    assert got.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("body", "size"),
    [({"size": "auto"}, None), ({"width": 64, "height": 32}, "64x32"), ({"width": 64}, None), ({"size": "8x8"}, "8x8")],
)
def test_a_size_is_told_as_all_servers_read_it(body, size):
    upstream, sent = mocked(lambda got: IMAGES)
    call(upstream, request(**body))
    assert json.loads(sent[0].content).get("size") == size


def test_a_call_logs_no_address_whose_query_may_be_a_key(caplog):
    caplog.set_level("DEBUG")
    upstream, sent = mocked(lambda got: IMAGES, "http://worker:1?api=query-key")
    call(upstream)
    assert sent[0].url.query == b"api=query-key"
    assert "query-key" not in caplog.text


def test_a_key_that_is_not_set_is_refused_before_any_call():
    with pytest.raises(InputError, match="NO_SUCH_KEY"):
        HttpUpstream(WorkerSpec("http://worker:1", api_key_env="NO_SUCH_KEY"))


@pytest.mark.parametrize(("asked", "sent_on"), [(None, "b64_json"), ("url", "b64_json"), ("b64_json", "b64_json")])
def test_a_url_is_never_asked_for_since_it_resolves_on_the_worker_alone(asked, sent_on):
    upstream, sent = mocked(lambda got: IMAGES)
    call(upstream, request(response_format=asked))
    assert json.loads(sent[0].content)["response_format"] == sent_on


def test_an_edit_is_a_form_with_its_files_and_fields():
    upstream, sent = mocked(lambda got: IMAGES)
    files = [SentFile(key, f"{key}.png", "image/png", b"PNG" + key.encode()) for key in ("image[]", "image[]", "mask")]
    call(upstream, request(files, n=2, extra=None, stream=False))
    body = sent[0].content
    assert sent[0].url.path == "/v1/images/edits"
    assert sent[0].headers["content-type"].startswith("multipart/form-data")
    assert body.count(b'name="image[]"; filename="image[].png"') == 2
    assert b'name="mask"' in body
    for field, value in ((b"prompt", b"a cat"), (b"n", b"2"), (b"stream", b"false"), (b"response_format", b"b64_json")):
        assert b'name="%s"\r\n\r\n%s\r\n' % (field, value) in body
    assert b"extra" not in body


def test_an_answer_keeps_status_body_and_what_the_worker_says_of_itself():
    told = {headers.BOOT: "b1", headers.SERVICE_S: "2.5", "set-cookie": "a=b", "retry-after": "3"}
    answer = call(mocked(lambda got: httpx.Response(429, json={"error": {"message": "full"}}, headers=told))[0])
    assert (answer.status, answer.service_s, answer.fault) == (429, 2.5, False)
    assert answer.headers[headers.BOOT] == "b1"
    assert answer.headers["retry-after"] == "3"
    assert "set-cookie" not in answer.headers
    assert json.loads(answer.body)["error"]["message"] == "full"
    for silly in ("nan", "-1", "soon", "inf"):
        assert (
            call(
                mocked(lambda got, s=silly: httpx.Response(200, json=IMAGES, headers={headers.SERVICE_S: s}))[0]
            ).service_s
            is None
        )


@pytest.mark.parametrize(("status", "told", "early"), [(200, "2.5", True), (200, None, False), (500, "2.5", False)])
def test_a_worker_that_says_what_it_took_is_done_before_its_pictures_are_here(status, told, early):
    async def main():
        free = asyncio.Event()

        async def pieces():
            if early:
                await free.wait()
            assert free.is_set() is early
            yield json.dumps(IMAGES).encode()

        head = {} if told is None else {headers.SERVICE_S: told}
        upstream, _ = mocked(lambda got: httpx.Response(status, content=pieces(), headers=head))
        assert isinstance(upstream, TellsEnd)
        assert (await upstream.call_telling(request(), timeout_s=5.0, done=free.set)).status == status
        assert free.is_set() is early
        await upstream.aclose()

    asyncio.run(main())


def test_a_stream_is_passed_on_piece_by_piece_and_an_answer_without_one_whole():
    whole = event("partial_image", "AA==") + event("completed", "AA==") + b"data: [DONE]\n\n"

    async def pieces():
        yield b": held\n\n: he"
        yield b"ld\r\n\r\n"
        for begun in range(0, len(whole), 7):
            yield whole[begun : begun + 7]

    took = []

    async def chunk(part):
        took.append(part)

    told = {"content-type": "text/event-stream; charset=utf-8"}
    answer = call(
        mocked(lambda got: httpx.Response(200, content=pieces(), headers=told))[0], request(stream=True), chunk=chunk
    )
    assert (answer.status, answer.body) == (200, b"")
    assert b"".join(took) == whole
    assert all(part.endswith(b"\n\n") for part in took)
    took.clear()
    answer = call(mocked(lambda got: httpx.Response(500, json={}))[0], request(stream=True), chunk=chunk)
    assert (answer.status, answer.body, took) == (500, b"{}", [])
    answer = call(mocked(lambda got: IMAGES)[0], request(stream=True), chunk=chunk)
    assert (json.loads(answer.body), took) == (IMAGES, [])


def test_redirects_and_a_key_that_is_not_taken_are_the_workers_fault_and_begin_nothing():
    for status, said in ((302, "redirects are not followed"), (401, "key"), (403, "key")):
        upstream, sent = mocked(lambda got, s=status: httpx.Response(s, headers={"location": "http://elsewhere/"}))
        error = failed(upstream)
        assert said in str(error)
        assert not error.reached
        assert len(sent) == 1


@pytest.mark.parametrize("status", [201, 202, 204, 206])
@pytest.mark.parametrize("stream", [False, True])
def test_a_status_that_belongs_to_no_images_is_the_workers_fault(status, stream):
    async def chunk(part):
        raise AssertionError("nothing of it is a stream")

    body = {} if status == 204 else {"json": IMAGES}
    upstream, sent = mocked(lambda got: httpx.Response(status, **body))
    error = failed(upstream, asked=request(stream=stream), **({"chunk": chunk} if stream else {}))
    assert str(error) == f"answers with status {status}; images come with 200"
    assert (error.reached, error.late, len(sent)) == (True, False, 1)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"data": [',
        b"{}",
        b'{"error": 1}',
        b'{"data": []}',
        b'{"data": [null, {"b64_json": null, "url": ""}]}',
        pytest.param(b"[" * 5_000, id="deep"),
    ],
)
def test_what_is_no_json_with_images_is_no_answer(body):
    async def chunk(part):
        raise AssertionError("nothing of it is a stream")

    for asked, more in ((request(), {}), (request(stream=True), {"chunk": chunk})):
        error = failed(mocked(lambda got: httpx.Response(200, content=body))[0], asked=asked, **more)
        assert "no JSON object that has images in 'data'" in str(error)
        assert error.reached
        assert error.answered == (b"null" in body)  # entries that hold none may be the doing of the prompt
    silent = httpx.Response(200, headers={"content-type": "text/event-stream"})
    assert failed(mocked(lambda got: silent)[0], asked=request(stream=True), chunk=chunk).reached


def test_of_a_long_answer_the_ends_are_looked_at():
    whole = json.dumps({"data": [{"b64_json": "A" * 2**19}]}).encode()
    assert call(mocked(lambda got: httpx.Response(200, content=whole))[0]).body == whole
    failed(mocked(lambda got: httpx.Response(200, content=whole[:-9]))[0])


def test_nobody_there_is_told_from_a_call_that_may_have_begun():
    async def port():
        async with raw(lambda writer: asyncio.sleep(0)) as url:
            return url

    error = failed(HttpUpstream(WorkerSpec(asyncio.run(port()))))
    assert (error.reached, error.late, error.gone) == (False, False, True)
    assert "cannot be reached" in str(error)
    error = failed_at(lambda writer: asyncio.sleep(0))
    assert (error.reached, error.late, error.gone) == (True, False, True)
    assert "dropped the call" in str(error)

    async def reset(writer):
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    error = failed_at(reset)
    assert (error.reached, error.late, error.gone) == (True, False, True)


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("getaddrinfo", socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")),
        ("create_connection", OSError(errno.EMFILE, "Too many open files")),
        ("create_connection", OSError(errno.EHOSTUNREACH, "No route to host")),
    ],
)
def test_what_keeps_this_machine_from_asking_says_nothing_of_the_worker(where, error, monkeypatch):
    async def fails(*args, **more):
        raise error

    monkeypatch.setattr(asyncio.BaseEventLoop, where, fails)
    seen = failed(HttpUpstream(WorkerSpec(f"http://{'worker.test' if where == 'getaddrinfo' else '127.0.0.1'}:1")))
    assert (seen.reached, seen.late, seen.gone) == (False, False, False)
    assert error.strerror in str(seen)


def test_an_answer_that_is_of_no_use_is_no_sign_of_a_worker_that_is_gone():
    for status in (302, 401):
        assert not failed(mocked(lambda got, status=status: httpx.Response(status))[0]).gone


def test_a_worker_that_says_nothing_or_a_byte_now_and_then_is_cut_off_in_time():
    async def silent(writer):
        await asyncio.sleep(60)

    async def trickle(writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)

    for serve in (silent, trickle):
        begun = time.monotonic()
        error = failed_at(serve, timeout_s=0.3)
        assert (error.reached, error.late) == (True, True)
        assert time.monotonic() - begun < 30


def test_ten_gib_are_refused_whether_announced_or_simply_sent():
    sent = 0

    async def announced(writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (10 * 2**30))
        await asyncio.sleep(60)

    async def flood(writer):
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while sent < 10 * 2**30:
            writer.write(b"10000\r\n" + b"x" * 2**16 + b"\r\n")
            sent += 2**16
            await writer.drain()

    for serve in (announced, flood):
        assert "more than 1 MiB" in str(failed_at(serve, limits=Limits(response=2**20)))
    assert sent < 2**27


@pytest.mark.parametrize("coding", ["gzip", "gzip, gzip", "br", "x-" + 300 * "y"])
def test_what_is_compressed_unasked_is_never_unpacked(coding, monkeypatch):
    unpacked = []
    monkeypatch.setattr(httpx.Response, "aiter_bytes", lambda response: unpacked.append(response))
    small = Raw(gzip.compress(json.dumps(IMAGES).encode()))
    upstream, _ = mocked(lambda got: httpx.Response(200, stream=small, headers={"content-encoding": coding}))
    error = failed(upstream)
    assert f"content-encoding {coding[:40]}, which was not asked for" in str(error)
    assert error.reached
    assert not unpacked


def test_an_answer_may_say_that_it_is_not_compressed():
    told = {"content-encoding": "Identity"}
    whole = Raw(json.dumps(IMAGES).encode())
    assert json.loads(call(mocked(lambda got: httpx.Response(200, stream=whole, headers=told))[0]).body) == IMAGES


class Raw(httpx.AsyncByteStream):
    """Bytes that are not compressed again."""

    def __init__(self, content):
        self.content = content

    async def __aiter__(self):
        yield self.content


class Server:
    """Answers each request by what `answer(body)` gives, and counts connections. Closes them after it, if it should."""

    def __init__(self, answer, closes=False):
        self.answer, self.closes, self.connections, self.asked = answer, closes, 0, 0

    async def __call__(self, reader, writer):
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
                body = await reader.readexactly(int(length or 0))
                self.asked += 1
                writer.write(self.answer(body))
                await writer.drain()
                if self.closes:
                    break
        writer.close()

    async def calls(self, *groups, asked=None, looks=0):
        """Bodies of the answers to calls of which those of a group go at once."""
        server = await asyncio.start_server(self, "127.0.0.1", 0, limit=2**24)
        async with server:
            upstream = HttpUpstream(WorkerSpec(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
            try:
                found = []
                for count in groups:
                    calls = (upstream.call(asked or request(), timeout_s=30) for _ in range(count))
                    found += [answer.body for answer in await asyncio.gather(*calls)]
                    await asyncio.sleep(0.02)  # lets an end arrive
                for _ in range(looks):
                    await upstream.health()
                return found
            finally:
                await upstream.aclose()


PICTURE = b'{"data": [{"b64_json": "AA=="}]}'
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(PICTURE), PICTURE)


CUT = {
    "by its length": WHOLE.replace(b"Length: ", b"Length: 1"),
    "between chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(PICTURE), PICTURE),
    "within a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1%x\r\n%s" % (len(PICTURE), PICTURE),
    "without a length": b"HTTP/1.1 200 OK\r\n\r\n" + PICTURE[:-1],
}


@pytest.mark.parametrize("cut", CUT.values(), ids=CUT)
def test_an_answer_that_ends_before_its_body_does_is_none_and_is_asked_for_once_elsewhere(cut):
    async def go():
        async with contextlib.AsyncExitStack() as stack:
            answers = [cut, WHOLE]

            async def url(j):
                server = Server(
                    lambda body: answers[j] if body else b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", True
                )
                listening = await stack.enter_async_context(await asyncio.start_server(server, "127.0.0.1", 0))
                return f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"

            workers = [WorkerSpec(await url(0), speed=10.0), WorkerSpec(await url(1), speed=1.0)]
            service = Service(workers, HttpUpstream, OnArrival())
            await service.start()
            try:
                assert (await service.submit(request()).answer()).body == PICTURE
                answers[1] = cut
                with pytest.raises(ApiError) as caught:
                    await service.submit(request()).answer()
            finally:
                await service.stop(0)
            return caught.value, service.counts["Retried"]

    error, retried = asyncio.run(go())
    assert (error.status, error.code, error.again, retried) == (503, "worker_failed", False, 2)


def test_an_answer_counts_among_what_is_held_while_it_comes():
    room, begun, go_on = Room(), asyncio.Event(), asyncio.Event()

    async def serve(writer):
        writer.write(WHOLE[:-10])
        begun.set()
        await go_on.wait()
        writer.write(WHOLE[-10:])

    async def go():
        async with raw(serve) as url:
            upstream = HttpUpstream(WorkerSpec(url), room=room)
            calls = [asyncio.ensure_future(upstream.call(request(), timeout_s=30)) for _ in range(2)]
            await begun.wait()
            while room.held < 2 * (len(PICTURE) - 10):
                await asyncio.sleep(0.001)
            calls[1].cancel()
            await asyncio.wait([calls[1]])
            assert room.held == len(PICTURE) - 10
            go_on.set()
            assert (await calls[0]).body == PICTURE
            await upstream.aclose()

    asyncio.run(go())
    assert room.held == 0


def test_connections_are_kept_for_the_next_call():
    server = Server(lambda body: WHOLE)
    assert asyncio.run(server.calls(1, 1, 5, 5, 1)) == [PICTURE] * 13
    assert server.connections == 5


def test_looks_at_a_workers_health_go_where_a_balancer_leads_them_each_time():
    """By a connection of its own each; what a foreign worker says of its models and counts goes on kept ones."""
    server = Server(lambda body: WHOLE)
    asyncio.run(server.calls(2, looks=3))
    assert (server.connections, server.asked) == (5, 2 + 3 * 3)


@pytest.mark.parametrize(
    ("answer", "closes"),
    [
        pytest.param(WHOLE, True, id="closed without a word"),
        pytest.param(WHOLE.replace(b"\r\n", b"\r\nConnection: close\r\n", 1), False, id="to be closed"),
        pytest.param(WHOLE + b"HTTP/1.1 200 OK\r\n\r\n", False, id="more than was asked for"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\n" + PICTURE, True, id="until its end"),
    ],
)
def test_a_connection_whose_end_is_in_doubt_is_not_used_again(answer, closes):
    server = Server(lambda body: answer, closes)
    assert asyncio.run(server.calls(1, 1, 2)) == [PICTURE] * 4
    assert server.connections == server.asked == 4


def test_long_bodies_go_both_ways_whole_however_slowly_they_are_taken():
    def chunked(body):
        whole = b'{"data": "%s"}' % body
        parts = [whole[k : k + 70_000] for k in range(0, len(whole), 70_000)]
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s0\r\n\r\n" % b"".join(
            b"%x\r\n%s\r\n" % (len(part), part) for part in parts
        )

    server, text = Server(chunked), "x" * 3_000_000
    for found in asyncio.run(server.calls(3, 3, asked=request(negative_prompt=text))):
        assert text.encode() in found
        assert len(found) > 3_000_000
    assert server.connections == 3


@pytest.mark.parametrize("pieces", [[], [b""], [b"", b"ab", b"", b"c"]])
def test_no_empty_piece_is_written_since_python_3_12_would_send_it_for_ever(pieces):
    class Transport(asyncio.Transport):
        written = ()

        def write(self, data):
            self.written = (*self.written, bytes(data))

        def writelines(self, data):
            self.written = (*self.written, *map(bytes, data))

    async def body():
        for piece in pieces:
            yield piece

    async def send(told):
        with socket.socket() as plain:
            transport = Transport({"socket": plain})
            connection = HttpConnection(lambda connection: None)
            connection.connection_made(transport)
            await connection.send(b"GET", b"/health", [(b"host", b"worker"), *told], body())
            return transport.written

    for told in ([(b"content-length", b"%d" % len(b"".join(pieces)))], [(b"transfer-encoding", b"chunked")]):
        written = asyncio.run(send(told))
        assert written
        assert b"" not in written


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
def test_a_server_that_refuses_a_body_before_it_has_read_it_is_heard(before):
    async def go():
        async def refuse(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(before)
            await asyncio.sleep(0.02)
            writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}")
            await asyncio.sleep(60)  # it reads no more, and closes nothing

        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        upstream = HttpUpstream(WorkerSpec(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
        files = [SentFile("image", "x.png", "image/png", b"x" * 10_000_000)]
        try:
            return await upstream.call(request(files), timeout_s=5)
        finally:
            await upstream.aclose()
            server.close()

    answer = asyncio.run(go())
    assert (answer.status, answer.body, answer.fault) == (413, b"{}", False)


def test_a_call_that_waited_for_a_free_connection_until_its_end_was_never_begun():
    async def go():
        async with raw(lambda writer: asyncio.sleep(60)) as url:
            calls = HttpCalls(1)
            busy = asyncio.create_task(calls.fetch("GET", url, timeout_s=60, most_bytes=99))
            await asyncio.sleep(0.05)
            with pytest.raises(UpstreamError) as caught:
                await calls.fetch("GET", url, timeout_s=0.1, most_bytes=99)
            busy.cancel()
            await asyncio.wait({busy})
            await calls.aclose()
            return caught.value

    error = asyncio.run(go())
    assert (error.reached, error.late) == (False, True)
    assert "no connection was free in time (0.1 s)" in str(error)


def test_a_call_that_is_cancelled_closes_its_connection():
    async def run():
        gone = asyncio.Event()

        async def serve(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            while await reader.read(1000):
                pass
            gone.set()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            upstream = HttpUpstream(WorkerSpec(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
            task = asyncio.create_task(upstream.call(request(), timeout_s=60))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.wait_for(gone.wait(), 30)
            await upstream.aclose()

    asyncio.run(run())


def health(answer, **spec):
    upstream, sent = mocked(answer, **spec)

    async def twice():
        first = await upstream.health()
        assert await upstream.health() == first
        return first

    return asyncio.run(twice()), [got.url.path for got in sent]


def test_our_own_worker_tells_all_in_one_answer():
    told = {"boot": "b1", "models": ["tiny"], "running": 1, "waiting": 2, "slots": 1, "remaining_s": 4.5}
    got, asked = health(lambda got: httpx.Response(200, json={"status": "ready", **told}))
    assert (got.usable, got.draining, got.boot, got.models) == (True, False, "b1", ("tiny",))
    assert (got.running, got.waiting, got.slots, got.remaining_s) == (1, 2, 1, 4.5)
    assert asked == ["/health"] * 2
    for status, draining in (("loading", False), ("draining", True)):
        got, _ = health(lambda got, s=status: httpx.Response(503, json={"status": s, **told}))
        assert (got.usable, got.draining) == (False, draining)
    got, _ = health(lambda got: httpx.Response(200, json={"status": "ready", "boot": "b", "running": -1, "models": 3}))
    assert (got.usable, got.running, got.models) == (True, None, None)


@pytest.mark.parametrize("prefix", ["vllm_omni:", "vllm:omni_", "vllm_omni_"])
def test_of_a_foreign_worker_models_and_counts_are_read_where_they_are(prefix):
    metrics = "\n".join(
        f'{prefix}num_requests_{word}{{engine="{n}",name="a}}b"}} {value}'
        for word, n, value in (("running", 0, "1.0"), ("running", 1, "2.0"), ("waiting", 0, "4.0"))
    )
    answers = {
        "/health": httpx.Response(200),
        "/v1/models": httpx.Response(200, json={"data": [{"id": "qwen-image"}, {"id": 3}]}),
        "/metrics": httpx.Response(200, text=f"# TYPE x gauge\n{metrics}\n"),
    }
    got, _ = health(lambda got: answers[got.url.path])
    assert (got.usable, got.boot, got.models, got.running, got.waiting) == (True, None, ("qwen-image",), 3, 4)


def test_a_foreign_worker_without_any_of_it_is_well_if_it_answers_and_is_not_asked_again():
    got, asked = health(lambda got: httpx.Response(404))
    assert (got.usable, got.models, got.running) == (True, None, None)
    assert sorted(asked) == ["/health", "/health", "/metrics", "/v1/models"]
    assert got.why == ""
    got, _ = health(lambda got: httpx.Response(500))
    assert (got.usable, got.why) == (False, "its /health answers with status 500")
    loading = {"status": "loading", "boot": "b0"}
    got, _ = health(lambda got: httpx.Response(503, json=loading))
    assert (got.usable, got.boot, got.why) == (False, "b0", "says that it is loading")


def test_a_worker_whose_list_of_models_fails_once_serves_what_it_did(monkeypatch):
    """It was taken for one of any model, and requests of others went there, to be refused."""
    listed = [(404, None), (200, ["a"]), (500, None), (200, ["b", "c"]), (503, None)]
    asked = []

    def answer(got):
        if got.url.path != "/v1/models":
            return httpx.Response(200)
        status, names = listed[len(asked)]
        asked.append(status)
        return httpx.Response(status, json={"data": [{"id": name} for name in names or ()]})

    async def go():
        upstream, _ = mocked(answer)
        found = []
        for minute in range(1, len(listed) + 1):
            monkeypatch.setattr(http_upstream, "time", Of(monotonic=lambda minute=minute: 61.0 * minute))
            found.append((await upstream.health()).models)
        return found

    assert asyncio.run(go()) == [None, ("a",), ("a",), ("b", "c"), ("b", "c")]


def test_health_of_nobody_is_an_error():
    def refuse(got):
        raise httpx.ConnectError("refused")

    with pytest.raises(UpstreamError, match="cannot be reached"):
        asyncio.run(mocked(refuse)[0].health())


def test_numbers_of_many_digits_and_bodies_of_many_levels_are_what_a_worker_does_not_say():
    told = own_health(Answer(200, {}, b'{"status": "ready", "boot": "a", "remaining_s": 1' + b"0" * 400 + b"}"))
    assert told is not None
    assert told.remaining_s is None
    for body in (b"[" * 100_000, b"[" * 900 + b"]" * 900):
        assert error_body(Answer(500, {}, body))["error"]["message"] == "the worker answered 500"
    assert b"no images" in b"".join(completed(b"[" * 100_000, "image_generation.completed"))
