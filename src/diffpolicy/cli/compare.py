"""`diffpolicy compare`: the main job."""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from diffpolicy import _files, _limits
from diffpolicy import _validate as check
from diffpolicy._alone import alone_in
from diffpolicy.cli import options as opt
from diffpolicy.cli.progress import bar
from diffpolicy.experiments.method_names import PRESETS, check_method

if TYPE_CHECKING:
    from diffpolicy.edge.dispatch.holding import Holding
    from diffpolicy.experiments.comparison import Comparison
    from diffpolicy.experiments.plan import Plan
    from diffpolicy.experiments.sweep import Sweep

HELP = "train the methods and play every rule on the same episodes (the main job)"
EXAMPLES = (
    "diffpolicy compare                                             # five minutes on the paper's setting",
    "diffpolicy compare --problem gym:CartPole-v1 --methods sac,dqn --episodes 150",
    "diffpolicy compare --methods lad-ts,sac-ts --episodes 60 --seeds 3 --out runs/three-seeds",
    "diffpolicy compare --sweep tasks=10,20,30 --methods lad-ts-plus --episodes 40",
    "diffpolicy compare --full --compile --out runs/full --resume   # goes on after it was stopped",
    "diffpolicy compare --full --cluster ray:10.0.0.7:6379          # on the machines of a Ray cluster",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    opt.add_problem(parser)
    parser.add_argument(
        "--methods",
        type=opt.names,
        metavar="METHOD,METHOD",
        help="methods to train (default: those of the problem)",
    )
    opt.add_set(parser, "; for all methods, or for one: lad-ts.steps=5")
    parser.add_argument(
        "--policies",
        type=opt.names,
        metavar="POLICY,POLICY",
        help="trained policies to play as well (default: the problem's; for offloading pretrained:live and "
        "pretrained:stale if numba is installed)",
    )
    parser.add_argument(
        "--episodes",
        type=opt.whole(1, _limits.TRAINING),
        help="training episodes of each method (default: as many as fit into the time)",
        metavar="N",
    )
    parser.add_argument(
        "--environments",
        type=opt.whole(1, _limits.ENVIRONMENTS),
        default=1,
        metavar="E",
        help="environments played side by side in each training, as in train (default 1)",
    )
    parser.add_argument(
        "--seeds", type=opt.whole(1, _limits.SEEDS), help="training seeds of each method (default 1)", metavar="K"
    )
    opt.add_eval_episodes(parser, 16)
    parser.add_argument(
        "--minutes",
        type=float,
        help="minutes for the whole comparison (default 5; no limit with --episodes or --full)",
        metavar="M",
    )
    parser.add_argument("--full", action="store_true", help="500 episodes, five seeds, every preset, no time limit")
    parser.add_argument(
        "--processes",
        type=opt.whole(1, _limits.PROCESSES),
        help="trainings and evaluations side by side (default 2, or the processors of --cluster); 1: all in "
        "this process",
        metavar="P",
    )
    parser.add_argument(
        "--cluster",
        type=_cluster,
        metavar="ray[:ADDRESS]",
        help="run the work as tasks of Ray: on the cluster at ADDRESS, or on the one that Ray finds, or starts "
        "on this machine; results come back to --out",
    )
    parser.add_argument(
        "--sweep",
        metavar="KEY=V,V",
        help="repeat everything at each value of a parameter: of the problem (for offloading tasks, stations, "
        "slots, capacity, steps), or of the methods (denoising-steps, temperature, discount, "
        "updates, or any field that is a number)",
    )
    parser.add_argument("--resume", action="store_true", help="continue the same run in --out, if it was stopped")
    parser.add_argument("--compile", action="store_true", help="compile the updates (for long runs)")
    parser.add_argument(
        "--out",
        default="runs/compare",
        metavar="DIR",
        help="folder for tables, pictures and policies (default runs/compare)",
    )
    opt.add_scenario(parser)
    opt.add_binding(parser)
    opt.add_common(parser)


def _cluster(text: str) -> str:
    """The address that `--cluster` names, "" for none. Args: text: `ray` or `ray:ADDRESS`."""
    kind, colon, address = text.partition(":")
    if kind != "ray" or (colon and not address):
        raise argparse.ArgumentTypeError("must be ray or ray:ADDRESS")
    return address


def run(options: argparse.Namespace) -> None:
    """Checks what can be checked without torch, then compares."""
    started = time.monotonic()
    if options.minutes is not None:
        check.number(options.minutes, "--minutes", above=0, most=_limits.MINUTES)
    scenario = opt.checked_scenario(options)
    for name in options.methods or []:
        check_method(name)
    held = opt.holding(options, scenario, options.methods or ["the methods that compare trains"])
    changes = opt.changes(options)
    out = _files.check_folder(options.out)

    from diffpolicy.evaluation import make_policy
    from diffpolicy.experiments.plan import Plan
    from diffpolicy.experiments.sweep import Sweep
    from diffpolicy.experiments.training import build

    opt.set_threads(options.threads)
    problem = opt.problem(options, scenario, held)
    every = [name for name, package in PRESETS.items() if package == PRESETS.get(problem.methods[0])]
    methods = options.methods or (every if options.full else list(problem.methods))
    sweep = None if options.sweep is None else Sweep.parse(options.sweep, problem, methods)
    episodes = options.episodes or (500 if options.full else None)
    minutes = options.minutes or (None if episodes else 5.0)
    plan = Plan(
        problem=problem,
        methods=methods,
        out=out,
        episodes=episodes,
        seeds=options.seeds or (5 if options.full else 1),
        eval_episodes=options.eval_episodes,
        seconds=None if minutes is None else 60 * minutes,
        processes=options.processes or 2,
        environments=options.environments,
        seed=options.seed,
        compiled=options.compile,
        changes=changes,
        resume=options.resume,
        policies=options.policies,
    )
    if options.policies is None and (left_out := problem.left_out()):
        opt.teller(options)(left_out)
    for name in plan.untrained:
        make_policy(name, problem)
    plans = [plan] if sweep is None else [sweep.apply(plan, value) for value in sweep.values]
    for each in plans:
        for name in methods:
            build(each.problem, name, changes=each.changes_of(name))
    with alone_in(out):
        if sweep is None:
            _once(options, plan, started, held)
        else:
            _sweep(options, plan, sweep, held)


@contextmanager
def _placed(options: argparse.Namespace, plan: Plan) -> Iterator[Plan]:
    """The plan on the cluster that is asked for, while it is connected; meanwhile what Ray prints is no output."""
    if options.cluster is None:
        yield plan
        return
    from diffpolicy.experiments.ray_cluster import RayCluster

    with (
        redirect_stdout(sys.stderr if options.verbose else io.StringIO()),
        RayCluster.connected(options.cluster or None) as cluster,
    ):
        yield replace(plan, cluster=cluster, processes=options.processes or cluster.slots)


def _json(result: Comparison, held: Holding | None) -> dict[str, Any]:
    """A comparison as JSON, and how requests were held."""
    from diffpolicy.experiments.tables import comparison_json

    if held is None:
        return comparison_json(result)
    from diffpolicy.edge.dispatch.telling import add_held

    return add_held(comparison_json(result), held, result.played, "methods")


def _table(result: Comparison, held: Holding | None) -> str:
    """A comparison as a table, and how requests were held."""
    from diffpolicy.experiments.tables import comparison_table

    if held is None:
        return comparison_table(result)
    from diffpolicy.edge.dispatch.telling import held_line

    return f"{comparison_table(result)}\n{held_line(held, result.played)}"


def _sweep(options: argparse.Namespace, plan: Plan, sweep: Sweep, held: Holding | None) -> None:
    """Compares at every value, and shows each table and the plot of all."""
    from diffpolicy.experiments.plots import draw
    from diffpolicy.experiments.sweep import run_sweep

    with _placed(options, plan) as placed, bar(options, "comparing", 1.0, spoken=not options.quiet) as progress:
        results = run_sweep(placed, sweep, progress.tell, lambda name, share: progress.advance(share, name))
    pictures = draw(plan.out / "sweep.csv")
    if options.json:
        values = {sweep.label(v): _json(c, held) for v, c in zip(sweep.values, results, strict=True)}
        opt.print_json({"key": sweep.key, "values": values}, options)
        return
    for value, result in zip(sweep.values, results, strict=True):
        print(f"{sweep.key} = {sweep.label(value)}")
        print(_table(result, held) + "\n")
    files = ", ".join(["sweep.csv", *(path.name for path in pictures)])
    print(f"in {plan.out}: {files}, and a folder for each value")


def _once(options: argparse.Namespace, plan: Plan, started: float, held: Holding | None) -> None:
    """Compares, and shows the table and the plots."""
    from diffpolicy.experiments.plots import draw
    from diffpolicy.experiments.run import compare

    limit = "no time limit" if plan.seconds is None else f"{plan.seconds:.0f} s for all"
    with _placed(options, plan) as placed:
        opt.teller(options)(
            f"comparing {', '.join(plan.methods)} on {plan.problem.told()}; training seeds each: {plan.seeds}; "
            f"{'processes' if placed.cluster is None else 'tasks of Ray'}: {placed.processes}; {limit}"
        )
        with bar(options, "comparing", 1.0, spoken=not options.quiet) as progress:
            result = compare(placed, progress.tell, started, heard=lambda name, share: progress.advance(share, name))
    tables = ["comparison.csv", "learning_curves.csv", *(f"{stem}.csv" for stem in plan.problem.breakdowns())]
    tables += [name for name in ("steps.csv", "timeline.csv", "chain.csv") if (plan.out / name).is_file()]
    pictures = [path.name for table in tables for path in draw(plan.out / table)]
    if options.json:
        opt.print_json(_json(result, held), options)
    else:
        print(_table(result, held))
        files = ", ".join([*tables, *pictures, "policies"])
        print(f"{time.monotonic() - started:.0f} s in all; in {plan.out}: {files}")
