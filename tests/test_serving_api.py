"""The API in front of a service: shapes of errors, bounds, the official client, streams, clients that leave, keys."""

import asyncio
import io
import json
import re
import secrets
import socket
from contextlib import nullcontext
from pathlib import Path

import pytest

from diffpolicy import InputError
from diffpolicy.edge import serving as serving_package
from diffpolicy.edge.serving import running
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.events import Refused
from diffpolicy.edge.serving.limits import Limits
from diffpolicy.edge.serving.room import Share
from diffpolicy.edge.serving.upstream import Answer

fastapi = pytest.importorskip("fastapi")
openai = pytest.importorskip("openai")

from diffpolicy.edge.serving.api import ApiKeys, ApiSettings, make_app  # noqa: E402
from diffpolicy.edge.serving.api.bodies import VALUES  # noqa: E402
from diffpolicy.edge.serving.running import listen, serving  # noqa: E402
from serving_fakes import IMAGE, Caller, FakeService, client, image, until  # noqa: E402

PATH = "/v1/images/generations"
TOKEN, OTHER = "0123456789abcdef", "fedcba9876543210"
KEYS = ApiKeys({TOKEN: "shop", OTHER: ""})


def error_of(response):
    """The error, once it is seen that it has OpenAI's shape and no more."""
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    return body["error"]


def ask(service, settings=None, path=PATH, method="POST", **sent):
    async def go():
        async with client(make_app(service, settings)) as to:
            return await to.request(method, path, **sent)

    return asyncio.run(go())


def official(app, retries=0, **more):
    return openai.AsyncOpenAI(
        base_url="http://test/v1", api_key=TOKEN, http_client=client(app), max_retries=retries, **more
    )


# What is refused, and how


