"""Workers as processes that are killed, frozen, ended and started again, as the dispatcher sees them."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

pytest.importorskip("fastapi")

from diffpolicy import _signals
from diffpolicy.edge.serving.api.logs import EventLog, messages_to
from diffpolicy.edge.serving.http_upstream import HttpUpstream
from diffpolicy.edge.serving.image_request import ImageRequest
from diffpolicy.edge.serving.running import listen, run_app
from diffpolicy.edge.serving.upstream import UpstreamError
from diffpolicy.edge.serving.worker_spec import WorkerSpec


@contextlib.contextmanager
def worker(*words, profile="mlenergy-a100-sd3-medium", port=0):
    """A worker that sleeps, and what it said when it was ready."""
    argv = [sys.executable, "-m", "diffpolicy", "worker", "--model", f"emulate:{profile}", "--port", str(port), *words]
    pipe = subprocess.PIPE
    process = subprocess.Popen([*argv, "--json"], stdout=pipe, stderr=pipe, text=True)
    try:
        line = process.stdout.readline()
        yield process, json.loads(line) if line else {}
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
        process.kill()
        process.communicate()


def call(upstream, number, steps, timeout_s=60.0):
    request = ImageRequest.parse({"prompt": "a cat", "num_inference_steps": steps}, number)
    return asyncio.ensure_future(upstream.call(request, timeout_s=timeout_s))


async def busy(upstream, count=1):
    while (await upstream.health()).running != count:
        await asyncio.sleep(0.01)


async def failed(task):
    with pytest.raises(UpstreamError) as caught:
        await task
    return caught.value


def test_a_worker_that_hangs_is_late_and_one_that_is_killed_in_mid_request_is_seen_to_be_and_starts_as_another():
    async def frozen_then_killed(process, told):
        upstream = HttpUpstream(WorkerSpec(told["url"]))
        before = await upstream.health()
        assert (before.usable, before.boot, before.models) == (True, told["boot"], ("sd3-medium",))
        process.send_signal(signal.SIGSTOP)
        error = await failed(call(upstream, "hangs", 1, timeout_s=0.2))
        assert (error.reached, error.late) == (True, True)
        process.send_signal(signal.SIGCONT)
        task = call(upstream, "killed", 400)
        await busy(upstream)
        process.kill()
        error = await failed(task)
        assert (error.reached, error.late) == (True, False)
        process.wait()  # until then an idle connection may look alive
        error = await failed(call(upstream, "after", 1))
        assert (error.reached, error.late) == (False, False)
        return upstream

    async def back(upstream, told):
        health = await upstream.health()
        assert (health.usable, health.boot) == (True, told["boot"])
        await upstream.aclose()

    async def both():
        with worker() as (process, told):
            upstream = await frozen_then_killed(process, told)
        with worker(port=told["url"].rpartition(":")[2]) as (_, again):
            assert again["url"] == told["url"]
            assert again["boot"] != told["boot"]
            await back(upstream, again)

    asyncio.run(asyncio.wait_for(both(), 100))


def test_on_sigterm_a_worker_refuses_ends_what_it_has_and_says_by_which_signal_it_ended():
    async def main(process, told):
        upstream = HttpUpstream(WorkerSpec(told["url"]))
        task = call(upstream, "runs", 6)
        await busy(upstream)
        process.send_signal(signal.SIGTERM)
        while not (health := await upstream.health()).draining:
            await asyncio.sleep(0.01)
        assert not health.usable
        refused = await call(upstream, "new", 1)
        assert (refused.status, json.loads(refused.body)["error"]["code"]) == (503, "draining")
        assert (await task).status == 200
        await upstream.aclose()

    with worker("--grace", "60") as (process, told):
        asyncio.run(asyncio.wait_for(main(process, told), 100))
        _, said = process.communicate(timeout=60)
        assert process.returncode == 143
        assert said.splitlines()[-1] == "diffpolicy: stopped by SIGTERM"


def test_a_worker_lets_in_by_the_tokens_that_its_file_holds_by_now(tmp_path):
    file, old, new = tmp_path / "tokens", "old-0123456789abcdef", "new-0123456789abcdef"
    file.write_text(old)
    with worker("--token-file", str(file)) as (_, told), httpx.Client(base_url=told["url"], trust_env=False) as to:

        def status(token):
            return to.get("/v1/models", headers={"authorization": f"Bearer {token}"}).status_code

        assert (status(old), status(new)) == (200, 401)
        file.write_text(new)
        until_s = time.monotonic() + 30
        while status(new) == 401 and time.monotonic() < until_s:
            time.sleep(0.05)
        assert (status(old), status(new)) == (401, 200)


def test_a_second_signal_cuts_the_time_of_grace_short():
    calls = []

    async def start():
        calls.append("start")
        os.kill(os.getpid(), signal.SIGTERM)

    async def stop(grace_s):
        calls.append(grace_s)
        if grace_s:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(600)

    before = [signal.getsignal(number) for number in _signals.NUMBERS]
    with pytest.raises(_signals.Stopped) as caught:
        asyncio.run(run_app(None, listen("127.0.0.1", 0), start=start, stop=stop, grace_s=500.0))
    assert caught.value.number == signal.SIGTERM
    assert calls == ["start", 500.0, 0.0]
    assert [signal.getsignal(number) for number in _signals.NUMBERS] == before


def test_what_servers_say_is_one_line_and_what_a_reader_of_forms_says_is_not_shown(capsys):
    loggers = [logging.getLogger(name) for name in ("diffpolicy.serving", "uvicorn", "python_multipart")]
    before = [(each.handlers, each.propagate, each.level) for each in loggers]
    with messages_to(EventLog("text", every=False)):
        for each in loggers:
            each.warning("of %s\nmore", each.name)
    assert [(each.handlers, each.propagate, each.level) for each in loggers] == before
    said = capsys.readouterr().err.splitlines()
    assert [line.split(" ", 1)[1] for line in said] == [
        "warning of diffpolicy.serving\\nmore", "warning of uvicorn\\nmore",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model", "nonsense"], ["nonsense"]),
        (["--model", "emulate:nonsense"], ["nonsense"]),
        (["--model", "emulate:tiny-cpu", "--host", "0.0.0.0"], ["--host 0.0.0.0", "--token-file"]),
        (["--model", "emulate:tiny-cpu", "--time-scale", "0"], ["--time-scale"]),
        (["--model", "emulate:tiny-cpu", "--grace", "1e9"], ["--grace"]),
        (["--model", "emulate:tiny-cpu", "--token-env", "NO_SUCH_VARIABLE"], ["NO_SUCH_VARIABLE"]),
        (["--model", "emulate:tiny-cpu", "--token-file", "none.txt"], ["none.txt"]),
        (["--model", "emulate:tiny-cpu", "--name", ""], ["--name"]),
        (["--model", "emulate:mlenergy-h100-sd3-medium", "--time-scale", "1e-5"], ["--time-scale 1e-05", "at least"]),
    ],
)
def test_a_worker_that_cannot_serve_says_why_in_a_sentence(refused, words, says):
    refused("worker", *words, "--port", 0, "-q", says=says)


def test_a_port_that_is_taken_is_refused(refused):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused("worker", "--model", "emulate:tiny-cpu", "--port", port, "-q", says=[f"port {port}"])
