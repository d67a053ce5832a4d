"""Names that the command line knows, in a module that loads no torch."""

from diffpolicy.experiments.method_names import PRESETS

HEURISTIC_NAMES = (
    "opt-ts",
    "price",
    "weighted-round-robin",
    "capacity-proportional",
    "power-of-two",
    "least-work-own",
    "round-robin",
    "slot-greedy",
    "random",
    "least-work",
    "local",
)
METHOD_NAMES = tuple(name for name, package in PRESETS.items() if package == "diffpolicy.edge")
SCENARIO_NAMES = ("lad-ts", "fdedge", "dedgeai", "gpu-mix")
TRAINED_NAMES = ("live", "stale", "live-gated", "stale-gated", "live-one-pass", "stale-one-pass")
PRETRAINED_NAMES = (*TRAINED_NAMES, "private")
"""Bundled policies; `private` has the parameters of `stale`."""
BASELINE = "opt-ts"
"""The rule to which a comparison sets all others in relation."""
