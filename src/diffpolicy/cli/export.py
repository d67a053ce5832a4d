"""`diffpolicy export`: a policy's decision function as a file."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffpolicy import _files
from diffpolicy.cli import options as opt
from diffpolicy.errors import InputError

HELP = "write a policy's decision function for ONNX Runtime or AOTInductor"
EXAMPLES = (
    "diffpolicy export runs/lad-ts --agent 0 --out station0.onnx",
    "diffpolicy export pretrained:live --format aoti --out live.pt2",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("policy", metavar="POLICY", help="the policy to write; rules have no network")
    parser.add_argument("--format", choices=["onnx", "aoti"], default="onnx", help="onnx (default) or aoti")
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="file to write; required; FILE.json describes its inputs and outputs",
    )
    parser.add_argument("--agent", type=opt.whole(0), metavar="B", help="only the networks of this station")
    opt.add_scenario(parser, overrides=False)
    opt.add_common(parser)


def run(options: argparse.Namespace) -> None:
    """Checks what can be checked without torch, then exports."""
    from diffpolicy.edge.resolve import check_policy

    if check_policy(options.policy) == "heuristic":
        raise InputError(f"policy {options.policy} is a rule without a network, so there is nothing to export")
    _files.check_writable(options.out)

    from diffpolicy.edge.resolve import make_policy
    from diffpolicy.edge.scenario.scenario import Scenario
    from diffpolicy.export import export_decision
    from diffpolicy.policies import SavedPolicy

    opt.set_threads(options.threads)
    policy = make_policy(options.policy, Scenario.load(options.scenario), seed=options.seed)
    if not isinstance(policy, SavedPolicy):
        raise InputError(
            f"policy {options.policy} must be a policy of this package to be exported, got {type(policy).__name__}"
        )
    try:
        if options.agent is not None:
            policy = policy.for_agent(options.agent)
        result = export_decision(policy, options.out, options.format)
    except InputError as error:
        raise InputError(f"policy {options.policy}: {error}") from None
    size = Path(result.path).stat().st_size
    if options.json:
        opt.print_json(
            {"out": str(result.path), "format": result.format, "bytes": size, "largest_difference": result.difference},
            options,
        )
    else:
        print(
            f"{result.path}: {result.format}, {size:,} bytes; differs from the policy by at most "
            f"{result.difference:.1e} on random inputs; inputs and outputs are described in {result.path}.json"
        )
