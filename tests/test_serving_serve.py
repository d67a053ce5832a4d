"""`diffpolicy serve` end to end: in this process over two emulated workers, and as processes with signals and files."""

import asyncio
import base64
import contextlib
import csv
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("openai")

import openai

from diffpolicy.edge.dispatch import RequestLog
from diffpolicy.edge.serving.api import ApiSettings, make_app
from diffpolicy.edge.serving.api.recorder import RequestRecorder
from diffpolicy.edge.serving.decider import Decision
from diffpolicy.edge.serving.events import Answered, Bound, Cancelled
from diffpolicy.edge.serving.http_upstream import HttpUpstream
from diffpolicy.edge.serving.limits import Limits
from diffpolicy.edge.serving.reach import url_of
from diffpolicy.edge.serving.rules import make_policy
from diffpolicy.edge.serving.running import listen, serving
from diffpolicy.edge.serving.service import Service
from diffpolicy.edge.serving.settings import Settings
from diffpolicy.edge.serving.worker.app import make_worker_app
from diffpolicy.edge.serving.worker.desk import Desk
from diffpolicy.edge.serving.worker.engine import Run
from diffpolicy.edge.serving.worker.engines import make_engine
from diffpolicy.edge.serving.worker.job import Job
from diffpolicy.edge.serving.worker_spec import WorkerSpec
from serving_fakes import Caller, client, until

PATH = "/v1/images/generations"
PROFILE = "emulate:mlenergy-a100-sd3-medium"
SMALL = {"prompt": "a cat", "size": "512x512", "num_inference_steps": 10}


@contextlib.asynccontextmanager
async def served(policy, settings=None, *, engines=None, **more):
    """A service over two emulated workers, one twice as fast, or others, and its app; all of it in this process."""
    engines = engines or [make_engine(model, scale=0.1) for model in (PROFILE, f"{PROFILE}@2")]
    desks = {name: Desk(engine, 16) for name, engine in zip("ab", engines, strict=False)}
    specs = [WorkerSpec(f"http://{name}:80") for name in desks]

    def connect(spec):
        app = make_worker_app(desks[spec.name[0]])
        return HttpUpstream(spec, transport=httpx.ASGITransport(app))

    for desk in desks.values():
        await desk.start()
    service = Service(specs, connect, policy.dispatcher, policy.name, Settings(**more))
    app = make_app(service, settings)
    await service.start()
    try:
        yield service, app
    finally:
        await service.stop(2.0)
        for desk in desks.values():
            await desk.stop(1.0)