@pytest.mark.parametrize(
    ("sent", "status", "param"),
    [
        ({"path": "/nowhere"}, 404, None),
        ({"method": "GET"}, 405, None),
        ({"content": b"{"}, 400, None),
        ({"content": b"\xff\xfe"}, 400, None),
        ({"content": b'{"prompt": "x", "guidance_scale": 1e999}'}, 400, None),
        ({"content": b'{"prompt": "x", "guidance_scale": [-Infinity]}'}, 400, None),
        ({"content": b'{"prompt": "x", "guidance_scale": ' + b"9" * 400 + b"}"}, 400, None),
        ({"content": b'{"prompt": "x", "seed": NaN}'}, 400, None),
        ({"content": b'{"prompt": "\\ud800"}'}, 400, None),
        ({"content": b"[" * 100_000}, 400, None),
        ({"content": b'{"a":' * 100 + b"1" + b"}" * 100}, 400, None),
        ({"content": b'{"prompt": "x", "n": ' + b"9" * 5000 + b"}"}, 400, None),
        ({"json": []}, 400, None),
        ({"json": {"prompt": "x", "n": "two"}}, 400, "n"),
        ({"json": {"prompt": "x", "size": "7"}}, 400, "size"),
        ({"content": b"prompt=x", "headers": {"content-type": "text/plain"}}, 400, None),
        ({"content": b"x", "headers": {"content-encoding": "gzip"}}, 400, None),
        ({"json": {"prompt": "x"}, "headers": {"x-diffpolicy-deadline-s": "soon"}}, 400, "x-diffpolicy-deadline-s"),
        ({"json": {"prompt": "x"}, "headers": {"idempotency-key": ""}}, 400, "idempotency-key"),
        ({"path": "/v1/images/edits", "json": {"prompt": "x"}}, 400, None),
        ({"path": "/v1/images/edits", "data": {"prompt": "x"}, "files": {"mask": b"1"}}, 400, "image"),
        ({"path": "/v1/images/edits", "data": {"prompt": "x", "n": "0"}, "files": {"image": b"1"}}, 400, "n"),
        ({"path": "/v1/images/edits", "content": b"--", "headers": {"content-type": "multipart/form-data"}}, 400, None),
        ({"json": {"prompt": "x" * 500}}, 413, None),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_in_openais_shape_and_reaches_no_worker(sent, status, param):
    service = FakeService()
    settings = ApiSettings(limits=Limits(body=400 if status == 413 else 2**20))
    heard = []
    service.listeners.append(heard.append)
    response = ask(service, settings, **sent)
    assert response.status_code == status
    assert error_of(response)["param"] == param
    assert not service.tickets
    assert response.headers["x-request-id"]
    assert [e.status for e in heard if isinstance(e, Refused)] == ([] if status in (404, 405) else [status])


def test_a_body_is_bounded_while_it_is_read_and_what_is_read_is_bounded_for_all_together():
    async def go():
        service = FakeService()
        app = make_app(service, ApiSettings(limits=Limits(body=100), held_bytes=150, read_s=0.05))
        # says nothing of its length, as a chunked body does
        long = Caller(app, PATH, [b"x" * 60, b"x" * 60, b"x" * 60])
        await long.task
        assert (long.status, len(long.unread)) == (413, 1)
        assert (b"connection", b"close") in long.sent[0]["headers"]
        slow = Caller(app, PATH, [b"x" * 90, b""])
        slow.unread.pop()
        second = Caller(app, PATH, b"x" * 90)
        await asyncio.wait({slow.task, second.task})
        assert (slow.status, second.status) == (408, 429)
        assert (b"retry-after", b"2") in second.sent[0]["headers"]
        third = Caller(app, PATH, b'{"prompt": "' + b"x" * 80 + b'"}')  # what the others held is given back
        await third.task
        assert third.status == 200

    asyncio.run(go())


def test_an_unexpected_failure_is_a_500_without_a_word_of_the_prompt(caplog):
    async def fail(request, chunk):
        raise RuntimeError(request.body["prompt"])

    response = ask(FakeService(fail), json={"prompt": "a secret cat"})
    assert response.status_code == 500
    assert response.headers["x-should-retry"] == "false"
    assert error_of(response)["code"] == "internal_error"
    assert "secret" not in response.text + caplog.text
    assert "RuntimeError" in caplog.text


@pytest.mark.parametrize(
    ("status", "body", "seen", "message"),
    [
        (422, b'{"detail": [{"loc": ["body", "size"], "msg": "too large"}]}', 400, "size: too large"),
        (400, b'{"error": {"message": "no", "type": "t", "param": "p", "code": "c"}}', 400, "no"),
        (404, b'{"object": "error", "message": "no model"}', 404, "no model"),
        (500, b"<h1>gateway</h1>", 500, "the worker answered 500"),
    ],
)
def test_a_workers_error_gets_openais_shape(status, body, seen, message):
    async def behave(request, chunk):
        return Answer(status, {"content-type": "text/html"}, body)

    response = ask(FakeService(behave), json={"prompt": "x"})
    assert response.status_code == seen
    assert error_of(response)["message"] == message
    assert response.headers["content-type"] == "application/json"


# The official client


def test_the_official_client_gets_images_models_and_edits():
    async def go():
        service = FakeService()
        ours = official(make_app(service), timeout=33.0)
        made = await ours.images.generate(prompt="a cat")
        assert made.data[0].b64_json == IMAGE["data"][0]["b64_json"]
        assert [m.id async for m in ours.models.list()] == ["tiny"]
        files = [("a.png", b"a"), ("b.png", b"b")]
        await ours.images.edit(image=files[0], prompt="a hat", n=2, mask=b"m")
        await ours.images.edit(image=files, prompt="a hat", extra_body={"num_inference_steps": 4, "style": "x"})
        alone, one, many = service.requests
        assert alone.body == {"prompt": "a cat"}
        assert alone.deadline_s == 33.0
        assert alone.client.startswith("key-")
        assert (one.images, sorted(f.key for f in one.files), one.path) == (2, ["image", "mask"], "/v1/images/edits")
        assert [(f.key, f.name, f.content) for f in many.files] == [
            ("image[]", "a.png", b"a"),
            ("image[]", "b.png", b"b"),
        ]
        assert (many.steps, many.body["style"]) == (4, "x")

    asyncio.run(go())


@pytest.mark.parametrize(("again", "asked"), [(None, 3), (False, 1)])
def test_the_official_client_asks_again_unless_it_is_told_not_to(monkeypatch, again, asked):
    async def at_once(*_):
        return None

    async def go():
        service = FakeService(refusal=ApiError(503, "no worker", code="no_worker", again=again))
        ours = official(make_app(service), retries=2)
        monkeypatch.setattr(ours, "_sleep_for_retry", lambda **_: at_once())
        with pytest.raises(openai.InternalServerError, match="no worker"):
            await ours.images.generate(prompt="x")
        assert len(service.requests) == asked
        assert len({r.number for r in service.requests}) == asked

    asyncio.run(go())


def test_a_deadline_is_our_header_or_the_clients_time_out_and_at_most_the_services():
    service = FakeService()
    for headers in (
        {},
        {"x-stainless-read-timeout": "30"},
        {"x-stainless-read-timeout": "None"},
        {"x-stainless-read-timeout": "30", "x-diffpolicy-deadline-s": "5"},
    ):
        ask(service, ApiSettings(deadline_s=50.0), json={"prompt": "x"}, headers=headers)
    assert [r.deadline_s for r in service.requests] == [50.0, 30.0, 50.0, 5.0]
    # the client's time-out is one between bytes, and comments of a stream keep it from running out
    ask(service, json={"prompt": "x", "stream": True}, headers={"x-stainless-read-timeout": "30"})
    assert service.requests[-1].deadline_s == float("inf")


# Streams


def test_the_official_client_reads_a_stream_that_was_held():
    piece = b'event: image_generation.%s\ndata: {"type": "image_generation.%s", "b64_json": "YQ=="}\n\n'

    async def behave(request, chunk):
        await asyncio.sleep(0.05)
        await chunk(piece % (b"partial_image", b"partial_image"))
        await chunk(piece % (b"completed", b"completed"))
        return Answer(200, {"content-type": "text/event-stream"})

    async def go():
        app = make_app(FakeService(behave), ApiSettings(comment_s=0.01))
        stream = await official(app).images.generate(prompt="x", stream=True, partial_images=1)
        assert [e.type async for e in stream] == ["image_generation.partial_image", "image_generation.completed"]
        caller = Caller(app, PATH, b'{"prompt": "x", "stream": true}')
        await caller.task
        assert caller.body.startswith(b": held\n\n: held\n\n")
        assert b"ping" not in caller.body

    asyncio.run(go())


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n\r\n"])
@pytest.mark.parametrize("cut", [False, True])
def test_comments_and_errors_stand_between_the_events_of_a_worker_whatever_pieces_they_come_in(cut, end):
    async def behave(request, chunk):
        data = b'data: {"type": "image_generation.partial_image", "b64_json": "YQ=="}'
        for piece in (data[:30], data[30:] + b"\r\n\r", b"\n" + data[:40], data[40:] + end):
            await chunk(piece)
            await asyncio.sleep(0.03)
        if cut:
            raise ApiError(503, "the worker failed in the middle of the stream", again=False)
        return Answer(200, {"content-type": "text/event-stream"})

    async def go():
        app, read = make_app(FakeService(behave), ApiSettings(comment_s=0.01)), []
        stream = await official(app).images.generate(prompt="x", stream=True, partial_images=1)
        with pytest.raises(openai.APIError, match="in the middle") if cut else nullcontext():
            async for event in stream:
                read.append(event.b64_json)
        whole = not cut or end == b"\r\n\r\n"
        assert read == ["YQ=="] * (2 if whole else 1)

    asyncio.run(go())


def test_what_a_stream_leaves_of_an_event_counts_once_where_answers_are_held(monkeypatch):
    added, add = [], Share.add
    monkeypatch.setattr(Share, "add", lambda self, size: (added.append(size), add(self, size))[1])
    left = b'data: {"type": "image_generation.completed", "b64_json": "%s"}' % (b"A" * 4000)

    async def behave(request, chunk):
        await chunk(left)
        return Answer(200, {"content-type": "text/event-stream"})

    async def go():
        stream = await official(make_app(FakeService(behave))).images.generate(prompt="x", stream=True)
        assert len([event async for event in stream]) == 1
        assert len(left) <= sum(added) < 2 * len(left)

    asyncio.run(go())


def test_a_worker_that_sends_no_stream_is_streamed_as_completed_events_whatever_it_says_beside_its_images():
    times = (1.0, None, "7", "now", True, 10**400, 10**15, 1e300)
    told = [IMAGE | {"created": told, "usage": None} for told in times]
    told[0]["data"] = [None, {"b64_json": None, "url": ""}, {"b64_json": "YQ==", "created_at": None, "type": 3}, "x"]
    told += [{}, {"data": None}, {"data": []}, {"data": [{}]}, {"data": "b64_json"}, []]
    left = [json.dumps(each).encode() for each in told]

    async def behave(request, chunk):
        return Answer(200, {"content-type": "application/json"}, left.pop(0))

    async def go():
        app, found = make_app(FakeService(behave)), []
        while len(left) > 6:
            stream = await official(app).images.generate(prompt="x", stream=True)
            found += [event async for event in stream]
        assert [(e.type, e.size) for e in found] == [("image_generation.completed", "64x64")] * 8
        assert [e.b64_json for e in found] == ["YQ==", *[IMAGE["data"][0]["b64_json"]] * 7]
        assert [e.created_at for e in found[:1] + found[2:3]] == [1, 7]
        assert all(type(e.created_at) is int and 1e9 < e.created_at < 1e15 for e in (found[1], *found[3:]))
        while left:
            with pytest.raises(openai.APIError, match="holds no images"):
                [event async for event in await official(app).images.generate(prompt="x", stream=True)]

    asyncio.run(go())


def test_what_fails_before_the_status_line_has_its_status_and_later_is_an_event_error():
    async def fail(request, chunk):
        if request.body["prompt"] == "late":
            await asyncio.sleep(0.03)
        raise ApiError(503, "both workers died", code="worker_died", again=False)

    async def go():
        app = make_app(FakeService(fail), ApiSettings(comment_s=0.01))
        with pytest.raises(openai.InternalServerError, match="both workers died"):
            await official(app).images.generate(prompt="soon", stream=True)
        stream = await official(app).images.generate(prompt="late", stream=True)
        with pytest.raises(openai.APIError, match="both workers died") as caught:
            [event async for event in stream]
        assert not isinstance(caught.value, openai.APIStatusError)
        refusing = FakeService(refusal=ApiError(429, "the queue is full", code="queue_full", retry_after_s=3.0))
        with pytest.raises(openai.RateLimitError) as full:
            await official(make_app(refusing)).images.generate(prompt="x", stream=True)
        assert full.value.response.headers["retry-after"] == "3"

    asyncio.run(go())


# Forms


def form(kind="image/png", name="a.png", field="n"):
    """A form with an image of a content type and a name, and one more field."""
    parts = [
        (f'form-data; name="image"; filename="{name}"', f"\r\nContent-Type: {kind}" if kind else "", "PNG"),
        ('form-data; name="prompt"', "", "a cat"),
        (f'form-data; name="{field}"', "", "1"),
    ]
    body = "".join(f"--B\r\nContent-Disposition: {head}{more}\r\n\r\n{text}\r\n" for head, more, text in parts)
    return {"content": f"{body}--B--\r\n".encode(), "headers": {"content-type": "multipart/form-data; boundary=B"}}


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (form(kind='image/png\nContent-Disposition: form-data; name="n"\n\n9'), "the content type of 'image' must be"),
        (form(kind="image/p\x0bng"), "the content type of 'image' must be"),
        (form(kind="picture"), "must be such as image/png, got 'picture'"),
        (form(name="a.png\nX: y"), "the name of a file must have no control characters"),
        (form(field="n\nX: y"), "the name of a field must have no control characters"),
    ],
)
def test_no_line_of_a_clients_gets_into_the_head_of_a_workers_form(sent, said):
    service = FakeService()
    response = ask(service, path="/v1/images/edits", method="POST", **sent)
    assert response.status_code == 400
    assert said in error_of(response)["message"]
    assert not service.requests


