"""`diffpolicy calibrate`: measured servers as a scenario."""

from __future__ import annotations

import argparse
import json

from diffpolicy import _files, _limits
from diffpolicy.cli import options as opt

HELP = "make a scenario of measured servers"
EXAMPLES = (
    "diffpolicy calibrate tiny-cpu tiny-cpu --out two.json --load 0.8 --accept-poor-fit",
    "diffpolicy calibrate a100.json t4.json --mix 512:20,1024:30 --out fleet.json",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "profiles",
        nargs="+",
        metavar="PROFILE",
        help="profiles of measured servers, one or more; repeat one for several equal servers",
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="the scenario (JSON) to write; required")
    parser.add_argument(
        "--load", type=opt.positive, default=0.8, metavar="L", help="work offered / capacity (default 0.8)"
    )
    parser.add_argument(
        "--mix", metavar="WxH:N,W:N", help="sizes and steps of the requests (default: those that all profiles measured)"
    )
    parser.add_argument(
        "--slots",
        type=opt.whole(1, _limits.SLOTS),
        default=200,
        metavar="T",
        help="requests of an episode (default 200)",
    )
    parser.add_argument(
        "--rate", type=opt.positive, default=1000.0, metavar="R", help="Mbit/s of each link (default 1000)"
    )
    parser.add_argument("--batching", action="store_true", help="waiting requests that are alike share a batch")
    parser.add_argument("--cold", action="store_true", help="each server must load its model first")
    parser.add_argument("--mtbf", type=opt.positive, metavar="S", help="mean time between failures of each server")
    parser.add_argument("--mttr", type=opt.positive, metavar="S", help="mean time to repair")
    parser.add_argument("--accept-poor-fit", action="store_true", help="accept profiles with R2 under 0.9")
    opt.add_common(parser)


def run(options: argparse.Namespace) -> None:
    """Reads, checks, writes; needs no torch."""
    from diffpolicy._text_table import render
    from diffpolicy.edge.hardware.calibration import calibrate, parse_mix, seconds
    from diffpolicy.edge.hardware.schema.server_profile import ServerProfile
    from diffpolicy.edge.scenario.availability import Availability
    from diffpolicy.edge.workload.requests import RequestWorkload
    from diffpolicy.errors import InputError

    if (options.mtbf is None) != (options.mttr is None):
        raise InputError("--mtbf and --mttr must be given together, got one of them")
    outages = None if options.mtbf is None else Availability(mtbf_s=options.mtbf, mttr_s=options.mttr)
    _files.check_writable(options.out)
    profiles = [ServerProfile.load(source) for source in options.profiles]
    scenario = calibrate(
        profiles,
        load=options.load,
        slots=options.slots,
        rate_mbit_per_s=options.rate,
        mix=None if options.mix is None else parse_mix(options.mix),
        accept_poor_fit=options.accept_poor_fit,
        joins=options.batching,
        cold=options.cold,
        availability=outages,
    )
    _files.write_text(options.out, json.dumps(scenario.to_dict(), indent=1) + "\n")
    workload = scenario.workload
    assert isinstance(workload, RequestWorkload)
    if options.json:
        opt.print_json(
            {
                "out": options.out,
                "load": scenario.load_factor(),
                "rate_per_s": workload.rate_per_s,
                "capacity": [server.capacity_gcycles_per_s for server in scenario.servers],
            },
            options,
        )
        return
    rows = []
    for server in scenario.servers:
        assert server.service is not None
        times = seconds(server.service, workload.mix)
        rows.append(
            [
                server.name or "",
                f"{server.capacity_gcycles_per_s:.3f}",
                f"{times.min():.3f}",
                f"{times.max():.3f}",
                f"{server.service.switch_s:.2f}",
                f"{server.service.scatter:.3f}",
            ]
        )
    title = (
        f"{options.out}: {len(rows)} servers, {len(workload.mix)} kinds of request, "
        f"{workload.rate_per_s:.3g} requests/s, load {scenario.load_factor():.2f}"
    )
    print(render(title, ["server", "speed", "shortest s", "longest s", "switch s", "scatter"], rows))
