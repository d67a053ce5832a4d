"""Options that several commands share, and checks that need no torch."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy._version import __version__
from diffpolicy.cli.acting import add_guidance as add_guidance
from diffpolicy.cli.acting import add_sampler as add_sampler
from diffpolicy.cli.binding import add_binding as add_binding
from diffpolicy.cli.binding import holding as holding
from diffpolicy.cli.parsing import OldSpelling as OldSpelling
from diffpolicy.cli.parsing import Parser as Parser
from diffpolicy.cli.parsing import bounds as bounds
from diffpolicy.cli.parsing import columns as columns
from diffpolicy.cli.parsing import names as names
from diffpolicy.cli.parsing import positive as positive
from diffpolicy.cli.parsing import whole as whole
from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.errors import InputError

if TYPE_CHECKING:
    from diffpolicy.edge.dispatch.holding import Holding
    from diffpolicy.environments.problem import Problem


def check_name(text: str, option: str = "") -> None:
    """Refuses a word that can be neither a name nor a path.

    Args:
        text: the word. option: stands before it.

    Raises:
        InputError: it is empty, or holds a null character, or half of a surrogate pair that stands for no byte.
    """
    if not text:
        raise InputError(f"{option} is given '', which is not a name, path or number".lstrip())
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise InputError(f"{check.show(text)} cannot be a name or a path: it is not text") from None
    if "\0" in text:
        raise InputError(f"{check.show(text)} cannot be a name or a path: it holds a null character")


def add_common(parser: argparse.ArgumentParser) -> None:
    """What every command takes: `--seed`, `--threads`, `--json`, `-q`, `-v`."""
    group = parser.add_argument_group("common to all commands")
    group.add_argument("--seed", type=whole(0), default=0, metavar="N", help="seed of all random numbers (default 0)")
    group.add_argument(
        "--threads",
        type=whole(1, _limits.PROCESSES),
        default=1,
        metavar="N",
        help="threads of torch; more than one is slower for networks this small (default 1)",
    )
    group.add_argument(
        "--json", action="store_true", help="print only one JSON object on stdout, with version and seed"
    )
    loud = group.add_mutually_exclusive_group()
    loud.add_argument("-q", "--quiet", action="store_true", help="no progress on stderr; warnings and errors stay")
    loud.add_argument(
        "-v", "--verbose", action="store_true", help="progress in lines if stderr is no terminal; tracebacks"
    )


def add_scenario(parser: argparse.ArgumentParser, *, overrides: bool = True) -> None:
    """`--scenario` and the overrides of the paper's knobs."""
    group = parser.add_argument_group("the offloading problem") if overrides else parser
    group.add_argument("--scenario", default="lad-ts", metavar="SCENARIO", help="fleet and workload (default lad-ts)")
    if not overrides:
        return
    group.add_argument(
        "--tasks", type=whole(1, _limits.TASKS), help="at most N tasks per station and slot", metavar="N"
    )
    group.add_argument(
        "--stations",
        type=whole(1, _limits.SERVERS),
        help="B stations, each with its own server, all drawn anew",
        metavar="B",
    )
    group.add_argument("--slots", type=whole(1, _limits.SLOTS), help="slots of an episode", metavar="T")
    group.add_argument("--capacity", type=bounds, help="capacities, U{LO..HI} Gcycles/s, drawn anew", metavar="LO:HI")
    group.add_argument(
        "--steps", type=bounds, help="denoising steps of requests, U{LO..HI-1}, drawn anew", metavar="LO:HI"
    )


OF_SCENARIO = ("--scenario", "--tasks", "--stations", "--slots", "--capacity", "--steps")


def add_problem(parser: argparse.ArgumentParser) -> None:
    """`--problem`."""
    parser.add_argument(
        "--problem", default="offloading", metavar="PROBLEM", help="the problem to decide (default offloading)"
    )


EVAL_EPISODES: dict[str, Any] = {"dest": "eval_episodes", "type": whole(1, _limits.EVALUATION)}
"""How `--eval-episodes` is read."""


