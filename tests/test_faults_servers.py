"""Servers behind a URL that cheat, drip, break off, refuse and repeat keys; and steps of second-order schedulers."""

import base64
import gzip
import io
import json
import logging
import os
import signal
import socket
import threading
import time
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import diffusers
import pytest
import torch
from PIL import Image

from diffpolicy.cli.main import main
from diffpolicy.edge.hardware.adapters import http_ as http_adapter
from diffpolicy.edge.hardware.adapters.diffusers_ import DiffusersAdapter
from diffpolicy.edge.hardware.adapters.http_ import HttpAdapter, retry_after_s
from diffpolicy.edge.hardware.adapters.image_answer import error_reason
from diffpolicy.edge.hardware.adapters.server_url import ServerUrl
from diffpolicy.edge.hardware.measuring.grid import Grid
from diffpolicy.edge.hardware.measuring.profiler import profile
from diffpolicy.edge.hardware.measuring.stage_timer import StageTimer, per_step
from diffpolicy.edge.hardware.models.checkpoints import quiet
from diffpolicy.edge.hardware.prompts import variation
from diffpolicy.edge.hardware.schema.server_profile import ServerProfile
from diffpolicy.edge.hardware.server_adapter import CallRefusedError, GenerateRequest
from diffpolicy.errors import InputError

REQUEST = GenerateRequest("a cat", 64, 96, steps=2)
GRID = Grid((2, 4, 6), ((64, 64),), repeats=2)
KEY = "sk-VerySecret123"


def picture(width=64, height=96, kind="PNG"):
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, kind)
    return file.getvalue()


def holding(*images):
    return {"data": [{"b64_json": base64.b64encode(image).decode()} for image in images]}


def asked_for(sent):
    """An honest answer."""
    width, height = map(int, sent["size"].split("x"))
    return holding(*[picture(width, height)] * sent["n"])


@contextmanager
def serving(answer):
    """A server on loopback; `answer(number, sent)` gives a body, (status, body) or (status, body, headers)."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.path, sent, dict(self.headers)))
            got = answer(len(seen), sent)
            if callable(got):
                return got(self)
            status, body, headers = (*got, {})[:3] if isinstance(got, tuple) else (200, got, {})
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
            return None

        def log_message(self, *arguments):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    http.handle_error = lambda *_: None  # clients that hang up are what is tested
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_port}", seen
    finally:
        http.shutdown()
        http.server_close()


def ask(url, request=REQUEST, **options):
    adapter = HttpAdapter(url, **options)
    try:
        return adapter.generate(request)
    finally:
        adapter.close()


def refusal(answer, request=REQUEST, **options):
    """What a server's answer is refused with."""
    with serving(lambda number, sent: answer) as (url, _), pytest.raises(InputError) as caught:
        ask(url, request, **options)
    return str(caught.value)


# --- answers without an image


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_whole_images_of_the_size_asked_for_count(kind):
    with serving(lambda number, sent: holding(picture(kind=kind))) as (url, _):
        assert ask(url).total_s > 0


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"data": []}, "0 images instead of 1"),
        ({"data": None}, "None images instead of 1"),
        ({"data": [None]}, "has no image in 'b64_json'"),
        ({"data": [{}]}, "has no image in 'b64_json'"),
        ({"data": [{"b64_json": ""}]}, "has no image in 'b64_json'"),
        ({"data": [{"b64_json": 5}]}, "has no image in 'b64_json'"),
        ({"data": [{"url": "http://x/y.png"}]}, "is an address instead of an image"),
        ({"data": [{"b64_json": "aGk="}]}, "not a complete image"),
        ({"data": [{"b64_json": "not base64!"}]}, "not base64"),
        ({"data": [{"b64_json": "data:image/png;base64,aGk="}]}, "not base64"),
        (holding(picture(64, 64)), "is 64x64 instead of 64x96"),
        (holding(picture()[:60]), "not a complete image"),
        (holding(picture(kind="JPEG")[:-200]), "not a complete image"),
        (holding(picture(kind="GIF")), "not a complete image"),
        (holding(picture(), picture()), "2 images instead of 1"),
        ({"error": {"message": "the model is asleep"}}, "has 'data': the model is asleep"),
        ({}, "has 'data'"),
        ([], "has 'data'"),
        ((200, b"<html>Welcome</html>", {"Content-Type": "text/html"}), "text/html that is not JSON"),
        (b"", "not JSON"),
        (b"\xff\xfe{", "not JSON"),
        (b"[" * 50_000, "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b"[" + b"[]," * 200_000 + b"[]]", "not JSON"),
        ((204, b""), "status 204"),
        ((201, {}), "status 201"),
        ((302, b"", {"Location": "http://127.0.0.1:9/"}), "status 302 instead of 200; redirects are not followed"),
    ],
)
def test_an_answer_without_the_images_is_refused_with_what_it_is(answer, words):
    assert words in refusal(answer)


