"""Options that several commands share, and checks that need no torch."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy._read import printable
from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.errors import InputError

if TYPE_CHECKING:
    from diffpolicy.environments.problem import Problem

MOST = 2**31 - 2
"""The greatest whole number that an option takes: what every generator here can draw up to."""


class Parser(argparse.ArgumentParser):
    """An argument parser that refuses with one sentence."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        """Prints the sentence and exits with 2."""
        self.exit(2, f"{self.prog}: {one_line(message)}; see {self.prog} --help\n")


def one_line(message: object) -> str:
    """A message on one line, in which nothing can move a terminal's cursor or colour its text."""
    return printable(" ".join(str(message).split()))


def check_name(text: str, option: str = "") -> None:
    """Refuses a word that can be neither a name nor a path.

    Args:
        text: the word. option: stands before it.

    Raises:
        InputError: it is empty, or holds a null character, or half of a surrogate pair that stands for no byte.
    """
    if not text:
        raise InputError(f"{option} is given '', which is no name, path or number".lstrip())
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise InputError(f"{check.show(text)} cannot be a name or a path: it is not text") from None
    if "\0" in text:
        raise InputError(f"{check.show(text)} cannot be a name or a path: it holds a null character")


def whole(least: int, most: int = MOST) -> Callable[[str], int]:
    """An option's type: a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number, got {check.show(text)}") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {text}")
        if value > most:
            raise argparse.ArgumentTypeError(f"must be at most {most}, got {text}")
        return value

    return parse


def positive(text: str) -> float:
    """An option's type: a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got {check.show(text)}") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a finite number above 0, got {text}")
    return value


def bounds(text: str) -> tuple[int, int]:
    """An option's type: LO:HI."""
    lo, _, hi = text.partition(":")
    try:
        return int(lo), int(hi)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be LO:HI in whole numbers, got {check.show(text)}") from None


def names(text: str) -> list[str]:
    """An option's type: A,B,C."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise argparse.ArgumentTypeError(f"must be names with commas between them, got {check.show(text)}")
    return parts


def add_common(parser: argparse.ArgumentParser) -> None:
    """`--seed`, `--threads`, `--json`."""
    parser.add_argument("--seed", type=whole(0), default=0, help="of everything that is drawn (default 0)")
    parser.add_argument(
        "--threads",
        type=whole(1, _limits.PROCESSES),
        default=1,
        help="of torch; more than one is slower on networks this small (default 1)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else")


def add_scenario(parser: argparse.ArgumentParser, *, overrides: bool = True) -> None:
    """`--scenario` and the overrides of the paper's knobs."""
    parser.add_argument(
        "--scenario",
        default="lad-ts",
        help="a built-in name (lad-ts, dedgeai, gpu-mix) or a JSON file (default lad-ts)",
    )
    if not overrides:
        return
    group = parser.add_argument_group("overrides, by the draws of the released code")
    group.add_argument(
        "--tasks", type=whole(1, _limits.TASKS), help="at most N tasks per station and slot", metavar="N"
    )
    group.add_argument("--stations", type=whole(1, _limits.SERVERS), help="B stations, each with a server", metavar="B")
    group.add_argument("--slots", type=whole(1, _limits.SLOTS), help="slots of an episode", metavar="T")
    group.add_argument("--capacity", type=bounds, help="capacities of U{LO..HI} Gcycles/s", metavar="LO:HI")
    group.add_argument("--steps", type=bounds, help="denoising steps of U{LO..HI-1}", metavar="LO:HI")


OF_SCENARIO = ("--scenario", "--tasks", "--stations", "--slots", "--capacity", "--steps")


def add_problem(parser: argparse.ArgumentParser) -> None:
    """`--problem`."""
    parser.add_argument(
        "--problem",
        default="offloading",
        help="offloading (default), an entry point, gym:ID, or module:attribute (a Problem or a maker)",
    )


def other_problem(options: argparse.Namespace) -> bool:
    """Whether another problem than offloading is meant, once its name and the options fit.

    Raises:
        InputError: it has no such name, or an option of the offloading problem is given with it.
    """
    from diffpolicy.experiments.names import check_problem

    if check_problem(options.problem) == "built-in":
        return False
    given = {word.split("=", 1)[0] for word in options.words}
    for option in OF_SCENARIO:
        if option in given:
            raise InputError(f"{option} belongs to the offloading problem, and --problem is {options.problem}")
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
            f"scenario {options.scenario} has no 'workload', so there is nothing to play; see replay --tasks"
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


def problem(options: argparse.Namespace, chosen: Scenario | None) -> Problem:
    """The problem that the options name. Args: chosen: what `checked_scenario` gave."""
    if chosen is not None:
        from diffpolicy.edge.problem import OffloadingProblem

        return OffloadingProblem(chosen)
    from diffpolicy.experiments.names import make_problem

    return make_problem(options.problem)


def print_json(data: Any) -> None:
    """One JSON object on stdout."""
    try:
        text = json.dumps(data, allow_nan=False)
    except ValueError:
        raise InputError("a figure is too large to be a number, so JSON cannot hold it") from None
    print(text)


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def set_threads(count: int) -> None:
    """Threads of torch."""
    import torch

    torch.set_num_threads(count)
