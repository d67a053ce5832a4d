"""`diffpolicy tasks`: a recorded trace as a task file, thinned, cut and brought to a load."""

from __future__ import annotations

import argparse
import math
from typing import Any

from diffpolicy import _files, _limits
from diffpolicy.cli import options as opt
from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.edge.workload.traces.trace import Trace
from diffpolicy.errors import InputError

HELP = "turn a recorded trace into a task file"
EXAMPLES = (
    "diffpolicy tasks azure-sample --request-steps 20 --load 0.8 --out azure.tasks.csv",
    "diffpolicy tasks log.csv --trace-format csv --columns arrival_s=at,steps=n --out log.tasks.csv",
)
FORMATS = ("alibaba", "azure", "vllm-omni", "csv")


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("trace", metavar="TRACE", help="the recorded file; azure-sample is bundled")
    of_trace: dict[str, Any] = {"dest": "trace_format", "choices": FORMATS}
    parser.add_argument("--trace-format", **of_trace, help="format of TRACE (for azure-sample: azure)")
    parser.add_argument("--format", action=opt.OldSpelling, instead="--trace-format", **of_trace)
    parser.add_argument("--out", required=True, metavar="FILE", help="the task file (CSV) to write")
    parser.add_argument(
        "--columns",
        type=opt.columns,
        metavar="NAME=COLUMN,...",
        help="with csv: names of the columns, arrival_s=at,model=net,steps=n,...",
    )
    parser.add_argument(
        "--unit", choices=("s", "ms", "us", "ns", "datetime"), help="with csv: unit of arrivals (default s)"
    )
    parser.add_argument(
        "--max-broken",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="share of rows that may be unreadable (default 0.01)",
    )
    parser.add_argument(
        "--start", type=float, default=0.0, metavar="S", help="leave out requests that arrive before S, in seconds"
    )
    parser.add_argument(
        "--end",
        type=float,
        default=math.inf,
        metavar="S",
        help="leave out requests that arrive at S or later, in seconds",
    )
    parser.add_argument("--keep", type=float, metavar="SHARE", help="keep each request with this probability")
    parser.add_argument(
        "--scenario",
        default="lad-ts",
        metavar="SCENARIO",
        help="scenario that gives stations, capacity and, for azure, a mix of requests (default lad-ts)",
    )
    parser.add_argument("--load", type=float, help="stretch time so that work offered / capacity is this")
    of_requests: dict[str, Any] = {"dest": "request_steps", "type": opt.whole(1, _limits.STEPS)}
    parser.add_argument(
        "--request-steps",
        **of_requests,
        metavar="N",
        help="denoising steps of every request, if the trace does not say",
    )
    parser.add_argument("--steps", action=opt.OldSpelling, instead="--request-steps", **of_requests)
    parser.add_argument(
        "--gcycles-per-step", type=float, default=1.0, metavar="X", help="work of a step of one image (default 1)"
    )
    parser.add_argument(
        "--input-mbit",
        type=float,
        default=0.01,
        metavar="X",
        help="what a request transfers to the server (default 0.01)",
    )
    parser.add_argument(
        "--result-mbit", type=float, default=12.0, metavar="X", help="what an image transfers back (default 12)"
    )
    opt.add_common(parser)


def run(options: argparse.Namespace) -> None:
    """Reads, cuts, thins, stretches and writes, in this order."""
    scenario = Scenario.load(options.scenario)
    _files.check_writable(options.out)
    read = _read(options)
    trace = read
    if options.start != 0.0 or options.end != math.inf:
        trace = trace.window(options.start, options.end)
    if options.keep is not None:
        trace = trace.thin(options.keep, options.seed)
    trace = _with_requests(trace, scenario, options)
    capacity = scenario.capacity_gcycles_per_s
    if options.load is not None:
        trace = trace.to_load(options.load, capacity, options.gcycles_per_step)
    trace.to_tasks(
        options.out,
        len(scenario.stations),
        options.gcycles_per_step,
        input_mbit=options.input_mbit,
        result_mbit=options.result_mbit,
        seed=options.seed,
    )
    spans = trace.arrival_s[-1] > trace.arrival_s[0]
    summary: dict[str, Any] = {
        "out": str(options.out),
        "scenario": scenario.name,
        "stations": len(scenario.stations),
        "read": len(read),
        "broken": read.broken.count,
        "first_broken": list(read.broken.first),
        "skipped": dict(read.skipped),
        "unread": list(read.unread),
        "out_of_order": read.out_of_order,
        "written": len(trace),
        "span_s": float(trace.arrival_s[-1]),
        "rate_per_s": trace.rate_per_s() if spans else None,
        "load": trace.load(capacity, options.gcycles_per_step) if spans else None,
        "gap_cv": trace.gap_cv() if spans else None,
        "models": len(trace.models()),
        "switch_share": trace.switch_share(),
    }
    if options.json:
        opt.print_json(summary, options)
    else:
        print(_text(summary))