@pytest.mark.parametrize(
    ("told", "kind"),
    [("", ""), ("image/svg+xml", "image/svg+xml"), ("image/png; charset=binary", "image/png"), ("a/b\t;c", "a/b")],
)
def test_the_content_type_of_a_file_is_passed_on_without_its_parameters(told, kind):
    service = FakeService()
    assert ask(service, path="/v1/images/edits", method="POST", **form(told)).status_code == 200
    assert [file.kind for file in service.requests[0].files] == [kind]


# Clients that leave


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_has_its_request_cancelled(stream):
    async def forever(request, chunk):
        await asyncio.Event().wait()

    async def go():
        service = FakeService(forever)
        app = make_app(service, ApiSettings(comment_s=0.01, held_bytes=100))
        body = json.dumps({"prompt": "x" * 40, "stream": stream}).encode()
        for k in range(3):  # what each held is given back
            caller = Caller(app, PATH, body)
            await until(lambda k=k: len(service.tickets) > k)
            await asyncio.sleep(0.02)
            assert not service.tickets[-1].cancelled
            caller.leave()
            await asyncio.wait_for(caller.task, 1)
            assert service.tickets[-1].cancelled

    asyncio.run(go())


def test_a_client_that_leaves_in_the_midst_of_its_body_reaches_nobody():
    async def go():
        service = FakeService()
        caller = Caller(make_app(service), PATH, [b'{"prompt', b'": "x"}'])
        caller.unread.pop()
        caller.leave()
        await caller.task
        assert not service.requests

    asyncio.run(go())


