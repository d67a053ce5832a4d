"""`diffpolicy train`: one method on one problem."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffpolicy import _files, _limits, _signals
from diffpolicy._total import total
from diffpolicy.cli import options as opt
from diffpolicy.cli.config import read_config
from diffpolicy.cli.surroundings import without_matplotlib
from diffpolicy.training.loggers import LOGGERS, check_logger

if TYPE_CHECKING:
    from diffpolicy.environments import Cost
    from diffpolicy.training.fit import Fitted

HELP = "train one method"
EXAMPLES = (
    "diffpolicy train lad-ts --episodes 100 --out runs/lad-ts",
    "diffpolicy train lad-ts --episodes 200 --out runs/lad-ts --resume",
    'diffpolicy train d2sac --problem mine:problem --environments 32 --set steps=5 --set "hidden=[64, 64]"',
    "diffpolicy train sac --problem gym:CartPole-v1 --episodes 150 --evaluate-every 25 --logger tensorboard",
)
OUT = object()
"""What stands for the folder of `--out` where `--resume` names none."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("method", metavar="METHOD", help="the method to train")
    opt.add_problem(parser)
    opt.add_set(parser)
    parser.add_argument(
        "--episodes",
        type=opt.whole(1, _limits.TRAINING),
        default=60,
        metavar="N",
        help="training episodes in total, also when resuming (default 60)",
    )
    parser.add_argument(
        "--environments",
        type=opt.whole(1, _limits.ENVIRONMENTS),
        default=1,
        metavar="E",
        help="environments played side by side; each step of all of them is followed by the same number of "
        "updates (default 1)",
    )
    parser.add_argument(
        "--data",
        metavar="FILE",
        help="learn from a data set instead of play (bc, bc-plain, fql, fql-plain): a folder of "
        "TensorDict.memmap, an .npz, a .safetensors or a .csv; an episode is then a pass over its rows",
    )
    parser.add_argument(
        "--out", default=None, metavar="DIR", help="folder for the policy and its history (default runs/METHOD)"
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const=OUT,
        metavar="DIR|CKPT",
        help="continue the same run in --out, if it was stopped; or the run of a folder or checkpoint",
    )
    seen = parser.add_argument_group("evaluation and logging")
    seen.add_argument(
        "--evaluate-every",
        type=opt.whole(1, _limits.TRAINING),
        metavar="N",
        help="training episodes between two evaluations on the same episodes; results go to training.csv",
    )
    opt.add_eval_episodes(seen, 4, ", each time")
    seen.add_argument(
        "--logger", choices=list(LOGGERS), help="also log to csv, tensorboard or wandb, through Lightning"
    )
    seen.add_argument(
        "--tensorboard",
        action=opt.OldSpelling,
        nargs=0,
        const="tensorboard",
        dest="logger",
        instead="--logger tensorboard",
    )
    machine = parser.add_argument_group("hardware")
    machine.add_argument(
        "--accelerator",
        default="cpu",
        metavar="A",
        help="Lightning's accelerator: cpu, gpu, auto (default cpu)",
    )
    machine.add_argument("--devices", default="1", metavar="D", help="number of devices, or which ones (default 1)")
    machine.add_argument(
        "--precision", default=None, metavar="P", help="Lightning's precision: 32, bf16-mixed (default 32)"
    )
    machine.add_argument("--compile", action="store_true", help="compile the updates (half a minute, then faster)")
    parser.add_argument("--config", metavar="FILE", help="YAML file with values for these options")
    opt.add_scenario(parser)
    opt.add_common(parser)


def run(options: argparse.Namespace) -> int:
    """Checks what can be checked without torch, then trains."""
    from diffpolicy.experiments.method_names import check_method

    if options.config is not None:
        command = opt.Parser(prog="diffpolicy train")
        add_options(command)
        read_config(options, command)
    scenario = opt.checked_scenario(options)
    check_method(options.method)
    if options.logger is not None:
        check_logger(options.logger)
    changes = opt.changes(options)
    name = Path(options.method).stem if "/" in options.method or options.method.endswith("ml") else options.method
    out = _files.check_folder(options.out or Path("runs") / name.replace(":", "."))
    shared = {
        "episodes": options.episodes,
        "environments": options.environments,
        "seed": options.seed,
        "out": out,
        "resume": out if options.resume is OUT else options.resume,
        "label": None if options.quiet else name,
        "evaluate_every": options.evaluate_every,
        "eval_episodes": options.eval_episodes,
        "accelerator": options.accelerator,
        "devices": options.devices,
        "precision": options.precision,
        "compiled": options.compile,
        "logger": options.logger or False,
    }
    opt.set_threads(options.threads)
    if scenario is None or options.data is not None:
        from diffpolicy.experiments import train as train_any

        problem = opt.problem(options, scenario)
        cost = problem.cost
        result = train_any(problem, options.method, data=options.data, changes=changes, **shared)
    else:
        with without_matplotlib():
            from diffpolicy.edge.problem import DELAY
            from diffpolicy.edge.training import build, train
        module = build(options.method, scenario, seed=options.seed, environments=options.environments, changes=changes)
        cost = DELAY
        result = train(options.method, scenario, module=module, **shared)
    return _told(options, result, cost, out) if result.first else 0


def _told(options: argparse.Namespace, result: Fitted, cost: Cost, out: Path) -> int:
    """Prints what came of it, and gives the exit status."""
    if options.data is not None:
        return _told_of_data(options, result, out)
    last = [row for row in result.history if row["episode"] > result.episodes - 10]
    mean = total(row[cost.column] for row in last) / len(last) if last else None
    if options.json:
        problem = {} if options.problem == "offloading" else {"problem": options.problem}
        told: dict[str, Any] = {
            "method": options.method,
            **problem,
            "episodes": result.episodes,
            f"last10_mean_{cost.column}": mean,
            "out": str(out),
        }
        opt.print_json(told, options)
    elif mean is not None:
        before = max((int(row["episode"]) for row in result.history if row not in last), default=0)
        covered = result.episodes - before
        unit = f" {cost.unit}" if cost.unit else ""
        played = _many(result.episodes, "episode")
        print(f"{played}; mean {cost.label} of the last {covered}: {mean:.3f}{unit}; policy in {out}")
    return _status(result, out)


def _told_of_data(options: argparse.Namespace, result: Fitted, out: Path) -> int:
    """The same of rows that nobody played, and so cost nothing."""
    last = {key: value for key, value in (result.history or [{}])[-1].items() if key != "episode"}
    if options.json:
        told = {"method": options.method, "problem": options.problem, "data": options.data, "passes": result.episodes}
        opt.print_json({**told, "last": last, "out": str(out)}, options)
    else:
        shown = ", ".join(f"{key} {value:.4g}" for key, value in last.items())
        print(f"{_many(result.episodes, 'pass', 'es')} over {options.data}; in the last one {shown}; policy in {out}")
    return _status(result, out)


def _many(n: int, one: str, ending: str = "s") -> str:
    return f"{n} {one}" if n == 1 else f"{n} {one}{ending}"


def _status(result: Fitted, out: Path) -> int:
    """The exit status, and how to go on after a signal."""
    if result.signal is None:
        return 0
    name, path = _signals.name(result.signal), out / "checkpoint.ckpt"
    print(
        f"diffpolicy: {name} after {_many(result.episodes, 'episode')}; go on with --resume {path}",
        file=sys.stderr,
    )
    return _signals.exit_status(result.signal)