@pytest.mark.parametrize("binding", ["arrival", "free"])
def test_the_official_client_is_served_by_two_workers_and_the_log_says_so(tmp_path, binding):
    async def go():
        async with served(make_policy("least-finish", binding=binding)) as (service, app):
            heard, recorder = [], RequestRecorder(tmp_path / "log.csv")
            service.listeners += [heard.append, recorder]
            ours = openai.AsyncOpenAI(base_url="http://test/v1", api_key="x" * 16, http_client=client(app))
            assert [m.id async for m in ours.models.list()] == ["sd3-medium"]
            asked = (ours.images.generate(prompt="a cat", size="512x512", n=1) for _ in range(6))
            for answer in await asyncio.gather(*asked):
                assert answer.data[0].b64_json
            async with client(app) as to:
                refused = await to.post(PATH, json={"prompt": "x", "model": "another"})
                assert (refused.status_code, refused.json()["error"]["param"]) == (404, "model")
                late = await to.post(PATH, json=SMALL, headers={"x-diffpolicy-deadline-s": "0.000001"})
                assert (late.status_code, late.headers["x-should-retry"]) == (504, "false")
                assert (await to.get("/health")).status_code == 200
                metrics = (await to.get("/metrics")).text
                snapshot = (await to.get("/snapshot")).json()["snapshot"]
            assert 'diffpolicy_requests_total{outcome="ok",worker="a:80"}' in metrics
            assert "diffpolicy_queue_depth 0.0" in metrics
            assert [s["name"] for s in snapshot["servers"]] == ["a:80", "b:80"]
            assert {e.server for e in heard if isinstance(e, Bound)} == {"a:80", "b:80"}
        recorder.close()

    asyncio.run(go())
    with (tmp_path / "log.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6


def test_a_pipeline_is_served_from_its_folder_as_diffusers_writes_it(tmp_path):
    """Of SD3's own classes, in small: of the real one nothing is new but its weights."""
    pytest.importorskip("diffusers")
    import torch

    from diffpolicy.edge.hardware.models.architectures import architecture
    from diffpolicy.edge.hardware.models.building import random_pipeline
    from diffpolicy.edge.hardware.models.checkpoints import quiet

    folder = tmp_path / "sd3-tiny"
    with quiet():
        random_pipeline(architecture("tiny"), torch.device("cpu"), torch.float32).save_pretrained(folder)

    async def go():
        engine = make_engine(str(folder), device="cpu")
        async with served(make_policy("least-finish", binding="free"), engines=[engine]) as (_, app):
            ours = openai.AsyncOpenAI(base_url="http://test/v1", api_key="x" * 16, http_client=client(app))
            assert [m.id async for m in ours.models.list()] == ["sd3-tiny"]
            asked = {"prompt": "a cat", "size": "16x16", "model": "sd3-tiny"}
            more = {"num_inference_steps": 2, "seed": 5}
            answers = [await ours.images.generate(**asked, extra_body=more, n=n) for n in (1, 1, 2)]
            files = [[base64.b64decode(image.b64_json) for image in answer.data] for answer in answers]
            with pytest.raises(openai.NotFoundError):
                await ours.images.generate(**{**asked, "model": "sd3-medium"})
        return files

    once, again, both = asyncio.run(go())
    assert once == again
    assert len(set(both)) == 2
    built = make_engine("tiny", device="cpu")  # the same weights, that were never on a disk
    asyncio.run(built.load())
    assert asyncio.run(built.generate(Job("a cat", 16, 16, 2, seed=5), Run(0.0))) == once
    assert struct.unpack(">II", once[0][16:24]) == (16, 16)


def test_a_client_that_leaves_is_gone_before_the_next_binding_or_stopped_where_it_runs():
    async def go():
        async with served(make_policy("least-finish", binding="free")) as (service, app):
            heard = []
            service.listeners.append(heard.append)
            body = json.dumps({**SMALL, "num_inference_steps": 50}).encode()
            callers = [Caller(app, PATH, body) for _ in range(3)]
            await until(lambda: sum(isinstance(e, Bound) for e in heard) == 2 and len(service.waiting) == 1)
            waiting = service.waiting[0].request.number
            running = next(e for e in heard if isinstance(e, Bound)).number
            for caller in callers:
                caller.leave()
            await asyncio.wait([caller.task for caller in callers], timeout=2)
            await until(lambda: not service.running)
            assert not service.waiting
            left = {e.number: e.server for e in heard if isinstance(e, Cancelled)}
            assert left[waiting] is None
            assert left[running] in ("a:80", "b:80")
            assert waiting not in {e.number for e in heard if isinstance(e, Bound)}
            assert not any(isinstance(e, Answered) for e in heard)

    asyncio.run(go())


def test_a_held_stream_says_so_until_its_images_come():
    async def go():
        async with served(make_policy("least-finish", binding="free"), ApiSettings(comment_s=0.02)) as (_, app):
            body = json.dumps({**SMALL, "stream": True}).encode()
            callers = [Caller(app, PATH, body) for _ in range(3)]
            await asyncio.wait([caller.task for caller in callers], timeout=10)
            assert all(caller.status == 200 for caller in callers)
            assert any(caller.body.startswith(b": held\n\n") for caller in callers)
            assert all(caller.body.count(b"event: image_generation.completed") == 1 for caller in callers)

    asyncio.run(go())


def test_a_full_queue_and_a_drain_are_told_with_when_to_ask_again():
    async def go():
        async with served(make_policy("least-finish", binding="free"), limits=Limits(queue=1)) as (service, app):
            callers = [Caller(app, PATH, json.dumps(SMALL).encode()) for _ in range(6)]
            await asyncio.wait([caller.task for caller in callers], timeout=10)
            statuses = sorted(caller.status for caller in callers)
            assert statuses[0] == 200
            assert statuses[-1] == 429
            stopping = asyncio.ensure_future(service.stop(1.0))
            await asyncio.sleep(0)
            async with client(app) as to:
                assert (await to.get("/health")).json() == {"status": "draining"}
                refused = await to.post(PATH, json=SMALL)
            assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
            await stopping

    asyncio.run(go())


def test_it_ends_although_what_decides_swallows_that_it_is_cancelled():
    """As `asyncio.wait_for` does before Python 3.12, when an answer comes at the same moment."""

    async def go():
        async with served(make_policy("least-finish")) as (service, app):

            async def decide(moment):
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(60)
                return Decision(None, "late", 0.0)

            service.decider.decide = decide
            caller = Caller(app, PATH, json.dumps(SMALL).encode())
            await until(lambda: service.waiting)
            await asyncio.wait_for(service.stop(0.01), 5)
            await asyncio.wait_for(caller.task, 5)
            assert caller.status == 503

    asyncio.run(go())


# Processes


@contextlib.contextmanager
def started(*argv, env=None):
    """A command that runs, and the JSON object that it prints once it is ready."""
    pipe = subprocess.PIPE
    words = [sys.executable, "-m", "diffpolicy", *map(str, argv), "--json"]
    process = subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, env={**os.environ, **(env or {})})
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield process, json.loads(line)
    finally:
        process.kill()
        process.communicate()


def soon(true, within_s=10.0):
    """Waits for what comes soon."""
    until_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < until_s
        time.sleep(0.02)