def test_a_client_that_does_not_read_its_stream_is_gone():
    async def behave(request, chunk):
        while True:
            await chunk(b"x\n\n")

    async def go():
        service = FakeService(behave)
        app = make_app(service, ApiSettings(stall_s=0.02))
        caller = Caller(app, PATH, b'{"prompt": "x", "stream": true}', stalls=True)
        await asyncio.wait_for(caller.task, 1)
        assert service.tickets[0].cancelled

    asyncio.run(go())


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_waits_for_its_slow_client_among_the_bytes_that_are_held_and_not_for_ever(stream):
    served, event = [], b"x" * 99_998 + b"\n\n"

    async def behave(request, chunk):
        if chunk is None:
            served.append(request.number)
            return Answer(200, {"content-type": "application/json"}, event * 3)
        for _ in range(3):
            await chunk(event)
        served.append(request.number)  # its worker is free
        return Answer(200)

    async def go():
        app = make_app(FakeService(behave), ApiSettings(stall_s=0.2, held_bytes=300_020))
        body = json.dumps({"prompt": "x", "stream": stream}).encode()
        slow = Caller(app, PATH, body, stalls=True)
        await until(lambda: len(served) == 1)
        refused = Caller(app, PATH, body)
        await refused.task
        assert (refused.status, b"bodies_full" in refused.body) == (429, True)
        await asyncio.wait_for(slow.task, 2)
        taken = Caller(app, PATH, body)  # what the client that read nothing held is given back
        await taken.task
        assert (taken.status, len(served)) == (200, 2)
        assert taken.body == event * 3
        assert max(len(message.get("body", b"")) for message in taken.sent) <= 100_000

    asyncio.run(go())


