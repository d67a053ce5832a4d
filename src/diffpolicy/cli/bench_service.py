"""`diffpolicy bench-service`: open-loop load on a service of OpenAI's Images API, and what came of it."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING

from diffpolicy import _limits
from diffpolicy.cli import options as opt
from diffpolicy.cli.progress import bar
from diffpolicy.errors import InputError, WorkError

if TYPE_CHECKING:
    from diffpolicy.edge.serving.load.plan import Ask
    from diffpolicy.edge.serving.load.report import LoadReport

HELP = "send requests for images to a service at a given rate, and print its delays"
EXAMPLES = (
    "diffpolicy bench-service http://127.0.0.1:8000 --requests 500 --rate 2.5",
    "diffpolicy bench-service http://127.0.0.1:8000 --requests 100",
    "diffpolicy bench-service http://127.0.0.1:8000 --trace requests.csv --json",
)
LATE = 0.01
"""A sender that is later than this share of the mean delay is told of."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("url", metavar="URL", help="URL of the service")
    parser.add_argument(
        "--requests",
        type=opt.whole(1, _limits.TASKS),
        metavar="N",
        help="number of requests (default 100; of a trace: all)",
    )
    when = parser.add_mutually_exclusive_group()
    when.add_argument(
        "--rate", type=opt.positive, metavar="R", help="requests a second on average, Poisson (default: all at once)"
    )
    when.add_argument(
        "--concurrency",
        type=opt.whole(1, 100_000),
        metavar="N",
        help="instead: requests under way at any time; a closed loop, which flatters a slow service",
    )
    when.add_argument(
        "--trace", metavar="FILE", help="instead: CSV with arrival_s, and width, height, steps, images, model"
    )
    parser.add_argument(
        "--cv", type=opt.positive, metavar="CV", help="with --rate: gamma arrivals with this coefficient of variation"
    )
    parser.add_argument(
        "--mix",
        metavar="FILE",
        help="JSON list of {width, height, num_inference_steps, weight} (default: vLLM-Omni's mixed workload)",
    )
    parser.add_argument("--model", default="", metavar="NAME", help="model to ask for (default: none)")
    parser.add_argument("--within", type=opt.positive, metavar="S", help="goodput counts answers within S seconds")
    parser.add_argument(
        "--timeout",
        type=opt.positive,
        default=3600.0,
        metavar="S",
        help="time-out of a request, seconds (default 3600)",
    )
    parser.add_argument(
        "--time-scale",
        type=opt.positive,
        default=1.0,
        metavar="F",
        help="for emulated workers: arrivals come this much closer together, and delays are divided by it (default 1)",
    )
    parser.add_argument("--api-key-env", metavar="NAME", help="environment variable that holds the API key")
    opt.add_common(parser)


def run(options: argparse.Namespace) -> None:
    """Plans, sends, and prints; loads no torch."""
    from diffpolicy.edge.hardware.adapters.api_key import read_api_key
    from diffpolicy.edge.hardware.optional import need
    from diffpolicy.edge.serving.load.send import send

    need("httpx", "serving")
    key = None if options.api_key_env is None else read_api_key(options.api_key_env)
    asks = _asks(options)
    with bar(options, "asking", len(asks)) as shown:
        report = asyncio.run(
            send(
                options.url,
                asks,
                key=key,
                timeout_s=options.timeout,
                scale=options.time_scale,
                at_once=options.concurrency,
                within_s=options.within,
                done=lambda outcome: shown.advance(1, outcome.error),
            )
        )
    _tell(options, report)
    if not len(report.delay_s):
        raise WorkError(f"no request was answered: {_counted(report)}")


def _asks(options: argparse.Namespace) -> list[Ask]:
    """The load."""
    from dataclasses import replace

    from diffpolicy.edge.serving.load.plan import MIXED, mix_of, plan, read_plan

    if options.cv is not None and options.rate is None:
        raise InputError(f"--cv works only with --rate, got --cv {options.cv:g}")
    if options.trace is not None:
        if options.mix is not None:
            raise InputError("--mix says what is drawn, and --trace what is read; give one of them")
        asks = read_plan(options.trace, options.requests)
    else:
        kinds = MIXED if options.mix is None else mix_of(options.mix)
        asks = plan(options.requests or 100, rate=options.rate, cv=options.cv or 1.0, kinds=kinds, seed=options.seed)
    return [replace(ask, model=ask.model or options.model) for ask in asks]


def _counted(report: LoadReport) -> str:
    """Failures by why."""
    return ", ".join(f"{count} x {why}" for why, count in report.errors.items())


def _tell(options: argparse.Namespace, report: LoadReport) -> None:
    """Prints what came of it."""
    from diffpolicy._text_table import render

    row = report.row()
    say = opt.teller(options)
    if report.errors:
        say(f"failed: {_counted(report)}")
    if len(report.delay_s) and report.late_s > LATE * float(report.delay_s.mean()):
        say(f"this machine sent up to {report.late_s:.3g} s too late; delays count from the intended times")
    if options.json:
        opt.print_json(row, options)
        return
    columns = ["requests", "ok", "mean s", "p50 s", "p95 s", "p99 s", "max s", "goodput 1/s"]
    keys = ["requests", "ok", "mean_s", "p50_s", "p95_s", "p99_s", "max_s", "goodput"]
    shown = ["-" if row[k] is None else str(row[k]) if k in keys[:2] else f"{row[k]:.3f}" for k in keys]
    print(render(f"{options.url.partition('?')[0]}, {row['duration_s']:.1f} s", columns, [shown]))