@contextlib.contextmanager
def two_workers():
    """Addresses of two emulated workers, on ports, in a thread of this process."""
    loop, urls, ready, ended = asyncio.new_event_loop(), [], threading.Event(), asyncio.Event()

    async def go():
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(2):
                desk = Desk(make_engine(f"{PROFILE}@4", scale=0.5), 16)
                await desk.start()
                stack.push_async_callback(desk.stop, 1.0)
                listening = listen("127.0.0.1", 0)
                await stack.enter_async_context(serving(make_worker_app(desk), listening))
                urls.append(url_of(*listening.getsockname()))
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(go()))
    thread.start()
    try:
        assert ready.wait(20)
        yield urls
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


def test_a_process_is_reconfigured_and_drained(tmp_path):
    """A worker is added to the file, beside a broken one; SIGTERM lets what runs end, and then says 143."""
    workers, log, keys = tmp_path / "workers.json", tmp_path / "log.csv", tmp_path / "keys"
    keys.write_text("shop=0123456789abcdef\n")
    headers = {"authorization": "Bearer 0123456789abcdef"}

    def write(*urls):
        workers.write_text(json.dumps({"workers": [{"url": url} for url in urls]}))

    with two_workers() as (first, second), ThreadPoolExecutor() as pool:
        write(first)
        argv = ("--workers", workers, "--port", "0", "--log", log, "--token-file", keys, "--policy", "round-robin")
        with started("serve", *argv, "--log-format", "json") as (process, told):
            to = httpx.Client(base_url=told["url"], headers=headers, trust_env=False, timeout=30)
            assert told["policy"] == "round-robin on arrival"
            assert to.post(PATH, json=SMALL, headers={"authorization": ""}).status_code == 401
            assert to.post(PATH, json=SMALL).status_code == 200
            workers.write_text("{")
            process.send_signal(signal.SIGHUP)
            time.sleep(0.1)
            write(first, second)
            process.send_signal(signal.SIGHUP)

            def servers():
                return to.get("/snapshot").json()["snapshot"]["servers"]

            soon(lambda: [s["state"] for s in servers()] == ["ready", "ready"])
            assert [to.post(PATH, json=SMALL).status_code for _ in range(2)] == [200, 200]
            new = {"authorization": "Bearer fedcba9876543210"}
            for text, status in (("short\n", 401), ("shop=fedcba9876543210\n", 200)):
                keys.write_text(text)
                process.send_signal(signal.SIGHUP)
                soon(lambda status=status: to.get("/v1/models", headers=new).status_code == status)
            assert to.post(PATH, json=SMALL).status_code == 401
            to.headers.update(new)
            slow = pool.submit(to.post, PATH, json={"prompt": "a cat", "num_inference_steps": 60})
            soon(lambda: any(s["outstanding"] for s in servers()))
            process.send_signal(signal.SIGTERM)
            soon(lambda: to.get("/health").status_code == 503)
            assert to.post(PATH, json=SMALL).status_code == 503
            assert slow.result().status_code == 200
            assert process.wait(15) == 143
            lines = [json.loads(line) for line in process.stderr.read().splitlines() if line.startswith("{")]
    assert {"Arrived", "Bound", "Answered", "Refused", "WorkerChanged"} <= {line["event"] for line in lines}
    assert sum("workers.json" in line.get("message", "") for line in lines) == 1
    assert "a cat" not in json.dumps(lines)
    assert not any(key in json.dumps(lines) for key in ("0123456789abcdef", "fedcba9876543210"))
    recorded = RequestLog.read(log)
    assert len(recorded) == 4
    assert len(recorded.servers) == 2


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--host", "0.0.0.0"], "--token-file or --token-env"),
        (["--policy", "round-robbin"], "did you mean round-robin"),
        (["--order", "first-come"], "--order works only with --binding free"),
        (["--lead", "0.01"], "--lead works only with --binding free"),
        (["--share", "1.5"], "--share must be below 1"),
        (["--beside", "random"], "--beside works only with --share or --shadow"),
        (["--token-env", "NOBODY_SET_THIS"], "NOBODY_SET_THIS"),
        (["--log", "."], "folder"),
        (["--workers", "nowhere.json"], "nowhere.json"),
        (["--workers", "ftp://a"], "ftp"),
        (["--grace", "1e9"], "--grace"),
    ],
)
def test_a_mistake_is_one_sentence(refused, tmp_path, monkeypatch, argv, said):
    monkeypatch.chdir(tmp_path)
    refused("serve", "--workers", "http://127.0.0.1:1", "--port", "0", *argv, says=[said])


def test_a_port_that_is_taken_is_one_sentence(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused("serve", "--workers", "http://127.0.0.1:1", "--port", port, says=[str(port)])


def test_rules_load_no_torch():
    code = (
        "import sys, asyncio\n"
        "from diffpolicy.cli.main import parser\n"
        "from diffpolicy.cli import serve\n"
        "import diffpolicy.edge.serving.api.serving_loop as loop\n"
        "async def nothing(*_, ready, **__): ready()\n"
        "loop.serve_policy = nothing\n"
        "serve.run(parser().parse_args(['serve', '--workers', 'http://127.0.0.1:1', '--port', '0', '--binding', 'free',"
        " '--policy', 'power-of-two', '--share', '0.5']))\n"
        "print([m for m in ('torch', 'tensordict', 'lightning', 'matplotlib', 'numba') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stdout + done.stderr