@pytest.mark.parametrize(
    ("stream", "status", "size", "count"),
    [
        pytest.param(True, 200, 1_000_000, 1, id="stream of a worker that sends none"),
        pytest.param(True, 400, 1_000_000, 1, id="refused stream"),
        pytest.param(False, 200, 1_000_000, 1, id="long"),
        pytest.param(False, 200, 45_000, 1, id="short"),
    ],
)
def test_a_connection_that_nobody_reads_counts_among_what_is_held_and_then_is_dropped(
    stream, status, size, count, caplog
):
    """By the server itself, which holds 64 KiB before it lets anybody wait; the kernel's buffers are made small."""
    said = {"data": [{"b64_json": "x" * size}], "error": {"message": "x" * size}}

    async def behave(request, chunk):
        return Answer(status, {"content-type": "application/json"}, json.dumps(said).encode())

    async def go():
        app = make_app(FakeService(behave), ApiSettings(stall_s=0.2, held_bytes=40_000))
        listening = listen("127.0.0.1", 0)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        async with serving(app, listening) as server, client(app) as to:
            with socket.socket() as reads_nothing:
                reads_nothing.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                reads_nothing.connect(listening.getsockname())
                body = json.dumps({"prompt": "x", "stream": stream}).encode()
                head = b"POST %s HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n" % PATH.encode()
                reads_nothing.sendall((head + b"content-length: %d\r\n\r\n%s" % (len(body), body)) * count)
                for _ in range(200):
                    held = await to.post(PATH, json={"prompt": "x"})
                    if held.status_code == 429:
                        break
                    await asyncio.sleep(0.005)
                assert error_of(held)["code"] == "bodies_full"
                await until(lambda: not server.server_state.connections)
                assert (await to.post(PATH, json={"prompt": "x"})).status_code == status

    asyncio.run(go())
    assert not caplog.records


