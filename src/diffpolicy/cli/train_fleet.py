"""`diffpolicy train-fleet`: trains a bundled policy, or the price rule, again."""

from __future__ import annotations

import argparse
from dataclasses import replace

from diffpolicy import _files, _limits, _signals
from diffpolicy._alone import alone_in
from diffpolicy.cli import options as opt
from diffpolicy.cli.surroundings import without_matplotlib
from diffpolicy.edge.names import TRAINED_NAMES
from diffpolicy.errors import InputError

HELP = "train a policy for any fleet, over random fleets and loads"
EXAMPLES = (
    "diffpolicy train-fleet live --out runs/live",
    "diffpolicy train-fleet price --out runs/price --objective cvar:0.95 --resume",
    "diffpolicy train-fleet dispatch --out runs/dispatch",
)
ORDER = "dispatch"
"""The order of held requests, which is no policy of the offloading problem."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    known = (*TRAINED_NAMES, "price", ORDER)
    parser.add_argument("name", choices=known, metavar="NAME", help=f"which of the bundled ones: {', '.join(known)}")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the policy; required")
    parser.add_argument(
        "--objective",
        default="mean",
        metavar="WHAT",
        help="what evolution minimises: mean (default), slowdown, cvar:LEVEL, late:SECONDS or size:FAIRNESS",
    )
    parser.add_argument("--resume", action="store_true", help="continue the same run in --out, if it was stopped")
    parser.add_argument(
        "--rounds",
        type=opt.whole(1, _limits.CALLS),
        help="rounds of price iteration, which comes first (default: as for the bundled ones)",
    )
    parser.add_argument(
        "--generations",
        type=opt.whole(1, _limits.CALLS),
        help="generations of evolution, which follows (default: as for the bundled ones)",
    )
    opt.add_common(parser)


def run(options: argparse.Namespace) -> None:
    """Runs the command."""
    if options.name == ORDER:
        _run_order(options)
        return
    with without_matplotlib():
        from diffpolicy.edge.pricing.training.train import RECIPES, train_rule
    from diffpolicy.edge.credit.objectives import named_objective
    from diffpolicy.edge.pricing.bundled import bundle

    objective = None if options.objective == "mean" else named_objective(options.objective)
    out = _files.check_folder(options.out)
    opt.set_threads(options.threads)
    recipe = RECIPES[options.name]
    changes = {k: getattr(options, k) for k in ("rounds", "generations") if getattr(options, k) is not None}
    try:
        with alone_in(out):
            network = train_rule(
                replace(recipe, **changes),
                seed=options.seed,
                objective=objective,
                report=opt.teller(options),
                out=out,
                resume=options.resume,
            )
            bundle(options.name, network, replace(recipe, **changes), options.seed, options.objective).save(out)
    except _signals.Stopped:
        if (out / "checkpoint.ckpt").is_file():
            opt.say(
                f"diffpolicy: go on with the same command and --resume; {out / 'checkpoint.ckpt'} holds what is done"
            )
        raise
    if options.json:
        opt.print_json({"name": options.name, "objective": options.objective, "out": options.out}, options)
    else:
        print(f"wrote {options.out}")


def _run_order(options: argparse.Namespace) -> None:
    """Trains the order of held requests, by evolution alone.

    Raises:
        InputError: an option is of the other ones.
    """
    from diffpolicy.edge.dispatch.learning import Recipe, train

    for option, given in {"resume": options.resume, "rounds": options.rounds is not None}.items():
        if given:
            raise InputError(f"train-fleet {ORDER} has no --{option}: it consists of evolution alone")
    if options.objective != "mean":
        raise InputError(
            f"train-fleet {ORDER} always minimises the mean within limits on the tail, so it takes no --objective"
        )
    out = _files.check_folder(options.out)
    recipe = Recipe() if options.generations is None else replace(Recipe(), generations=options.generations)
    with alone_in(out):
        learned = train(recipe, seed=options.seed, report=opt.teller(options))
        _files.write_text(out / "order.json", learned.text())
    if options.json:
        opt.print_json({"name": options.name, "objective": options.objective, "out": options.out}, options)
    else:
        print(f"wrote {options.out}")
