"""`diffpolicy advise`: would another rule have been better, by a service's log?"""

from __future__ import annotations

import argparse

from diffpolicy.cli import options as opt
from diffpolicy.edge.workload.table_values import UNITS

HELP = "tell from a service's log whether another rule would have been better"
EXAMPLES = (
    "diffpolicy advise requests.csv",
    "diffpolicy advise requests.csv --columns arrival_s=created_at,end_s=done_at,server=gpu --json",
    "diffpolicy advise requests.csv --fleet workers.json --policies price",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "log",
        metavar="LOG",
        help="CSV with arrival_s, server and end_s, in seconds or as dates (or arrival_ms, ...); start_s if "
        "known, which shows how many requests a server works on at once; and cost, or steps and, if known, "
        "model, width, height and images",
    )
    parser.add_argument(
        "--columns",
        type=opt.columns,
        default={},
        metavar="NAME=COLUMN,...",
        help="names of these columns in the file: arrival_s=created_at,server=gpu,...",
    )
    parser.add_argument("--unit", choices=UNITS[:-1], default="s", help="unit of times that are numbers (default s)")
    parser.add_argument(
        "--fleet",
        metavar="FILE",
        help="give advice for other servers: a scenario, or a service's workers file (JSON with names and, if "
        "known, slots and speeds)",
    )
    parser.add_argument(
        "--policies",
        type=opt.names,
        default=[],
        metavar="POLICY,POLICY",
        help="also replay these policies, such as price,pretrained:live; each of their decisions takes milliseconds",
    )
    opt.add_common(parser)


def run(options: argparse.Namespace) -> None:
    """Reads, fits and replays; loads torch for policies alone."""
    from diffpolicy.edge.dispatch.advice import advise
    from diffpolicy.edge.dispatch.advised_fleet import AdvisedFleet
    from diffpolicy.edge.dispatch.request_log import RequestLog

    if options.policies:
        from diffpolicy.edge.resolve import check_policy

        for name in options.policies:
            check_policy(name)
        opt.set_threads(options.threads)
    fleet = None if options.fleet is None else AdvisedFleet.read(options.fleet)
    log = RequestLog.read(options.log, columns=options.columns, unit=options.unit)
    result = advise(log, fleet=fleet, policies=options.policies, seed=options.seed)
    if options.json:
        opt.print_json(result.to_dict(), options)
    else:
        print(result.table())