def add_eval_episodes(parser: argparse.ArgumentParser | argparse._ArgumentGroup, default: int, of: str = "") -> None:
    """`--eval-episodes`. Args: of: which evaluation is meant, where there are several."""
    parser.add_argument(
        "--eval-episodes",
        **EVAL_EPISODES,
        default=default,
        metavar="M",
        help=f"episodes on which policies are judged{of} (default {default})",
    )


def add_set(parser: argparse.ArgumentParser, whose: str = "") -> None:
    """`--set`. Args: whose: what its help says of several methods."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="set a field of a method to a YAML value: steps=5 or learning_rates.actor=1e-4; may be repeated" + whose,
    )


def changes(options: argparse.Namespace) -> dict[str, Any]:
    """What `--set` sets, by field.

    Raises:
        InputError: it is no KEY=VALUE, or names a key twice.
    """
    from diffpolicy import _yaml

    found: dict[str, Any] = {}
    for text in options.set:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"--set must be KEY=VALUE, got {check.show(text)}")
        if key in found:
            raise InputError(f"--set gives {check.show(key)} twice")
        found[key] = _yaml.parse(value, f"--set {key}")
    return found


def other_problem(options: argparse.Namespace) -> bool:
    """Whether another problem than offloading is meant, once its name and the options fit.

    Raises:
        InputError: it has no such name, or an option of the offloading problem is given with it.
    """
    from diffpolicy.experiments.problem_names import check_problem

    check_problem(options.problem)
    if options.problem == "offloading":
        return False
    given = {word.split("=", 1)[0] for word in options.words}
    for option in OF_SCENARIO:
        if option in given:
            raise InputError(f"{option} works only with the offloading problem, and --problem is {options.problem}")
    return True


def scenario(options: argparse.Namespace) -> Scenario:
    """The scenario that the options name."""
    return Scenario.load(options.scenario).override(
        tasks=options.tasks,
        stations=options.stations,
        slots=options.slots,
        capacity=options.capacity,
        steps=options.steps,
    )


def playable(options: argparse.Namespace) -> Scenario:
    """The scenario that the options name, which must have a workload and slots."""
    chosen = scenario(options)
    if chosen.workload is None:
        raise InputError(
            f"scenario {options.scenario} has no 'workload', so there is nothing to play; see replay --task-file"
        )
    if chosen.slots is None:
        raise InputError(f"scenario {options.scenario} has no 'slots', so an episode has no end; give --slots")
    return chosen


def checked_scenario(options: argparse.Namespace) -> Scenario | None:
    """The scenario of the offloading problem; None of another one. Loads no torch.

    Raises:
        InputError: no problem of that name, or another one is asked for with the options of a scenario.
    """
    return None if other_problem(options) else playable(options)


def problem(options: argparse.Namespace, chosen: Scenario | None, held: Holding | None = None) -> Problem:
    """The problem that the options name. Args: chosen: what `checked_scenario` gave. held: how requests are held."""
    if chosen is not None and held is not None:
        from diffpolicy.edge.dispatch.problem import HeldOffloadingProblem

        return HeldOffloadingProblem(chosen, held)
    if chosen is not None:
        from diffpolicy.edge.problem import OffloadingProblem

        return OffloadingProblem(chosen)
    from diffpolicy.experiments.problem_names import make_problem

    return make_problem(options.problem)


def print_json(data: dict[str, Any], options: argparse.Namespace) -> None:
    """One JSON object on stdout, with the version and the seed at its end."""
    try:
        text = json.dumps({**data, "version": __version__, "seed": options.seed}, allow_nan=False)
    except ValueError:
        raise InputError("a result is too large to be a finite number, so JSON cannot hold it") from None
    print(text)


def say(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr, flush=True)


def teller(options: argparse.Namespace) -> Callable[[str], None]:
    """What says on stderr how far a command is: nothing with `-q`."""
    return (lambda text: None) if options.quiet else say


def set_threads(count: int) -> None:
    """Threads of torch."""
    import torch

    torch.set_num_threads(count)
