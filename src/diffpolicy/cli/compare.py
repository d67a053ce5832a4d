"""`diffpolicy compare`: the main job."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from diffpolicy import _files, _limits
from diffpolicy import _validate as check
from diffpolicy._alone import alone_in
from diffpolicy.cli import options as opt
from diffpolicy.edge.names import METHOD_NAMES

if TYPE_CHECKING:
    from diffpolicy.edge.jobs import Plan

HELP = "train the methods and run every heuristic on the same arrivals (the main job)"
DEFAULT = ["lad-ts", "d2sac-ts", "sac-ts", "dqn-ts", "lad-ts-plus", "plus-no-chain"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    opt.add_scenario(parser)
    parser.add_argument(
        "--methods",
        type=opt.names,
        metavar="A,B",
        help=f"presets ({', '.join(METHOD_NAMES)}), YAML files or module:attribute; default {','.join(DEFAULT)}",
    )
    parser.add_argument(
        "--episodes", type=opt.whole(1, _limits.TRAINING), help="of training; default: as many as fit", metavar="N"
    )
    parser.add_argument(
        "--seeds", type=opt.whole(1, _limits.SEEDS), help="training seeds of each method (default 1)", metavar="K"
    )
    parser.add_argument(
        "--eval-episodes", type=opt.whole(1, _limits.EVALUATION), default=16, metavar="M", help="default 16"
    )
    parser.add_argument(
        "--minutes", type=float, help="time for all of it (default 5, or no limit with --episodes)", metavar="M"
    )
    parser.add_argument("--full", action="store_true", help="500 episodes, five seeds, every preset, no time limit")
    parser.add_argument(
        "--processes", type=opt.whole(1, _limits.PROCESSES), default=2, help="side by side (default 2)", metavar="P"
    )
    parser.add_argument(
        "--sweep",
        metavar="KEY=V,V",
        help="at each value of tasks, stations, capacity, steps, denoising-steps, temperature...",
    )
    parser.add_argument(
        "--resume", action="store_true", help="take what an earlier run of the same finished from --out"
    )
    parser.add_argument("--compile", action="store_true", help="compile the updates (for long runs)")
    parser.add_argument("--out", default="runs/compare", metavar="DIR", help="default runs/compare")
    opt.add_common(parser)


def _sweep(options: argparse.Namespace, plan: Plan) -> None:
    """Compares at every value, and shows each table and the plot of all."""
    from diffpolicy.edge.plots import sweep_plot
    from diffpolicy.edge.sweep import Sweep, run_sweep
    from diffpolicy.edge.tables import comparison_json, comparison_table
    from diffpolicy.edge.training import build

    sweep = Sweep.parse(options.sweep)
    for value in sweep.values:
        each = sweep.apply(plan, value)
        for name in each.methods:
            build(name, each.scenario, changes=each.changes)
    results = run_sweep(plan, sweep, opt.say)
    sweep_plot(sweep, results, plan.out / "sweep.png")
    if options.json:
        values = {sweep.label(v): comparison_json(c) for v, c in zip(sweep.values, results, strict=True)}
        opt.print_json({"key": sweep.key, "values": values})
        return
    for value, result in zip(sweep.values, results, strict=True):
        print(f"{sweep.key} = {sweep.label(value)}")
        print(comparison_table(result) + "\n")
    print(f"in {plan.out}: sweep.csv, sweep.png, and a folder for each value")


def run(options: argparse.Namespace) -> None:
    """Checks what can be checked without torch, then compares."""
    from diffpolicy.experiments.names import check_method

    started = time.monotonic()
    if options.minutes is not None:
        check.number(options.minutes, "--minutes", above=0, most=_limits.MINUTES)
    scenario = opt.playable(options)
    methods = options.methods or (list(METHOD_NAMES) if options.full else DEFAULT)
    for name in methods:
        check_method(name)
    if options.sweep is not None:
        from diffpolicy.edge.sweep import Sweep

        Sweep.parse(options.sweep)
    out = _files.writable_folder(options.out)

    from diffpolicy.edge.jobs import Plan
    from diffpolicy.edge.training import build

    opt.set_threads(options.threads)
    episodes = options.episodes or (500 if options.full else None)
    minutes = options.minutes or (None if episodes else 5.0)
    plan = Plan(
        scenario=scenario,
        methods=methods,
        out=Path(out),
        episodes=episodes,
        seeds=options.seeds or (5 if options.full else 1),
        eval_episodes=options.eval_episodes,
        seconds=None if minutes is None else 60 * minutes,
        processes=options.processes,
        seed=options.seed,
        compiled=options.compile,
        resume=options.resume,
    )
    for name in methods:
        build(name, scenario)
    with alone_in(out):
        if options.sweep is not None:
            _sweep(options, plan)
        else:
            _once(options, plan, started)


def _once(options: argparse.Namespace, plan: Plan, started: float) -> None:
    """Compares, and shows the table and the plots."""
    from diffpolicy.edge.compare import compare
    from diffpolicy.edge.plots import delay_by_size, learning_curves
    from diffpolicy.edge.tables import comparison_json, comparison_table

    out, scenario = plan.out, plan.scenario
    limit = "no time limit" if plan.seconds is None else f"{plan.seconds:.0f} s for all"
    opt.say(
        f"comparing {', '.join(plan.methods)} on {scenario.name}, load {scenario.load_factor():.2f}; "
        f"training seeds each: {plan.seeds}; processes: {plan.processes}; {limit}"
    )
    result = compare(plan, opt.say, started)
    learning_curves(result, out / "learning_curves.png")
    delay_by_size(result, out / "delay_by_size.png")
    if options.json:
        opt.print_json(comparison_json(result))
    else:
        print(comparison_table(result))
        print(
            f"{time.monotonic() - started:.0f} s in all; in {out}: "
            "comparison.csv, learning_curves.csv, learning_curves.png, delay_by_size.png, policies"
        )
