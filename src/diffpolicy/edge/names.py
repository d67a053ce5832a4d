"""Names that the command line knows, in a module that loads no torch."""

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
METHOD_NAMES = (
    "lad-ts",
    "lad-ts-released",
    "d2sac-ts",
    "sac-ts",
    "dqn-ts",
    "lad-ts-plus",
    "plus-one-step",
    "plus-no-chain",
)
SCENARIO_NAMES = ("lad-ts", "dedgeai", "gpu-mix")
PRETRAINED_NAMES = ("live", "stale", "live-one-pass", "stale-one-pass")
BASELINE = "opt-ts"
"""The rule to which a comparison sets all others in relation."""
