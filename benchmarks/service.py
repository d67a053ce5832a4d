"""The service over HTTP beside the simulator on the same arrivals, and what the dispatcher adds to an empty request.

python benchmarks/service.py --out docs/_static/service.csv               # 1,000 requests a rule; about five minutes
python benchmarks/service.py --latency --out docs/_static/service_latency.csv   # a minute; wants two quiet cores

The first plays Poisson arrivals of vLLM-Omni's mixed workload on emulated workers at a twentieth of real time, under
rules that bind on arrival and one that holds, and prints the mean delay beside the simulator's. The second asks an
empty worker 300 times a second: itself, through a bare proxy, and through the dispatcher.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import sys
import time
from pathlib import Path

from diffpolicy.edge.serving.children import Children
from diffpolicy.edge.serving.demo import Contender, Emulated, demonstrate, load_of
from diffpolicy.edge.serving.load import Ask, send
from timing import table

FLEET = tuple(Emulated("mlenergy-a100-sd3-medium", speed) for speed in (1.2, 0.6, 0.6))
RULES = (
    Contender("least finish", "least-finish"),
    Contender("least outstanding cost", "least-cost"),
    Contender("cost-minus-age, held", "least-finish", "free", "cost-minus-age:age=0.5"),
    Contender("shortest-first, held", "least-finish", "free", "shortest-first:cap=6"),
)
WARM = 60

EMPTY = """
import json, sys
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


def fidelity(options: argparse.Namespace) -> list[dict[str, object]]:
    """Means over HTTP beside the simulator's."""
    rows: list[dict[str, object]] = []
    asks = load_of(options.requests, options.load, warm=WARM, seed=options.seed, fleet=FLEET)
    made = asyncio.run(
        demonstrate(
            RULES,
            asks,
            scale=options.time_scale,
            warm=WARM,
            seed=options.seed,
            fleet=FLEET,
            told=lambda text: print(text, file=sys.stderr, flush=True),
        )
    )
    for row in made:
        of = row.report.row()
        rows.append(
            {
                "rule": row.label,
                "http_mean_s": of["mean_s"],
                "simulator_mean_s": row.simulated_s,
                "ratio": of["mean_s"] / row.simulated_s if of["mean_s"] else None,  # type: ignore[operator]
                "http_p99_s": of["p99_s"],
                "requests": of["requests"],
                "failed": of["failed"],
                "time_scale": options.time_scale,
                "load": options.load,
                "seed": options.seed,
            }
        )
    return rows


async def _uvicorn(
    children: list[asyncio.subprocess.Process], folder: Path, name: str, text: str, port: int, **env: str
) -> str:
    """Starts an application of a few lines. Returns: its address."""
    import os

    (folder / f"{name}.py").write_text(text)
    children.append(
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "uvicorn", f"{name}:app", "--port", str(port), "--log-level", "error"),
            cwd=folder,
            env={**os.environ, **env},
        )
    )
    url = f"http://127.0.0.1:{port}"
    for _ in range(200):
        await asyncio.sleep(0.1)
        if (await send(url, [Ask(0.0)], timeout_s=5.0)).row()["ok"]:
            return url
    raise SystemExit(f"{name} did not start")


async def latency(options: argparse.Namespace, folder: Path) -> list[dict[str, object]]:
    """Delays of empty requests."""
    rows, children = [], []
    asks = [Ask(k / options.rate) for k in range(int(options.rate * options.seconds))]
    async with Children() as ours:
        try:
            worker = await _uvicorn(children, folder, "empty_worker", EMPTY, options.port)
            proxy = await _uvicorn(children, folder, "bare_proxy", PROXY, options.port + 1, TARGET=worker)
            (folder / "workers.json").write_text(f'{{"workers": [{{"url": "{worker}", "slots": 64}}]}}')
            urls = {"the worker itself": worker, "bare proxy": proxy}
            for name, binding in (("dispatcher, on arrival", "arrival"), ("dispatcher, held", "free")):
                _, ready = await ours.start(
                    *("serve", "--workers", str(folder / "workers.json"), "--port", "0", "--binding", binding)
                )
                urls[name] = ready["url"]
            for round_ in range(options.rounds + 1):
                for name, url in urls.items():
                    report = await send(url, asks)
                    of = report.row()
                    if round_:  # the first warms up
                        rows.append(
                            {"through": name, "round": round_, "rate": options.rate, **of, "late_s": report.late_s}
                        )
        finally:
            for child in children:
                child.terminate()
                await child.wait()
    return rows


def main() -> None:
    """Reads options, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", action="store_true", help="what the dispatcher adds, instead")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--load", type=float, default=0.8)
    parser.add_argument("--time-scale", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=300.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=18_700)
    parser.add_argument("--out", type=Path, help="CSV")
    options = parser.parse_args()
    begun = time.perf_counter()
    if options.latency:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            rows = asyncio.run(latency(options, Path(folder)))
        shown = [
            [r["through"], *(f"{1e3 * r[k]:.2f}" for k in ("p50_s", "p95_s", "p99_s", "late_s")), str(r["failed"])]
            for r in rows
        ]  # type: ignore[operator]
        print(table(["through", "p50 ms", "p95 ms", "p99 ms", "sent late ms", "failed"], shown))
    else:
        rows = fidelity(options)
        shown = [
            [
                r["rule"],
                f"{r['http_mean_s']:.3f}",
                f"{r['simulator_mean_s']:.3f}",
                f"{r['ratio']:.3f}",
                str(r["failed"]),
            ]
            for r in rows
        ]
        print(table(["rule", "HTTP mean s", "simulator mean s", "ratio", "failed"], shown))
    print(f"{time.perf_counter() - begun:.0f} s")
    if options.out:
        with options.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
