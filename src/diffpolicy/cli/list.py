"""`diffpolicy list`: what there is, a line each."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from importlib import resources

from diffpolicy.cli import options as opt
from diffpolicy.edge.names import HEURISTIC_NAMES, PRETRAINED_NAMES, SCENARIO_NAMES
from diffpolicy.evaluation.entrants import PRETRAINED
from diffpolicy.experiments.names import METHOD_NAMES, PROBLEMS, entry_names

HELP = "show what there is: problems, methods, policies, scenarios, profiles"


def profiles() -> list[str]:
    """Measured servers that come with the package."""
    files = resources.files("diffpolicy.edge.hardware") / "profiles"
    return sorted(f.name.removesuffix(".json") for f in files.iterdir() if f.name.endswith(".json"))


KINDS: Mapping[str, Callable[[], list[str]]] = {
    "problems": lambda: [*PROBLEMS, *entry_names("problem")],
    "methods": lambda: [*METHOD_NAMES, *entry_names("method")],
    "policies": lambda: [*HEURISTIC_NAMES, *(PRETRAINED + name for name in PRETRAINED_NAMES)],
    "scenarios": lambda: list(SCENARIO_NAMES),
    "profiles": profiles,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("kind", nargs="?", choices=list(KINDS), help="of what; default: all of them")
    opt.add_common(parser)


def run(options: argparse.Namespace) -> None:
    """Loads no torch. Policies are those of the offloading problem."""
    found = {kind: names() for kind, names in KINDS.items() if options.kind in (None, kind)}
    if options.json:
        opt.print_json(found)
        return
    for kind, names in found.items():
        for name in names:
            print(name if options.kind else f"{kind:<9}  {name}")