def test_a_connection_without_a_whole_head_of_a_request_is_ended_and_no_other(monkeypatch):
    monkeypatch.setattr(running, "SILENT_S", 0.2)

    async def behave(request, chunk):
        await asyncio.sleep(0.4)
        return image()

    async def go():
        listening = listen("127.0.0.1", 0)
        get = b"GET /live HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        body = b'{"prompt": "x"}'
        post = b"POST %s HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s"

        async def said(sent):
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            writer.write(sent)
            got = b""
            try:
                while piece := await reader.read(2**16):
                    got += piece
            except ConnectionError:  # of a connection that is ended; what came before counts
                pass
            finally:
                writer.close()
            return got

        async with serving(make_app(FakeService(behave)), listening):
            asked = (b"", get, get + b"\r\n" + get, post % (PATH.encode(), len(body), body))
            return await asyncio.wait_for(asyncio.gather(*map(said, asked)), 30)

    silent, half, second, whole = asyncio.run(go())
    assert silent == half == b""
    assert second.count(b"200 OK") == 1  # which came before the end
    assert b"b64_json" in whole


# Keys, names, other sites


def test_keys_let_in_and_name_the_client_and_are_shown_nowhere(caplog):
    service, settings = FakeService(), ApiSettings(keys=KEYS)
    for path, method in ((PATH, "POST"), ("/v1/models", "GET"), ("/metrics", "GET"), ("/snapshot", "GET")):
        for given in (None, "Bearer wrong", f"Basic {TOKEN}", "Bearer " + "é" * 16):
            headers = {} if given is None else {"authorization": given.encode()}
            response = ask(service, settings, path, method, json={"prompt": "x"}, headers=headers)
            assert response.status_code == 401
            assert error_of(response)["type"] == "authentication_error"
    assert not service.requests
    for path in ("/live", "/health", "/"):
        assert ask(service, settings, path, "GET").status_code == 200
    for token in (TOKEN, OTHER):
        ask(service, settings, json={"prompt": "x"}, headers={"authorization": f"Bearer {token}"})
    named, unnamed = (r.client for r in service.requests)
    assert named == "shop"
    assert unnamed.startswith("key-")
    assert OTHER not in unnamed
    assert TOKEN not in repr(settings) + caplog.text


def test_every_key_is_compared_and_in_constant_time(monkeypatch):
    compared, compare = [], secrets.compare_digest
    monkeypatch.setattr(secrets, "compare_digest", lambda known, sent: compared.append(known) or compare(known, sent))
    assert KEYS.client(f"Bearer {TOKEN}") == "shop"
    assert compared == [token.encode() for token in KEYS.tokens]


def test_nothing_that_comes_over_a_wire_is_run():
    """Pickles, among others, are programs: no module of the service reads or writes them."""
    runs = re.compile(r"\b(c?pickle|cloudpickle|marshal|shelve|dill|joblib)\b|\beval\(|\bexec\(|torch\.load\(")
    sources = list(Path(serving_package.__file__).parent.rglob("*.py"))
    assert len(sources) > 50
    assert not [(path.name, found[0]) for path in sources if (found := runs.search(path.read_text()))]


def test_a_number_that_is_not_finite_is_refused_by_its_name():
    for word in ("1e999", "-1e999", "NaN", "Infinity"):
        response = ask(FakeService(), content=f'{{"prompt": "x", "strength": {word}}}')
        assert error_of(response)["message"] == f"the body must hold only finite numbers, got {word}"


def test_a_body_of_more_values_than_can_be_read_at_once_is_refused_and_a_long_text_is_none():
    """Ten million numbers would keep all other requests waiting for seconds."""
    values = ",".join(["1"] * VALUES)
    assert ask(FakeService(), content=f'{{"prompt": "x", "of": [{values}]}}').status_code == 200
    response = ask(FakeService(), content=f'{{"prompt": "x", "of": [{values},1]}}')
    assert response.status_code == 400
    assert error_of(response)["message"].startswith("the body must have at most 100000 commas")
    assert ask(FakeService(), content=f'{{"prompt": "x", "image": "{"A" * 2**20}"}}').status_code == 200


def test_where_a_key_is_named_admin_it_alone_sees_what_all_clients_do():
    for name, status in (("admin", 403), ("desk", 200)):
        settings = ApiSettings(keys=ApiKeys({TOKEN: name, OTHER: "shop"}))
        for path in ("/snapshot", "/metrics"):
            for token, expected in ((TOKEN, 200), (OTHER, status)):
                response = ask(FakeService(), settings, path, "GET", headers={"authorization": f"Bearer {token}"})
                assert response.status_code == expected
        assert ask(FakeService(), settings, "/snapshot", "GET").status_code == 401
        sent = {"json": {"prompt": "x"}, "headers": {"authorization": f"Bearer {OTHER}"}}
        assert ask(FakeService(), settings, **sent).status_code == 200


