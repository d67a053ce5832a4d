"""`diffpolicy evaluate`: policies on identical arrivals."""

from __future__ import annotations

import argparse

from diffpolicy import _limits
from diffpolicy.cli import options as opt
from diffpolicy.errors import InputError

HELP = "evaluate policies on identical arrivals"


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "policies", nargs="+", metavar="POLICY", help="a heuristic's name, a policy folder, or module:attribute"
    )
    opt.add_scenario(parser)
    parser.add_argument("--episodes", type=opt.whole(1, _limits.EVALUATION), default=16, help="default 16")
    parser.add_argument("--baseline", default="opt-ts", metavar="POLICY", help="default opt-ts")
    parser.add_argument("--sampler", choices=["ddpm", "ddim"], help="of diffusion policies, instead of their own")
    parser.add_argument("--sampler-steps", type=opt.whole(1, _limits.CHAIN), metavar="K", help="of that sampler")
    opt.add_common(parser)


def run(options: argparse.Namespace) -> None:
    """Checks what can be checked without torch, then plays."""
    from diffpolicy.edge.resolve import check_policy

    scenario = opt.playable(options)
    names = list(options.policies)
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"policy {name} is named twice")
    for name in [*names, options.baseline]:
        check_policy(name)

    from diffpolicy.edge.evaluation import evaluate
    from diffpolicy.edge.resolve import make_policy, resample

    opt.set_threads(options.threads)
    policies = {
        name: resample(make_policy(name, scenario, seed=options.seed), name, options.sampler, options.sampler_steps)
        for name in names
    }
    result = evaluate(policies, scenario, episodes=options.episodes, seed=options.seed, baseline=options.baseline)
    if options.json:
        opt.print_json(result.to_dict())
    else:
        marks = {}
        if options.sampler or options.sampler_steps:
            marks = {
                name: f" [{policy.sampler}, {len(policy.path)} steps]"
                for name, policy in policies.items()
                if hasattr(policy, "with_sampler")
            }
        print(result.table(marks))
