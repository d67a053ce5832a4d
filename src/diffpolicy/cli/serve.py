"""`diffpolicy serve`: a policy in front of servers that make images."""

from __future__ import annotations

import argparse
import gc
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy.cli import options as opt
from diffpolicy.errors import InputError

if TYPE_CHECKING:
    from diffpolicy.edge.serving.api.logs import EventLog
    from diffpolicy.edge.serving.api.recorder import RequestRecorder
    from diffpolicy.edge.serving.limits import Limits
    from diffpolicy.edge.serving.room import Room
    from diffpolicy.edge.serving.service import Service
    from diffpolicy.edge.serving.workers_source import WorkersSource

HELP = "put a rule or policy in front of servers that make images, behind OpenAI's Images API"
EXAMPLES = (
    "diffpolicy serve --workers http://127.0.0.1:8001,http://127.0.0.1:8002",
    "diffpolicy serve --workers workers.json --binding free --log requests.csv",
    "diffpolicy serve --workers workers.json --binding free --share 0.1 --beside least-outstanding",
)
MODULES = ("fastapi", "uvicorn", "prometheus_client", "python_multipart", "httpx")
LONGEST_S = 86_400.0
LEARNED_S = 0.2
"""Within which a learned policy must decide: some milliseconds on a machine that does nothing else."""
BESIDE = "least-outstanding"
"""What most routers of today do."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "--workers",
        required=True,
        metavar="FILE|URL,...",
        help="addresses of OpenAI-compatible servers, or a JSON file that lists them; the file is read again "
        "when it changes, and on SIGHUP",
    )
    decides = parser.add_argument_group("choosing a server")
    decides.add_argument(
        "--policy",
        default="least-finish",
        metavar="RULE|POLICY",
        help="least-finish (default), least-cost, least-outstanding, least-work, power-of-two, round-robin or "
        "random; price, pretrained:live or a policy's folder, which need torch; a .onnx file of export, "
        "which does not; or module:attribute, a function of a Moment or a Dispatcher",
    )
    decides.add_argument(
        "--binding",
        choices=("arrival", "free"),
        default="arrival",
        help="bind a request when it arrives (default), or when a server is free",
    )
    decides.add_argument(
        "--order",
        metavar="ORDER",
        help="with --binding free: which waiting request goes first, as in evaluate (default shortest-first:cap=6)",
    )
    decides.add_argument(
        "--lead",
        type=opt.positive,
        metavar="S",
        help="with --binding free: send the next request this many seconds before the current one should end, "
        "which hides the time of the call (default: when it has ended)",
    )
    decides.add_argument(
        "--beside",
        metavar="RULE",
        help="with --share and --shadow: the rule that you had before, bound on arrival (default least-outstanding)",
    )
    decides.add_argument(
        "--split",
        action="store_true",
        help="send a request's images one by one, ordered by all that is left of the request; only where no "
        "worker makes several at once",
    )
    tried = decides.add_mutually_exclusive_group()
    tried.add_argument(
        "--share",
        type=opt.positive,
        metavar="P",
        help="let the policy decide on this share of the requests, and the rule --beside on the rest, until the "
        "policy proves worse",
    )
    tried.add_argument("--shadow", action="store_true", help="ask and record the policy, but follow the rule --beside")
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--queue",
        type=opt.whole(1, _limits.TASKS),
        default=1000,
        metavar="N",
        help="requests that may wait (default 1000)",
    )
    limits.add_argument(
        "--deadline", type=opt.positive, metavar="S", help="longest time that a request may take, seconds"
    )
    limits.add_argument(
        "--grace",
        type=opt.positive,
        default=30.0,
        metavar="S",
        help="seconds to finish requests after SIGTERM (default 30)",
    )
    reached = parser.add_argument_group("network")
    reached.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    reached.add_argument(
        "--port", type=opt.whole(0, 65535), default=8000, help="port to listen on; 0: any free one (default 8000)"
    )
    keys = reached.add_mutually_exclusive_group()
    keys.add_argument(
        "--token-file",
        metavar="FILE",
        help="file of API keys, one a line, NAME=KEY or a key alone; read again like the workers file",
    )
    keys.add_argument("--token-env", metavar="NAME", help="environment variable that holds the keys")
    told = parser.add_argument_group("logging")
    told.add_argument("--log", metavar="FILE", help="CSV to which a line is added for each request; advise reads it")
    told.add_argument(
        "--log-format",
        choices=("text", "json"),
        default="text",
        help="format of stderr: lines about what goes wrong and about workers that change (default), with -v about "
        "everything; or a JSON object for each event",
    )
    told.add_argument("--spans", action="store_true", help="an OpenTelemetry span for each request")
    opt.add_common(parser)


def run(options: argparse.Namespace) -> None:
    """Checks, listens, and serves until a signal comes; loads no torch for a rule."""
    from diffpolicy.edge.hardware.optional import need

    if options.share is not None and options.share >= 1:
        raise InputError(f"--share must be below 1, got {options.share:g}")
    if options.beside is not None and options.share is None and not options.shadow:
        raise InputError(f"--beside works only with --share or --shadow, got --beside {options.beside}")
    if options.lead is not None and options.binding != "free":
        raise InputError(f"--lead works only with --binding free, got --lead {options.lead:g}")
    for name in ("grace", "deadline", "lead"):
        if getattr(options, name) is not None:
            check.number(getattr(options, name), f"--{name}", most=LONGEST_S)
    for module in MODULES:
        need(module, "serving")
    _serve(options)


def _serve(options: argparse.Namespace) -> None:
    """What needs the extra."""
    from diffpolicy.edge.serving.api.app import make_app
    from diffpolicy.edge.serving.api.keys_source import KeysSource
    from diffpolicy.edge.serving.api.logs import EventLog, messages_to
    from diffpolicy.edge.serving.api.serving_loop import run as run_loop
    from diffpolicy.edge.serving.api.serving_loop import serve_policy
    from diffpolicy.edge.serving.api.settings import ApiSettings
    from diffpolicy.edge.serving.limits import Limits
    from diffpolicy.edge.serving.open_files import raise_limit, warn_of_files
    from diffpolicy.edge.serving.reach import is_loopback, url_of
    from diffpolicy.edge.serving.room import Room
    from diffpolicy.edge.serving.running import listen
    from diffpolicy.edge.serving.workers_source import WorkersSource

    keys = KeysSource(options.token_file, options.token_env)
    if not (keys.needed or is_loopback(options.host)):
        raise InputError(
            f"--host {options.host} lets other machines in, so it needs --token-file or --token-env with an API key"
        )
    raise_limit()
    limits = Limits(queue=options.queue)
    source = WorkersSource(options.workers)
    room = Room(ApiSettings().held_bytes)
    service, told = _service(options, source, limits, room)
    lines = EventLog(options.log_format, every=options.verbose or options.log_format == "json")
    recorder = _listen_in(options, service, lines)
    listening = listen(options.host, options.port)
    url = url_of(*listening.getsockname()[:2])
    settings = ApiSettings(
        limits=limits,
        keys=keys,
        hosts=None if keys.needed else ("127.0.0.1", "::1", "localhost", options.host),
        deadline_s=options.deadline or float("inf"),
        about=told,
    )

    def ready() -> None:
        gc.collect()
        gc.freeze()  # a search for garbage among all modules would keep requests waiting for a tenth of a second
        names = [worker.name for worker in source.workers]
        if options.json:
            opt.print_json({"url": url, "policy": told, "workers": names}, options)
        else:
            some = "1 worker" if len(names) == 1 else f"{len(names)} workers"
            print(f"{told}, in front of {some}, at {url}", flush=True)

    with messages_to(lines):
        try:
            keys.warn_of_readers()
            warn_of_files(limits.queue, len(source.workers))
            run_loop(
                serve_policy(
                    service,
                    make_app(service, settings, room),
                    listening,
                    source,
                    grace_s=options.grace,
                    ready=ready,
                    files=keys.watched(),
                    again=() if recorder is None else (recorder.reopen,),
                )
            )
        finally:
            if recorder is not None:
                recorder.close()


def _service(options: argparse.Namespace, source: WorkersSource, limits: Limits, room: Room) -> tuple[Service, str]:
    """The service, and its policy in words."""
    from diffpolicy.edge.serving.rules import make_policy
    from diffpolicy.edge.serving.service import Service
    from diffpolicy.edge.serving.settings import Settings

    policy = make_policy(
        options.policy,
        binding=options.binding,
        order=options.order,
        seed=options.seed,
        servers=len(source.workers),
    )
    if policy.learned:
        opt.set_threads(options.threads)
    decide_s = LEARNED_S if policy.learned else Settings().decide_s
    settings = Settings(
        limits=limits, seed=options.seed, decide_s=decide_s, split=options.split, lead_s=options.lead or 0.0
    )
    told = str(policy)
    others: dict[str, Any] = {}
    if options.share is not None or options.shadow:
        beside = make_policy(options.beside or BESIDE, seed=options.seed, servers=len(source.workers))
        others = {"otherwise": beside.dispatcher, "name_otherwise": beside.name, "shadow": options.shadow}
        if options.shadow:
            told = f"{beside}, in whose shadow {policy}"
        else:
            settings = replace(settings, share=options.share)
            told = f"{policy} for {100 * options.share:g}% of the requests, {beside} for the rest"
    connects = partial(source.connect, limits=limits, room=room)
    service = Service(source.workers, connects, policy.dispatcher, policy.name, settings, room=room, **others)
    return service, told


def _listen_in(options: argparse.Namespace, service: Service, lines: EventLog) -> RequestRecorder | None:
    """Adds the log, the lines on stderr and spans; returns the log."""
    from diffpolicy.edge.serving.api.recorder import RequestRecorder
    from diffpolicy.edge.serving.api.spans import Spans

    if not options.quiet:
        service.listeners.append(lines)
    if options.spans:
        service.listeners.append(Spans())
    if options.log is None:
        return None
    recorder = RequestRecorder(options.log)
    service.listeners.append(recorder)
    return recorder
