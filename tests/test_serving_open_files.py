"""Clients take no files that connections to workers need: too many of them are refused."""

import asyncio
import json
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

pytest.importorskip("fastapi")

from diffpolicy.edge.serving import open_files, running
from diffpolicy.edge.serving.api.app import make_app
from diffpolicy.edge.serving.open_files import clients_of, raise_limit, warn_of_files
from diffpolicy.edge.serving.running import listen, serving
from serving_fakes import FakeService, image, until


def limited(soft, hard, refused=False):
    """Python's module `resource` on a system with these limits."""
    now = [soft, hard]

    def setrlimit(kind, wanted):
        if refused:
            raise ValueError("current limit exceeds maximum limit")
        now[:] = wanted

    return SimpleNamespace(
        RLIMIT_NOFILE=7, RLIM_INFINITY=-1, getrlimit=lambda kind: tuple(now), setrlimit=setrlimit, now=now
    )


@pytest.mark.parametrize(
    ("soft", "hard", "raised"),
    [(1024, 4096, 4096), (1024, 2**20, 65_536), (1024, -1, 65_536), (64, 64, 64), (100_000, -1, 100_000), (-1, -1, -1)],
)
def test_the_limit_is_raised_as_far_as_it_may_be_and_never_lowered(soft, hard, raised, monkeypatch):
    system = limited(soft, hard)
    monkeypatch.setattr(open_files, "_resource", lambda: system)
    raise_limit()
    assert system.now == [raised, hard]
    assert open_files.limit() == (None if raised == -1 else raised)


def test_a_system_that_refuses_or_has_no_limit_is_left_alone(monkeypatch):
    system = limited(256, -1, refused=True)
    monkeypatch.setattr(open_files, "_resource", lambda: system)
    raise_limit()
    assert open_files.limit() == 256
    monkeypatch.setattr(open_files, "_resource", lambda: None)
    raise_limit()
    assert open_files.limit() is None
    assert clients_of(open_files.limit()) is None


def test_few_files_are_told_of_where_more_clients_may_wait(monkeypatch, caplog):
    monkeypatch.setattr(open_files, "_resource", lambda: limited(1024, 1024))
    with caplog.at_level(logging.WARNING, "diffpolicy.serving"):
        warn_of_files(396)
        assert not caplog.records
        warn_of_files(397)
    assert [record.getMessage() for record in caplog.records] == [
        "1024 open files (ulimit -n) are enough for 396 clients at a time, fewer than the 397 that may wait; further"
        " ones are refused"
    ]


@pytest.fixture(params=["httptools", "h11"])
def protocol(request, monkeypatch):
    """The parser of requests that the service has."""
    if request.param == "h11":
        monkeypatch.setattr(running, "bounded_http", lambda: "h11")
    else:
        pytest.importorskip("httptools")


@pytest.mark.usefixtures("protocol")
def test_what_is_under_way_is_answered_and_what_is_too_many_refused(monkeypatch, caplog):
    monkeypatch.setattr(running, "limit", lambda: 64)
    most, goes = clients_of(64), asyncio.Event()

    async def behave(request, chunk):
        await goes.wait()
        return image()

    async def main():
        service, listening = FakeService(behave), listen("127.0.0.1", 0)
        port = listening.getsockname()[1]
        body = {"prompt": "a cat"}
        async with (
            serving(make_app(service), listening) as server,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
        ):
            first = [asyncio.ensure_future(client.post("/v1/images/generations", json=body)) for _ in range(most)]
            await until(lambda: len(service.requests) == most)
            refused = await client.post("/v1/images/generations", json=body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "connections_full")
            assert (refused.headers["retry-after"], refused.headers["connection"]) == ("2", "close")
            assert (await client.get("/live")).status_code == 200
            # more that ask for nothing take files too; those above a quarter more are dropped
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(most)]
            await until(lambda: len(server.server_state.connections) == int(1.25 * most))
            ended = [asyncio.ensure_future(reader.read()) for reader, _ in silent]
            await until(lambda: sum(each.done() for each in ended) == most - 3)  # 3 are left, one by the idle one
            goes.set()
            answers = await asyncio.gather(*first)
            assert [answer.status_code for answer in answers] == most * [200]
            for _, writer in silent:
                writer.close()
            await until(lambda: len(server.server_state.connections) == most)
            assert (await client.post("/v1/images/generations", json=body)).status_code == 200
            await asyncio.gather(*ended, return_exceptions=True)

    with caplog.at_level(logging.WARNING, "diffpolicy.serving"):
        asyncio.run(main())
    assert [record.getMessage() for record in caplog.records if record.name == "diffpolicy.serving"] == [
        "clients are refused: more than 12 requests at a time would leave too few open files for workers"
        f" (ulimit -n is {open_files.limit()})"
    ]


@pytest.mark.usefixtures("protocol")
def test_connections_that_are_kept_for_later_keep_nobody_out(monkeypatch, caplog):
    monkeypatch.setattr(running, "limit", lambda: 64)
    most = int(1.25 * clients_of(64))

    async def asked(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        return reader, writer

    async def main():
        listening = listen("127.0.0.1", 0)
        port = listening.getsockname()[1]
        async with serving(make_app(FakeService()), listening) as server:
            kept = [await asked(port) for _ in range(most + 2)]
            assert await kept[0][0].read() == await kept[1][0].read() == b""
            await until(lambda: len(server.server_state.connections) == most)
            for reader, writer in kept[2:]:
                writer.write(b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
            for _, writer in kept:
                writer.close()

    with caplog.at_level(logging.WARNING, "diffpolicy.serving"):
        asyncio.run(main())
    assert not [record for record in caplog.records if record.name == "diffpolicy.serving"]


def test_looks_at_many_workers_leave_fewer_files_for_clients(monkeypatch):
    monkeypatch.setattr(running, "limit", lambda: 64)
    goes, workers = asyncio.Event(), [14]

    async def behave(request, chunk):
        await goes.wait()
        return image()

    async def main():
        service, listening = FakeService(behave), listen("127.0.0.1", 0)
        async with (
            serving(make_app(service), listening, lambda: workers[0]),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=20) as client,
        ):

            def ask():
                return asyncio.ensure_future(client.post("/v1/images/generations", json={"prompt": "a cat"}))

            answers = [ask() for _ in range(5)]
            await until(lambda: len(service.requests) == 5)
            assert (await ask()).status_code == 429
            workers[0] = 8  # by the file of workers, which has changed
            answers.append(ask())
            await until(lambda: len(service.requests) == 6)
            goes.set()
            assert [answer.status_code for answer in await asyncio.gather(*answers)] == 6 * [200]

    assert clients_of(64, workers=14) == 5
    asyncio.run(main())


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="reads a process's limits as Linux shows them")
def test_a_process_raises_its_limit_and_says_if_that_is_still_low():
    command = f"ulimit -S -n 100; ulimit -H -n 200; exec '{sys.executable}' -m diffpolicy serve"
    command += f" --workers {','.join(f'http://127.0.0.1:{port}' for port in range(9, 29))} --port 0 --json"
    process = subprocess.Popen(
        ["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    try:
        json.loads(process.stdout.readline())
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert next(line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open files")) == [
            "200",
            "200",
        ]
    finally:
        process.terminate()
        said = process.communicate(timeout=30)[1]
    assert "200 open files (ulimit -n) are enough for 52 clients at a time, fewer than the 1000 that may wait" in said
