"""What the dispatcher adds to a request that costs its worker nothing, beside a bare proxy.

python benchmarks/service_latency.py     # a minute; wants two quiet cores

An empty worker is asked 300 times a second: itself, through a bare proxy (FastAPI and httpx on uvicorn), and through
the dispatcher on arrival and held, by turns. Added is a path's quantile minus the worker's own of the same round.
Milliseconds of processor time of each process are what a busy machine changes least; `others` are cores that other
processes took meanwhile, without which no quantile means anything. The worker has 64 slots: with one, a round trip of
3 ms would hold at most 333 requests a second, whatever the dispatcher costs.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import numpy as np

from diffpolicy.edge.serving.children import Children
from timing import table

EMPTY = """
import json
BODY = json.dumps({"created": 0, "data": [{"b64_json": "aGk="}]}).encode()
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})
"""
PROXY = """
import os, httpx
from fastapi import FastAPI, Request, Response
LIMITS = httpx.Limits(max_connections=None)
client = httpx.AsyncClient(base_url=os.environ["TARGET"], timeout=None, trust_env=False, limits=LIMITS)
app = FastAPI()
@app.post("/v1/images/generations")
async def forward(request: Request):
    kind = {"content-type": "application/json"}
    answer = await client.post("/v1/images/generations", content=await request.body(), headers=kind)
    return Response(answer.content, answer.status_code, media_type="application/json")
"""
ATTENDED = "from diffpolicy.cli.attended import attend; attend(); import uvicorn; uvicorn.main()"
"""uvicorn, which ends when this process has gone, however it went."""
ASKED = json.dumps({"prompt": "a lighthouse", "size": "512x512", "num_inference_steps": 20}).encode()
TICKS = os.sysconf("SC_CLK_TCK")


class Asking(asyncio.Protocol):
    """A connection that asks for one image at a time; far lighter than any HTTP client. Args: free: those that wait."""

    def __init__(self, free: list[Asking]) -> None:
        self.free, self.got = free, b""
        self.answered: asyncio.Future[bool] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def ask(self, text: bytes) -> asyncio.Future[bool]:
        self.answered = asyncio.get_running_loop().create_future()
        self.transport.write(text)
        return self.answered

    def data_received(self, data: bytes) -> None:
        self.got += data
        head, end, body = self.got.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]):
            self._end(head.startswith(b"HTTP/1.1 200"))
            self.free.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(False)

    def _end(self, well: bool) -> None:
        self.got, answered, self.answered = b"", self.answered, None
        if answered is not None and not answered.done():
            answered.set_result(well)


async def asked(url: str, rate: float, count: int) -> dict[str, float]:
    """Delays of requests at a rate, from when each should have been sent, seconds."""
    host, port = url.removeprefix("http://").split(":")
    head = f"POST /v1/images/generations HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    text = f"{head}content-length: {len(ASKED)}\r\n\r\n".encode() + ASKED
    loop, free, delays, late, failed = asyncio.get_running_loop(), [], [], [], 0

    async def one(due: float) -> None:
        nonlocal failed
        free_now: list[Asking] = free
        at = free_now.pop() if free_now else (await loop.create_connection(lambda: Asking(free), host, int(port)))[1]
        failed += not await at.ask(text)
        delays.append(time.perf_counter() - due)

    begun, tasks = time.perf_counter() + 0.05, []
    for k in range(count):
        due = begun + k / rate
        await asyncio.sleep(max(due - time.perf_counter(), 0.0))
        late.append(time.perf_counter() - due)
        tasks.append(loop.create_task(one(due)))
    await asyncio.gather(*tasks)
    for at in free:
        at.transport.close()
    p50, p99 = np.quantile(delays, [0.5, 0.99])
    return {"p50_ms": 1e3 * p50, "p99_ms": 1e3 * p99, "late_p99_ms": 1e3 * np.quantile(late, 0.99), "failed": failed}


def taken_s(pid: int | None) -> float:
    """Processor seconds of a process so far; None: of all on this machine."""
    if pid is None:
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        return sum(int(x) for place, x in enumerate(words) if place not in (3, 4)) / TICKS
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS


async def play(options: argparse.Namespace, paths: Mapping[str, tuple[str, int]]) -> list[dict[str, object]]:
    """All paths by turns. Args: paths: address and process of each, the worker's own first."""
    rows: list[dict[str, object]] = []
    count = int(options.rate * options.seconds)
    pids = {pid for _, pid in paths.values()}
    for round_ in range(options.rounds + 1):
        own: dict[str, float] = {}
        for name, (url, pid) in paths.items():
            begun, all_s, ours, generator = time.perf_counter(), taken_s(None), taken_s(pid), time.process_time()
            known_s = sum(map(taken_s, pids)) + generator
            of = await asked(url, options.rate, count)
            seconds, spent = time.perf_counter() - begun, time.process_time() - generator
            known_s = sum(map(taken_s, pids)) + time.process_time() - known_s
            own = own or of
            row = {
                **of,
                "added_p50_ms": of["p50_ms"] - own["p50_ms"],
                "added_p99_ms": of["p99_ms"] - own["p99_ms"],
                "cpu_ms": 1e3 * (taken_s(pid) - ours) / count,
                "generator_cpu_ms": 1e3 * spent / count,
                "others": (taken_s(None) - all_s - known_s) / seconds,
            }
            if round_:  # the first warms up
                rows.append({"through": name, "round": round_, "rate": options.rate, **row})
    return rows


