"""`diffpolicy advise`: would another rule have been better, by a service's log?"""

from __future__ import annotations

import argparse

from diffpolicy.cli import options as opt

HELP = "say from a service's log whether another rule would have been better"
EXAMPLES = (
    "diffpolicy advise requests.csv",
    "diffpolicy advise requests.csv --json",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "log",
        metavar="LOG",
        help="CSV with arrival_s, server, end_s in seconds, start_s where it is known (it tells how many requests a "
        "server works on at once), and cost, or steps and where known model, width, height, images",
    )
    opt.add_common(parser)


def run(options: argparse.Namespace) -> None:
    """Reads, fits and replays; loads no torch."""
    from diffpolicy.edge.dispatch.advice import advise
    from diffpolicy.edge.dispatch.request_log import RequestLog

    result = advise(RequestLog.read(options.log), seed=options.seed)
    if options.json:
        opt.print_json(result.to_dict(), options)
    else:
        print(result.table())
