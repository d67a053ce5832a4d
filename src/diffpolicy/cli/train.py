"""`diffpolicy train`: one method on one problem."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any

from diffpolicy import _files, _limits, _signals
from diffpolicy import _validate as check
from diffpolicy._read import show_path
from diffpolicy.cli import options as opt
from diffpolicy.cli.surroundings import without_matplotlib
from diffpolicy.errors import InputError

HELP = "train one method"


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("method", metavar="METHOD", help="a preset's name, a YAML file, or module:attribute")
    opt.add_problem(parser)
    opt.add_scenario(parser)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="another value of a field of the method"
    )
    parser.add_argument(
        "--episodes", type=opt.whole(1, _limits.TRAINING), default=60, help="in all, also when resuming (default 60)"
    )
    parser.add_argument(
        "--environments", type=opt.whole(1, _limits.ENVIRONMENTS), default=1, help="played side by side (default 1)"
    )
    parser.add_argument("--out", default=None, metavar="DIR", help="default runs/METHOD")
    parser.add_argument("--resume", metavar="CKPT", help="go on from a checkpoint, or from the one in a folder")
    parser.add_argument(
        "--evaluate-every", type=opt.whole(1, _limits.TRAINING), metavar="N", help="episodes between two evaluations"
    )
    parser.add_argument(
        "--eval-episodes", type=opt.whole(1, _limits.EVALUATION), default=4, help="of such an evaluation (default 4)"
    )
    parser.add_argument("--accelerator", default="cpu", help="Lightning's (default cpu)")
    parser.add_argument("--devices", default="1", help="Lightning's (default 1)")
    parser.add_argument("--precision", default=None, help="Lightning's")
    parser.add_argument("--compile", action="store_true", help="compile the updates (half a minute, then faster)")
    parser.add_argument("--tensorboard", action="store_true", help="log to TensorBoard too (extra 'tensorboard')")
    parser.add_argument("--config", metavar="FILE", help="YAML file with values for these options")
    opt.add_common(parser)


def run(options: argparse.Namespace) -> int:
    """Checks what can be checked without torch, then trains."""
    from diffpolicy.experiments.names import check_method

    if options.config is not None:
        _read_config(options)
    other = opt.other_problem(options)
    scenario = None if other else opt.playable(options)
    check_method(options.method)
    name = Path(options.method).stem if "/" in options.method or options.method.endswith("ml") else options.method
    out = _files.check_folder(options.out or Path("runs") / name.replace(":", "."))
    if options.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise InputError("--tensorboard needs the extra: pip install -c constraints.txt '.[tensorboard]'")

    changes = dict(_field(text) for text in options.set)
    shared = {
        "episodes": options.episodes,
        "environments": options.environments,
        "seed": options.seed,
        "out": out,
        "resume": options.resume,
        "label": name,
        "accelerator": options.accelerator,
        "devices": options.devices,
        "precision": options.precision,
        "compiled": options.compile,
    }
    opt.set_threads(options.threads)
    if scenario is None:
        for option in ("evaluate_every", "tensorboard"):
            if getattr(options, option):
                raise InputError(f"--{option.replace('_', '-')} is of the offloading problem")
        from diffpolicy.experiments import make_problem
        from diffpolicy.experiments import train as train_any

        problem = make_problem(options.problem)
        cost = problem.cost
        result = train_any(problem, options.method, changes=changes, **shared)
    else:
        with without_matplotlib():
            from diffpolicy.edge.problem import DELAY
            from diffpolicy.edge.training import build, train
        module = build(options.method, scenario, seed=options.seed, environments=options.environments, changes=changes)
        cost = DELAY
        result = train(
            options.method,
            scenario,
            module=module,
            evaluate_every=options.evaluate_every,
            eval_episodes=options.eval_episodes,
            tensorboard=options.tensorboard,
            **shared,
        )
    if not result.first:
        return 0
    last = [row for row in result.history if row["episode"] > result.episodes - 10]
    mean = sum(row[cost.column] for row in last) / len(last) if last else None
    if options.json:
        opt.print_json(
            {
                "method": options.method,
                **({} if scenario is not None else {"problem": options.problem}),
                "episodes": result.episodes,
                f"last10_mean_{cost.column}": mean,
                "out": str(out),
            }
        )
    elif mean is not None:
        before = max((int(row["episode"]) for row in result.history if row not in last), default=0)
        covered = result.episodes - before
        unit = f" {cost.unit}" if cost.unit else ""
        print(f"{result.episodes} episodes; mean {cost.label} of the last {covered}: {mean:.3f}{unit}; policy in {out}")
    if result.signal is not None:
        name, path = _signals.name(result.signal), out / "checkpoint.ckpt"
        print(f"diffpolicy: {name} after {result.episodes} episodes; go on with --resume {path}", file=sys.stderr)
        return _signals.exit_status(result.signal)
    return 0


def _field(text: str) -> tuple[str, Any]:
    """A field and its value, of KEY=VALUE with a value in YAML."""
    from diffpolicy import _yaml

    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InputError(f"--set must be KEY=VALUE, got {check.show(text)}")
    return key, _yaml.parse(value, f"--set {key}")


def _read_config(options: argparse.Namespace) -> None:
    """Takes options from a YAML file, where they were not given on the command line."""
    from diffpolicy import _yaml

    path = Path(options.config)
    data = _yaml.parse(check.read_text(path, "config file"), f"config file {show_path(path)}", texts=True)
    if not isinstance(data, dict):
        raise InputError(f"config file {path} must hold options and values, got {check.show(data)}")
    command = opt.Parser(prog="diffpolicy train")
    add_options(command)
    actions = {option: action for action in command._actions for option in action.option_strings}
    given = {word.split("=", 1)[0] for word in options.words}
    for key, value in data.items():
        option = "--" + str(key).replace("_", "-")
        action = actions.get(option)
        if action is None or action.dest in ("help", "config"):
            raise InputError(f"config file {path} has the unknown option {check.show(key)}")
        if option in given:
            continue
        if action.nargs == 0:
            if value not in ("true", "false"):
                raise InputError(f"config file {path}, option {key} must be true or false, got {check.show(value)}")
            value = value == "true"
        elif not isinstance(value, str):
            raise InputError(f"config file {path}, option {key} must be one value, got {check.show(value)}")
        elif callable(action.type):
            try:
                value = action.type(value)
            except argparse.ArgumentTypeError as error:
                raise InputError(f"config file {path}, option {key} {error}") from None
        if isinstance(value, str):
            opt.check_name(value, f"config file {path}, option {key}")
        setattr(options, action.dest, value)
