"""`diffpolicy list`: what there is, a line each."""

from __future__ import annotations

import argparse
from typing import Any

from diffpolicy.cli import options as opt
from diffpolicy.cli.known import KNOWN

HELP = "list problems, methods, policies, scenarios and profiles"
EXAMPLES = (
    "diffpolicy list methods",
    "diffpolicy list --json",
    "diffpolicy list methods --json  # with what each trains",
)
KINDS = {known.kind: known.names for known in KNOWN.values()}


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("kind", nargs="?", choices=list(KINDS), metavar="KIND", help=f"{', '.join(KINDS)}; default all")
    opt.add_common(parser)


def run(options: argparse.Namespace) -> None:
    """Loads no torch, but for what methods can. Policies are those of the offloading problem."""
    found = {kind: names() for kind, names in KINDS.items() if options.kind in (None, kind)}
    if options.json:
        can = {"capabilities": _capabilities()} if options.kind == "methods" else {}
        opt.print_json({**found, **can}, options)
        return
    for kind, names in found.items():
        for name in names:
            print(name if options.kind else f"{kind:<9}  {name}")


def _capabilities() -> dict[str, dict[str, Any]]:
    """What each preset can train."""
    from diffpolicy.experiments.method_names import METHOD_NAMES, make_method
    from diffpolicy.methods.capabilities import Capabilities

    return {name: Capabilities.of(make_method(name)).to_dict() for name in METHOD_NAMES}