def test_a_key_file_names_its_line_and_never_a_token():
    assert ApiKeys.parse(f"# ours\n\nshop={TOKEN}\n{OTHER}==\n", "f").tokens == {TOKEN: "shop", f"{OTHER}==": ""}
    for text, said in [
        ("", "holds no token"),
        ("short", "line 1: a token has 16"),
        (f"a={TOKEN}\na={OTHER}", "line 2 repeats"),
        (f"a={TOKEN}\nb={TOKEN}", "line 2 repeats"),
        (f"a b={TOKEN}", "line 1: a client's name"),
        (f"x={TOKEN} {OTHER}", "line 1: a token has"),
    ]:
        with pytest.raises(InputError, match=said) as caught:
            ApiKeys.parse(text, "f")
        assert TOKEN not in str(caught.value)


def test_numbers_are_the_clients_with_letters_that_nobody_can_guess():
    service = FakeService()
    for sent in ("abc-1", "abc-1", "no\x7fbell", "x" * 65, "two words"):
        ask(service, json={"prompt": "x"}, headers={"x-request-id": sent})
    numbers = [r.number for r in service.requests]
    assert len(set(numbers)) == 5
    assert [n.startswith("abc-1-") for n in numbers] == [True, True, False, False, False]
    assert all(n.isascii() and n.isprintable() and " " not in n and len(n) <= 80 for n in numbers)


def test_without_a_key_pages_of_other_sites_and_other_hosts_are_not_answered():
    settings = ApiSettings(hosts=("127.0.0.1", "localhost", "::1"))
    for headers, status in [
        ({"host": "localhost:80"}, 200),
        ({"host": "[::1]:80", "origin": "http://[::1]:80"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "localhost:80", "origin": "http://evil.example"}, 403),
        ({"host": "localhost:80", "origin": "null"}, 403),
        ({"host": "["}, 403),
        ({"host": "localhost:80", "origin": "http://["}, 403),
    ]:
        service = FakeService()
        assert ask(service, settings, json={"prompt": "x"}, headers=headers).status_code == status
        assert bool(service.requests) == (status == 200)


# What is looked at


def test_health_says_whether_a_request_would_be_taken_and_live_only_that_the_process_is():
    service = FakeService()
    for usable, draining, status, word in [
        (True, False, 200, "ready"),
        (False, False, 503, "no-worker"),
        (True, True, 503, "draining"),
    ]:
        service.usable, service.draining = usable, draining
        health = ask(service, path="/health", method="GET")
        assert (health.status_code, health.json()["status"]) == (status, word)
        assert ask(service, path="/live", method="GET").status_code == 200


def test_the_page_loads_nothing_from_elsewhere_and_runs_only_its_own_script():
    response = ask(FakeService(), path="/", method="GET")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert policy.count("sha256-") == 2
    assert "//" not in response.text.replace("http://www.w3.org/2000/svg", "")
    assert "innerHTML" not in response.text
    elsewhere = ask(FakeService(), json={"prompt": "x"})
    assert elsewhere.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert elsewhere.headers["x-content-type-options"] == "nosniff"


def test_the_snapshot_gives_what_was_not_seen_yet():
    async def go():
        service = FakeService()
        async with client(make_app(service)) as to:
            for k in range(3):
                service.listeners[0](Refused(f"r{k}", 0.0, 429, "queue_full"))
            told = (await to.get("/snapshot?after=1")).json()
            assert [e["number"] for e in told["events"]] == ["r1", "r2"]
            assert told["last"] == 3
            assert told["snapshot"]["infinite"] is None
            assert (await to.get("/snapshot?after=x")).json()["last"] == 3

    asyncio.run(go())


def test_a_request_file_of_any_name_stays_in_memory_or_a_file_that_goes():
    files = {"image": ("../../etc/passwd", io.BytesIO(b"x" * 2_000_000), "image/png")}
    service = FakeService()
    assert ask(service, path="/v1/images/edits", data={"prompt": "x"}, files=files).status_code == 200
    assert len(service.requests[0].files[0].content) == 2_000_000
    assert image().status == 200