async def latency(options: argparse.Namespace, folder: Path) -> list[dict[str, object]]:
    """Starts all processes and plays."""
    started: list[asyncio.subprocess.Process] = []

    async def app(name: str, text: str, port: int, **env: str) -> tuple[str, int]:
        (folder / f"{name}.py").write_text(text)
        command = [sys.executable, "-c", ATTENDED, f"{name}:app", "--port", str(port), "--log-level", "error"]
        process = await asyncio.create_subprocess_exec(
            # a session of its own, as `Children` gives the dispatcher: sessions share the processor among them
            *command,
            stdin=asyncio.subprocess.PIPE,
            cwd=folder,
            env={**os.environ, **env},
            start_new_session=True,
        )
        started.append(process)
        url = f"http://127.0.0.1:{port}"
        for _ in range(300):
            await asyncio.sleep(0.1)
            try:
                if not (await asked(url, 100.0, 1))["failed"]:
                    return url, process.pid
            except OSError:
                pass
        raise SystemExit(f"{name} did not start")

    async with Children() as ours:
        try:
            paths = {"the worker itself": await app("empty_worker", EMPTY, options.port)}
            worker = paths["the worker itself"][0]
            paths["bare proxy"] = await app("bare_proxy", PROXY, options.port + 1, TARGET=worker)
            (folder / "workers.json").write_text(json.dumps({"workers": [{"url": worker, "slots": 64}]}))
            for name, binding in (("dispatcher, on arrival", "arrival"), ("dispatcher, held", "free")):
                serve = ("serve", "--workers", str(folder / "workers.json"), "--port", "0", "--binding", binding)
                process, ready = await ours.start(*serve)
                paths[name] = ready["url"], process.pid
            return await play(options, paths)
        finally:
            for process in started:
                process.terminate()
                await process.wait()


def main() -> None:
    """Reads options, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=300.0)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a turn")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--port", type=int, default=18_700)
    parser.add_argument("--out", type=Path, help="CSV")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(latency(options, Path(folder)))
    columns = [
        "p50_ms",
        "p99_ms",
        "added_p50_ms",
        "added_p99_ms",
        "cpu_ms",
        "generator_cpu_ms",
        "late_p99_ms",
        "others",
    ]
    names = list(dict.fromkeys(str(row["through"]) for row in rows))
    shown = []
    for name in names:
        of = [row for row in rows if row["through"] == name]
        middle = [f"{median(float(row[key]) for row in of):.2f}" for key in columns]  # type: ignore[arg-type]
        shown.append([name, *middle, str(sum(int(row["failed"]) for row in of))])  # type: ignore[call-overload]
    print(table([f"median of {options.rounds} rounds", *(x.replace("_", " ") for x in columns), "failed"], shown))
    others = max(float(row["others"]) for row in rows)  # type: ignore[arg-type]
    if others > 0.2:
        print(f"other processes took up to {others:.1f} cores: the quantiles are theirs too, cpu ms holds all the same")
    if options.out:
        with options.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