def test_as_many_images_as_were_asked_for():
    two = GenerateRequest("", 64, 96, steps=2, batch=2)
    assert "1 images instead of 2" in refusal(holding(picture()), two)
    assert "data[1] is 96x64" in refusal(holding(picture(), picture(96, 64)), two)


# --- time and memory


def drip(head):
    """Answers a byte every tenth of a second."""

    def answer(handler):
        if head:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        try:
            for _ in range(300):
                handler.wfile.write(b"H" if not head else b" ")
                time.sleep(0.1)
        except OSError:
            pass

    return answer


@pytest.mark.parametrize("head", [False, True])
def test_the_time_limit_holds_for_the_whole_call(head):
    begun = time.perf_counter()
    assert "did not answer in time (0.5 s)" in refusal(drip(head), timeout_s=0.5)
    assert time.perf_counter() - begun < 10


def test_a_server_that_accepts_and_says_nothing():
    with (
        socket.create_server(("127.0.0.1", 0)) as quiet,
        pytest.raises(CallRefusedError, match="did not answer in time"),
    ):
        ask(f"http://127.0.0.1:{quiet.getsockname()[1]}", timeout_s=0.3)


def endless(handler, sent):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    try:
        while len(sent) < 256:
            handler.wfile.write(b"x" * 2**20)
            sent.append(2**20)
    except OSError:
        pass


def test_an_endless_answer_and_a_compressed_bomb_are_cut_off():
    sent = []
    assert "more than the 4.06 MiB" in refusal(lambda handler: endless(handler, sent))
    assert len(sent) < 128  # MiB: what sockets hold of it, too
    bomb = gzip.compress(b" " * 2**26)
    for coding in ("gzip", "x-gzip"):
        assert "more than the 4.06 MiB" in refusal((200, bomb, {"Content-Encoding": coding}))
    assert "compressed its answer with 'br'" in refusal((200, b"x", {"Content-Encoding": "br"}))
    assert "is not the gzip" in refusal((200, b"x" * 99, {"Content-Encoding": "gzip"}))


def test_an_answer_that_is_compressed_unasked_is_read():
    body = gzip.compress(json.dumps(holding(picture())).encode())
    with serving(lambda number, sent: (200, body, {"Content-Encoding": "gzip"})) as (url, seen):
        assert ask(url).total_s > 0
        assert seen[0][2]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "5", None])
def test_a_time_limit_that_is_none_is_refused(value):
    with pytest.raises(InputError, match="timeout_s must be"):
        HttpAdapter("http://127.0.0.1:9", timeout_s=value)


# --- calls that are refused or dropped


def drop(handler):
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def cut(handler):
    handler.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"data"')
    drop(handler)