def _read(options: argparse.Namespace) -> Trace:
    from diffpolicy.edge.workload.traces import readers as traces

    sample = options.trace == "azure-sample"
    kind = "azure" if sample and options.trace_format is None else options.trace_format
    if kind is None:
        raise InputError(f"--trace-format must say what {options.trace} is: {', '.join(FORMATS)}")
    if kind != "csv" and (options.columns is not None or options.unit is not None):
        raise InputError(f"--columns and --unit work only with --trace-format csv, got {kind}")
    broken = options.max_broken
    if not 0 <= broken <= 1:
        raise InputError(f"--max-broken must be from 0 to 1, got {broken:g}")
    if sample:
        if kind != "azure":
            raise InputError(f"azure-sample is of the format azure, got {kind}")
        return traces.azure_sample()
    if kind == "csv":
        if options.columns is None:
            raise InputError("--trace-format csv needs --columns, at least arrival_s=COLUMN")
        return traces.read_csv(options.trace, options.columns, unit=options.unit or "s", max_broken=broken)
    if kind == "vllm-omni":
        return traces.read_vllm_omni(options.trace, seed=options.seed, max_broken=broken)
    reader = traces.read_alibaba if kind == "alibaba" else traces.read_azure
    return reader(options.trace, max_broken=broken)


def _with_requests(trace: Trace, scenario: Scenario, options: argparse.Namespace) -> Trace:
    """What arrivals alone do not say comes from `--request-steps`, or else from the mix of the scenario's workload."""
    if trace.steps.all():
        if options.request_steps is not None:
            raise InputError(f"--request-steps is for traces without steps, and {trace.name} has them")
        return trace
    if options.request_steps is not None:
        return trace.with_steps(options.request_steps)
    workload = scenario.workload
    mix = getattr(workload, "mix", None)
    if mix is None:
        raise InputError(
            f"{trace.name} does not say what its requests ask for; give --request-steps, "
            f"or a --scenario whose workload has a 'mix'"
        )
    return trace.with_requests(mix, options.seed, getattr(workload, "model_persistence", 0.0))


def _text(summary: dict[str, Any]) -> str:
    lines = [
        f"{summary['out']}: {summary['written']:,} of {summary['read']:,} requests read, {summary['broken']} broken"
    ]
    lines += [f"  {line}" for line in summary["first_broken"]]
    skipped = ", ".join(f"{count:,} {reason}" for reason, count in summary["skipped"].items())
    lines += [f"  left out: {skipped}"] if skipped else []
    if told := summary["out_of_order"]:
        lines.append(f"  sorted by arrival, but {told}")
    if unread := summary["unread"]:
        lines.append(
            f"  not read: {', '.join(unread)}; read them by --columns {','.join(f'{x}={x}' for x in unread)},..."
        )
    if summary["rate_per_s"] is not None:
        lines.append(
            f"  {summary['rate_per_s']:.4g} requests/s over {summary['span_s']:,.0f} s; load {summary['load']:.3g}; "
            f"inter-arrival CV {summary['gap_cv']:.2f}"
        )
    lines.append(
        f"  each comes in at one of the {summary['stations']} stations of {summary['scenario']}, drawn at random"
    )
    models = "1 model" if summary["models"] == 1 else f"{summary['models']} models"
    lines.append(f"  {models}; {summary['switch_share']:.0%} of requests need another model than the one before")
    return "\n".join(lines)
