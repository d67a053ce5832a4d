"""`diffpolicy worker`: one model on one device, behind OpenAI's Images API."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy.cli import options as opt
from diffpolicy.errors import InputError

if TYPE_CHECKING:
    from diffpolicy.edge.serving.worker.desk import Standing

HELP = "serve one model, or a server's measured times, by OpenAI's Images API"
EXAMPLES = (
    "diffpolicy worker --model tiny --port 8001",
    "diffpolicy worker --model emulate:mlenergy-a100-sd3-medium@2 --time-scale 0.05 --port 8002",
    "diffpolicy worker --model sd3-medium --host 0.0.0.0 --token-env WORKER_TOKEN --port 8003",
)
MODULES = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")
LONGEST_S = 86_400.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help="tiny, sd3-medium, sdxl or sd15 with random weights; a folder or hub id with a diffusers pipeline; "
        "emulate:PROFILE[@SPEED], which takes the times of a server profile, SPEED times as fast, and "
        "makes black pictures; or module:attribute, your own engine",
    )
    parser.add_argument(
        "--port", type=opt.whole(0, 65535), default=8001, help="port to listen on; 0: any free one (default 8001)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--name", help="the model's name for clients (default: that of the model)")
    parser.add_argument("--device", help="cpu or cuda:INDEX (default: cuda:0 if there is one, else cpu)")
    parser.add_argument("--slots", type=opt.whole(1, 64), default=1, help="with emulate: requests at once (default 1)")
    parser.add_argument(
        "--queue", type=opt.whole(0, _limits.TASKS), default=16, help="requests that may wait (default 16)"
    )
    parser.add_argument(
        "--time-scale",
        type=opt.positive,
        default=1.0,
        metavar="F",
        help="with emulate: factor of all times; refused if this machine is too slow for it (default 1)",
    )
    parser.add_argument(
        "--grace",
        type=opt.positive,
        default=30.0,
        metavar="S",
        help="seconds to finish requests after SIGTERM (default 30)",
    )
    keys = parser.add_mutually_exclusive_group()
    keys.add_argument(
        "--token-file", metavar="FILE", help="file with bearer tokens, one a line; read again when it changes"
    )
    keys.add_argument("--token-env", metavar="NAME", help="environment variable that holds the token")
    opt.add_common(parser)


def run(options: argparse.Namespace) -> None:
    """Checks, listens, and serves until a signal comes; loads torch only for a model that needs it."""
    from diffpolicy.edge.hardware.optional import need
    from diffpolicy.edge.serving.worker.engines import make_engine

    check.number(options.grace, "--grace", most=LONGEST_S)
    engine = make_engine(
        options.model,
        scale=options.time_scale,
        slots=options.slots,
        device=options.device,
        seed=options.seed,
        threads=options.threads,
    )
    if options.name is not None:
        engine.model = options.name
    for module in MODULES:
        need(module, "serving")
    from diffpolicy.edge.serving.api.keys_source import KeysSource
    from diffpolicy.edge.serving.api.logs import EventLog, messages_to
    from diffpolicy.edge.serving.api.settings import ApiSettings
    from diffpolicy.edge.serving.open_files import raise_limit
    from diffpolicy.edge.serving.reach import is_loopback, url_of
    from diffpolicy.edge.serving.running import listen
    from diffpolicy.edge.serving.worker.serve_worker import serve_worker

    keys = KeysSource(options.token_file, options.token_env, roles=False)
    if not (is_loopback(options.host) or keys.needed):
        raise InputError(
            f"--host {options.host} lets other machines in, so it needs --token-file or --token-env with a token"
        )
    raise_limit()
    listening = listen(options.host, options.port)
    host, port = listening.getsockname()[:2]
    url = url_of(host, port)
    hosts = None if keys.needed else ("127.0.0.1", "::1", "localhost", host)

    def ready(now: Standing) -> None:
        if options.json:
            opt.print_json({"url": url, "model": engine.model, "boot": now.boot, "slots": now.slots}, options)
        else:
            print(f"{engine.model} is ready at {url}")
        sys.stdout.flush()  # whoever started it waits for this line

    opt.teller(options)(f"loading {engine.model} for {url}")
    with messages_to(EventLog("text", every=False)):
        keys.warn_of_readers()
        asyncio.run(
            serve_worker(
                engine,
                listening,
                queue=options.queue,
                settings=ApiSettings(keys=keys, hosts=hosts),
                grace_s=options.grace,
                ready=ready,
                files=keys.watched(),
            )
        )