def garbled(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nnonsense")
    drop(handler)


@pytest.mark.parametrize("fault", [drop, cut, garbled, (500, {}), (502, b"<html>bad gateway</html>")])
def test_what_is_dropped_once_is_sent_again_and_twice_is_refused(fault):
    with serving(lambda number, sent: fault if number == 1 else asked_for(sent)) as (url, seen):
        timing = ask(url)
        assert len(seen) == 2
        assert timing.waited_s > 0
    with serving(lambda number, sent: fault) as (url, seen):
        with pytest.raises(CallRefusedError):
            ask(url)
        assert len(seen) == 2


@pytest.mark.parametrize("status", [429, 503])
def test_what_the_server_asks_to_wait_is_waited_and_not_timed(status):
    def answer(number, sent):
        return (status, {}, {"Retry-After": "1"}) if number == 1 else asked_for(sent)

    with serving(answer) as (url, seen):
        begun = time.perf_counter()
        timing = ask(url)
        assert time.perf_counter() - begun >= 1
        assert timing.waited_s == 1
        assert timing.total_s < 1
        assert len(seen) == 2


def test_a_wait_that_is_too_long_is_refused_at_once():
    told = refusal((429, {"error": {"message": "quota"}}, {"Retry-After": "86400"}))
    assert "status 429 instead of 200 (quota), and asks to wait 86400 s, longer than 120 s" in told


def test_short_waits_do_not_add_up_to_a_long_one(monkeypatch):
    monkeypatch.setattr(http_adapter, "MOST_WAIT_S", 0.5)
    with serving(lambda number, sent: (503, {}, {"Retry-After": "0.3"})) as (url, seen):
        with pytest.raises(CallRefusedError, match=r"asks to wait 1 s, longer than 0\.5 s"):
            ask(url)
        assert len(seen) == 2


def test_retry_after_in_seconds_and_as_a_date():
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    later = {"retry-after": format_datetime(now + timedelta(seconds=7), usegmt=True)}
    assert retry_after_s({"retry-after": " 3 "}) == 3
    assert retry_after_s({**later, "date": format_datetime(now, usegmt=True)}) == 7
    assert retry_after_s(later) == 0  # long past
    for broken in ("", "soon", "nan", "Fri, 99 Foo 2026"):
        assert retry_after_s({"retry-after": broken}) is None
    assert retry_after_s({"retry-after": "-3"}) == 0


def run(answer, *, grid="steps=2,4,6;sizes=64", repeats=2, more=(), out):
    with serving(answer) as (url, seen):
        status = main(["profile", "--url", url, "--grid", grid, "--repeats", str(repeats), "--out", str(out), *more])
    return status, seen


def test_one_refused_call_leaves_the_profile_and_is_listed(tmp_path, capsys):
    out = tmp_path / "p.json"

    def answer(number, sent):
        # the second round's call of 4 steps is the sixth: warm-up, three points, the first point again
        return (400, {"detail": "no \x1b[31mluck today"}) if number == 6 else asked_for(sent)

    status, _ = run(answer, out=out)
    got = ServerProfile.load(out)
    assert status == 0
    assert [(p.steps, p.n) for p in got.points] == [(2, 2), (4, 1), (6, 2)]
    (skipped,) = got.skipped
    assert (skipped.steps, skipped.reason) == (
        4,
        "1 of 2 calls: answered with status 400 instead of 200 (no [31mluck today)",
    )
    assert "127.0.0.1" not in out.read_text()
    printed = capsys.readouterr()
    assert "no [31mluck today" in printed.err
    assert "skipped 64x64, 4 steps, batch 1: 1 of 2 calls" in printed.out
    assert got.complete


def test_a_point_that_the_server_refuses_is_left_out(tmp_path):
    out = tmp_path / "p.json"

    def answer(number, sent):
        return (400, {"error": {"message": "at most 4"}}) if sent["num_inference_steps"] > 4 else asked_for(sent)

    status, seen = run(answer, grid="steps=2,3,4,6;sizes=64", out=out)
    got = ServerProfile.load(out)
    assert status == 0
    assert [p.steps for p in got.points] == [2, 3, 4]
    assert [(s.steps, s.reason) for s in got.skipped] == [(6, "answered with status 400 instead of 200 (at most 4)")]
    assert sum(sent["num_inference_steps"] == 6 for _, sent, _ in seen) == 1


def test_fewer_steps_that_are_refused_do_not_take_the_size_with_them():
    def answer(number, sent):
        return (400, {"detail": "at least 4"}) if sent["num_inference_steps"] < 4 else asked_for(sent)

    with serving(answer) as (url, _):
        got = profile(HttpAdapter(url), GRID)
    assert [p.steps for p in got.points] == [4, 6]
    assert [s.steps for s in got.skipped] == [2]


def test_a_server_that_goes_away_leaves_what_was_measured(tmp_path, capsys):
    out = tmp_path / "p.json"
    status, _ = run(lambda number, sent: asked_for(sent) if number <= 3 else (401, {"detail": "expired"}), out=out)
    got = ServerProfile.load(out)
    assert status == 0
    assert [p.steps for p in got.points] == [2, 4]
    assert [(s.steps, s.reason) for s in got.skipped] == [(6, "the server took no more calls")]
    assert "the measurement ends early: server" in capsys.readouterr().err


@pytest.mark.parametrize("answer", [(400, {"detail": "never"}), (401, {"detail": "never"}), {"data": []}])
def test_nothing_measured_is_one_sentence_and_no_file(tmp_path, capsys, answer):
    out = tmp_path / "p.json"
    status, _ = run(lambda number, sent: answer, out=out)
    assert status == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("diffpolicy: ")
    assert not out.exists()


def test_a_server_that_is_not_there_is_one_sentence_at_once():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    begun = time.perf_counter()
    with pytest.raises(InputError, match=rf"127\.0\.0\.1:{port}/v1/images/generations cannot be reached"):
        profile(HttpAdapter(f"http://127.0.0.1:{port}"), GRID)
    assert time.perf_counter() - begun < 5
    for host in ("a..b", "a" * 70):
        with pytest.raises(InputError, match=r"url http://|cannot be reached"):
            profile(HttpAdapter(f"http://{host}"), GRID)


@pytest.fixture
def heeds_ctrl_c():
    """A shell has its background jobs ignore Ctrl-C, and so would these tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_what_was_measured_and_tells_its_status(tmp_path, heeds_ctrl_c, number):
    out = tmp_path / "p.json"

    def answer(count, sent):
        if count == 4:
            os.kill(os.getpid(), number)
            time.sleep(5)
        return asked_for(sent)

    begun = time.perf_counter()
    status, _ = run(answer, out=out)
    got = ServerProfile.load(out)
    assert status == 128 + number
    assert (got.complete, [p.steps for p in got.points], got.skipped) == (False, [2, 4], ())
    assert time.perf_counter() - begun < 60


def test_requests_at_once_that_are_refused_are_left_out():
    busy = threading.Semaphore(2)

    def answer(number, sent):
        if not busy.acquire(blocking=False):
            return 400, {"detail": "too many"}
        time.sleep(0.05)
        busy.release()
        return asked_for(sent)

    with serving(answer) as (url, _):
        got = profile(HttpAdapter(url), GRID, concurrency=8)
    assert [t.concurrency for t in got.throughput] == [1, 2]
    assert got.skipped[-1].reason == "4 requests at once: answered with status 400 instead of 200 (too many)"


# --- the address


@pytest.mark.parametrize(
    ("url", "endpoint", "query"),
    [
        ("http://h", "http://h/v1/images/generations", ""),
        ("http://h/", "http://h/v1/images/generations", ""),
        ("http://h:8000/v1", "http://h:8000/v1/images/generations", ""),
        ("http://h/v1/", "http://h/v1/images/generations", ""),
        ("http://h/api/v3//", "http://h/api/v3/images/generations", ""),
        ("http://h/v1/images", "http://h/v1/images/generations", ""),
        ("http://h/v1/images/generations/", "http://h/v1/images/generations", ""),
        ("http://h/deployments/x/images/generations?api-version=1", "http://h/deployments/x/images/generations",
         "api-version=1"),
        ("HTTPS://Host.Example/V1?key=a b".replace(" ", "%20"), "https://host.example/V1/images/generations",
         "key=a%20b"),
        ("http://h/v1/?key=abc", "http://h/v1/images/generations", "key=abc"),
        ("http://h?key=%C3%A9é", "http://h/v1/images/generations", "key=%C3%A9%C3%A9"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1/images/generations", ""),
        ("http://h/base", "http://h/base/v1/images/generations", ""),
    ],
)  # fmt: skip
def test_addresses_are_read_once(url, endpoint, query):
    got = ServerUrl.parse(url)
    assert (got.endpoint, got.query) == (endpoint, query)
    assert got.shown == endpoint + ("?..." if query else "")


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000?key=" + KEY,
        "localhost:8000/?key=" + KEY,
        f"user:{KEY}@host/v1",
        f"http://user:{KEY}@host/v1",
        f"http://{KEY}@host",
        "http://@host?" + KEY,
        "http://host/#" + KEY,
        f"http://host/v1?a={KEY}#b",
        f"http://host/?key={KEY}\n",
        f"http://host/?key={KEY} x",
        f"http://host:port/?key={KEY}",
        f"http://host:99999/?key={KEY}",
        f"http://host:0?key={KEY}",
        f"http://::1:8000/?key={KEY}",
        f"http://[::1/?key={KEY}",
        f"http://?key={KEY}",
        f"http:///v1?key={KEY}",
        f"http://h\\x?key={KEY}",
        f"ftp://host?key={KEY}",
        "",
        None,
        b"http://h",
    ],
)
def test_what_is_no_address_is_refused_without_its_secrets(url):
    with pytest.raises(InputError, match="url ") as caught:
        HttpAdapter(url)
    assert KEY not in str(caught.value)


def test_a_user_in_an_address_is_refused_with_where_a_key_belongs():
    with pytest.raises(InputError, match="--api-key-env, or with api_key_env in a workers file"):
        ServerUrl.parse(f"http://user:{KEY}@host/v1")


def test_a_key_in_the_query_is_sent_and_never_told(tmp_path, capsys, caplog):
    caplog.set_level(logging.DEBUG)
    out = tmp_path / "p.json"

    def answer(number, sent):
        return asked_for(sent) if number < 4 else (400, {"detail": f"bad key {KEY} for http://inner/?key={KEY}"})

    with serving(answer) as (url, seen):
        url += f"/v1/?key={KEY}"
        status = main(["profile", "--url", url, "--grid", "steps=2,4,6;sizes=64", "--out", str(out), "--json"])
    assert status == 0
    assert seen[0][0] == f"/v1/images/generations?key={KEY}"
    printed = capsys.readouterr()
    assert "bad key ***" in out.read_text()
    for text in (printed.out, printed.err, caplog.text, out.read_text()):
        assert KEY not in text


# --- the key


@pytest.mark.parametrize(
    "key", [KEY + "\r", KEY + "\n", f" {KEY}", f"{KEY} {KEY}", KEY + "é", KEY + "\x00", KEY + "\x7f"]
)
def test_a_key_that_no_header_can_hold_is_refused_unseen(monkeypatch, capsys, tmp_path, key):
    monkeypatch.setattr("os.environ", {**os.environ, "IMAGES_KEY": key})
    out = tmp_path / "p.json"
    assert main(["profile", "--url", "http://127.0.0.1:9", "--api-key-env", "IMAGES_KEY", "--out", str(out)]) == 2
    printed = capsys.readouterr()
    assert "environment variable 'IMAGES_KEY' holds a space" in printed.err
    assert KEY not in printed.err + printed.out
    assert not out.exists()


def test_a_key_given_in_place_of_its_variable_is_not_repeated(capsys):
    assert main(["profile", "--url", "http://127.0.0.1:9", "--api-key-env", KEY]) == 2
    assert KEY not in capsys.readouterr().err


def test_a_key_that_the_server_repeats_is_not_told(monkeypatch):
    monkeypatch.setenv("IMAGES_KEY", KEY)
    told = refusal((401, {"error": {"message": f"Incorrect API key: {KEY}"}}), api_key_env="IMAGES_KEY")
    assert "status 401 instead of 200 (Incorrect API key: ***)" in told


# --- the server's reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"error": {"message": "size\\nwrong", "code": 3}}', "size wrong"),
        (b'{"error": "too big"}', "too big"),
        (b'{"detail": "no such model"}', "no such model"),
        (b'{"detail": [{"loc": ["body", "size"], "msg": "bad"}, {"loc": ["body", "n"], "msg": "big"}]}',
         "body.size: bad; body.n: big"),
        (b'{"message": "busy"}', "busy"),
        (b"plain\x1b[2J \xff text", "plain [2J \ufffd text"),
        (b"<html><body>x</body></html>", ""),
        (b"", ""),
        (b"{}", ""),
        (b"null", "null"),
        (b'"quoted"', "quoted"),
        (b'{"code": 7}', '{"code": 7}'),
        (b'{"error": "\\ud800 a"}', "a"),
    ],
)  # fmt: skip
def test_the_servers_reason_is_one_printable_line(body, reason):
    assert error_reason(body) == reason


def test_a_long_or_deep_reason_is_cut_off():
    for body in (b'{"detail": "' + b"x" * 5000 + b'"}', b'{"error":' * 5000 + b"1" + b"}" * 5000):
        assert len(error_reason(body)) == 200


# --- no two calls alike


def test_no_two_calls_have_the_same_prompt_or_seed_and_a_seed_repeats_them():
    def calls(seed):
        with serving(lambda number, sent: asked_for(sent)) as (url, seen):
            profile(HttpAdapter(url), GRID, seed=seed)
        return [(sent["prompt"], sent["seed"]) for _, sent, _ in seen]

    first = calls(0)
    assert len(first) == 10  # a warm-up, three points twice, three for the throughput
    assert len({prompt for prompt, _ in first}) == len({seed for _, seed in first}) == len(first)
    assert first == calls(0) != calls(1)


def test_calls_stay_apart_for_long_and_are_short():
    many = [variation("", 2**31 - 2, call) for call in range(10_000)]
    assert len({prompt for prompt, _ in many}) == len({seed for _, seed in many}) == 10_000
    assert all(0 <= seed < 2**31 and len(prompt) < 40 for prompt, seed in many)


# --- steps


@pytest.mark.parametrize(
    ("calls", "steps", "expected"),
    [
        ([1.0, 2.0, 3.0], 3, (1.0, 2.0, 3.0)),
        ([1.0] * 7, 4, (2.0, 2.0, 2.0, 1.0)),  # Heun, DPM2
        ([1.0] * 8, 4, (2.0, 2.0, 2.0, 2.0)),  # guidance in two calls
        ([1.0] * 5, 4, (2.0, 1.0, 1.0, 1.0)),  # PNDM
        ([1.0, 2.0], 4, (0.75, 0.75, 0.75, 0.75)),  # image-to-image at half strength
        ([], 4, ()),
    ],
)
def test_the_runs_of_the_denoiser_are_divided_among_the_steps(calls, steps, expected):
    assert per_step(calls, steps) == expected


@pytest.mark.parametrize(
    ("scheduler", "runs"),
    [
        (diffusers.FlowMatchEulerDiscreteScheduler, 6),
        (diffusers.FlowMatchHeunDiscreteScheduler, 11),
    ],
)
def test_a_step_of_second_order_is_both_runs_of_the_denoiser(scheduler, runs):
    adapter = DiffusersAdapter("tiny", device="cpu")
    adapter.start()
    adapter._pipeline.scheduler = scheduler()
    denoiser = adapter._denoiser()
    forward = denoiser.forward

    def slower(*args, **options):
        time.sleep(0.02)
        return forward(*args, **options)

    denoiser.forward = slower
    adapter.generate(GenerateRequest("a cat", 64, 64, steps=6))
    timing = adapter.generate(GenerateRequest("a cat", 64, 64, steps=6))
    assert timing.network_calls == runs
    assert len(timing.step_s) == 6
    assert sum(timing.step_s) <= timing.total_s
    assert min(timing.step_s[:-1]) > runs // 6 * 0.02


def tiny_unet(scheduler):
    """The least Stable Diffusion 1 without text encoders."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    vae = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
    parts = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    with quiet():
        pipeline = diffusers.StableDiffusionPipeline(
            vae=vae, unet=unet, scheduler=scheduler(), requires_safety_checker=False, **parts
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("scheduler", "runs"),
    [
        (diffusers.EulerDiscreteScheduler, 6),
        (diffusers.HeunDiscreteScheduler, 11),
        (diffusers.KDPM2DiscreteScheduler, 11),
        (diffusers.KDPM2AncestralDiscreteScheduler, 11),
        (partial(diffusers.PNDMScheduler, skip_prk_steps=True), 7),
    ],
)
def test_every_scheduler_has_as_many_steps_as_were_asked_for(scheduler, runs):
    pipeline = tiny_unet(scheduler)
    words = {name: torch.zeros(1, 4, 8) for name in ("prompt_embeds", "negative_prompt_embeds")}
    with StageTimer(pipeline, pipeline.unet, torch.device("cpu"), steps=6) as timer:
        pipeline(**words, width=8, height=8, num_inference_steps=6, output_type="pil")
    assert timer.network_calls == runs
    assert len(timer.step_s) == 6
    assert 0 < sum(timer.step_s) < timer.total_s
