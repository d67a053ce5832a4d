"""`diffpolicy demo`: a rule in front of three unlike workers, beside others, over HTTP on this machine."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING

from diffpolicy.cli import options as opt
from diffpolicy.cli.progress import bar

if TYPE_CHECKING:
    from diffpolicy.edge.serving.demo import Row

HELP = "serve a load on three emulated GPU servers, by a rule and by what other routers do"
EXAMPLES = (
    "diffpolicy demo",
    "diffpolicy demo --policy least-finish --requests 300 --load 0.9",
    "diffpolicy demo --binding free --order cost-minus-age:age=0.5",
)
WARM = 20
MODULES = ("fastapi", "uvicorn", "httpx", "prometheus_client", "python_multipart")


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "--policy", default="least-finish", metavar="RULE", help="rule, as in serve (default least-finish)"
    )
    parser.add_argument(
        "--binding",
        choices=("arrival", "free"),
        default="free",
        help="bind a request when it arrives, or when a server is free (default)",
    )
    parser.add_argument(
        "--order",
        metavar="ORDER",
        help="with --binding free: which waiting request goes first (default cost-minus-age:age=0.5)",
    )
    parser.add_argument(
        "--requests", type=opt.whole(10, 100_000), default=60, metavar="N", help="requests that count (default 60)"
    )
    parser.add_argument(
        "--load",
        type=opt.positive,
        default=0.85,
        metavar="L",
        help="load, as a share of what the servers can do (default 0.85)",
    )
    parser.add_argument(
        "--time-scale", type=opt.positive, default=0.2, metavar="F", help="factor of all times (default 0.2)"
    )
    opt.add_common(parser)


def run(options: argparse.Namespace) -> None:
    """Starts the processes, plays the load on each rule, and prints a table; loads no torch."""
    from diffpolicy.edge.hardware.optional import need

    for module in MODULES:
        need(module, "serving")
    from diffpolicy.edge.serving.demo import OTHERS, Contender, demonstrate, load_of
    from diffpolicy.edge.serving.rules import make_policy

    order = options.order or ("cost-minus-age:age=0.5" if options.binding == "free" else None)
    named = make_policy(options.policy, binding=options.binding, order=order, seed=options.seed)
    label = f"{named.name}, held" if named.dispatcher.holds else named.name
    chosen = Contender(label, options.policy, options.binding, order)
    contenders = [chosen, *(x for x in OTHERS if (x.policy, x.binding) != (chosen.policy, chosen.binding))]
    asks = load_of(options.requests, options.load, warm=WARM, seed=options.seed)
    with bar(options, "demo", len(asks) * len(contenders), spoken=True) as shown:
        rows = asyncio.run(
            demonstrate(
                contenders,
                asks,
                scale=options.time_scale,
                warm=WARM,
                seed=options.seed,
                told=shown.tell,
                done=lambda contender, outcome: shown.advance(1, contender.label),
            )
        )
    _print(options, rows)


def _print(options: argparse.Namespace, rows: list[Row]) -> None:
    """The table, or JSON."""
    from diffpolicy._text_table import render

    if options.json:
        rules = {row.label: {**row.report.row(), "simulated_mean_s": row.simulated_s} for row in rows}
        opt.print_json({"time_scale": options.time_scale, "load": options.load, "rules": rules}, options)
        return
    found = [row.report.row() for row in rows]
    best = found[0]["mean_s"]
    lines = []
    for row, of in zip(rows, found, strict=True):
        mean = of["mean_s"]
        against = "-" if mean is None or not best else f"{mean / best:.2f}"
        figures = [_seconds(of[k]) for k in ("mean_s", "p95_s", "p99_s")]
        lines.append([row.label, *figures, against, _seconds(row.simulated_s), str(of["failed"])])
    print(
        render(
            f"{options.requests} requests on three emulated servers at load {options.load:g}, seconds of unscaled time",
            ["rule", "mean s", "p95 s", "p99 s", "of the first", "simulator s", "failed"],
            lines,
        )
    )


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
