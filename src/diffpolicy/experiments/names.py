"""From what a user types to a problem or a method: names, entry points, files, `module:attribute`.

Names are looked at without loading torch, so that a command can refuse a wrong one at once; only `make_problem` and
`make_method` import what they name.
"""

from __future__ import annotations

import copy
import os
from contextlib import suppress
from importlib import import_module as import_ours
from importlib import metadata, resources
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffpolicy import _validate as check
from diffpolicy._imports import import_attribute, is_attribute, meant_attribute, working_folder
from diffpolicy._read import what_is
from diffpolicy._suggest import meant
from diffpolicy.errors import InputError

if TYPE_CHECKING:
    from diffpolicy.environments.problem import Problem
    from diffpolicy.methods.method import Method

PROBLEMS = {
    "offloading": "diffpolicy.edge.problem:OffloadingProblem",
    "clinic": "diffpolicy.problems.clinic:problem",
    "held": "diffpolicy.edge.dispatch.env:problem",
    "power-allocation": "diffpolicy.problems.power_allocation:PowerAllocation",
    "split": "diffpolicy.problems.split:Split",
    "provider-selection": "diffpolicy.problems.provider_selection:ProviderSelection",
    "gang": "diffpolicy.problems.gang:Gang",
}
"""Built-in problems, by the name of what makes them. Texts, since the layers here know nothing of those above."""
PRESETS = {
    name: package
    for package, names in (
        (
            "diffpolicy.methods",
            (
                "d2sac",
                "d2sac-plus",
                "sac",
                "sac-plus",
                "dqn",
                "dqn-plus",
                "lad",
                "lad-plus",
                "ppo",
                "diffusion-ppo",
                "bc",
                "bc-plain",
                "qvpo",
                "qvpo-plain",
                "rl-d2",
                "rl-d2-onpolicy",
                "rl-d2-plain",
                "rl-d2-reverse",
                "rl-d2-reverse-plain",
                "qdfm",
                "qdfm-plain",
                "distill",
                "distill-plain",
                "fql",
                "fql-plain",
                "fpo",
                "dppo",
            ),
        ),
        (
            "diffpolicy.edge",
            (
                "lad-ts",
                "lad-ts-released",
                "d2sac-ts",
                "sac-ts",
                "dqn-ts",
                "lad-ts-plus",
                "plus-one-step",
                "plus-no-chain",
            ),
        ),
    )
    for name in names
}
"""Presets of methods, and the package in whose folder `presets` each lies."""
METHOD_NAMES = tuple(PRESETS)
GYM = "gym:"
GROUPS = {"problem": "diffpolicy.problems", "method": "diffpolicy.methods"}
"""Entry points by which other packages add what they have."""


def check_problem(text: str) -> str:
    """What kind of problem a text names, `built-in`, `gym`, `entry point` or `attribute`, without loading torch.

    Raises:
        InputError: none.
    """
    if not isinstance(text, str):
        raise InputError(f"a problem's name must be a text, got {check.show(text)}")
    if text in PROBLEMS:
        return "built-in"
    if text.startswith(GYM) and text != GYM:
        return "gym"
    if _entry_point("problem", text) is not None:
        return "entry point"
    if is_attribute(text):
        return "attribute"
    raise InputError(
        f"problem {check.show(text)} is neither one of {', '.join([*PROBLEMS, *entry_names('problem')])}, "
        f"nor gym:ID, nor module:attribute"
        f"{meant_attribute(text, 'problem') or meant(text, [*PROBLEMS, *entry_names('problem')])}"
    )


def make_problem(text: str) -> Problem:
    """Makes a problem from its name, `gym:ID` or `module:attribute`.

    Args:
        text: a built-in problem's name, an entry point of the group `diffpolicy.problems`, `gym:ID` of Gymnasium, or
            `module:attribute`. What stands there is a `Problem`; a class or function that makes one when it is called
            with nothing; or a function that makes environments, of which `EnvProblem` makes a problem.

    Returns:
        The problem, whose `reference` is that text, so that other processes find it too.

    Raises:
        InputError: nothing of that name, or it is none of these.

    Example:
        >>> problem = make_problem("offloading")
        >>> problem.cost.titled(), next(iter(problem.rules()))
        ('mean delay, s', 'opt-ts')
    """
    kind = check_problem(text)
    if kind == "gym":
        from diffpolicy.environments.gymnasium import gym_problem

        problem: Problem = gym_problem(text.removeprefix(GYM))
    else:
        problem = _as_problem(_found("problem", text, PROBLEMS.get(text)), text)
    named = copy.copy(problem)  # the user's own object may be frozen, and may have other names
    object.__setattr__(named, "reference", text)
    return named


def checked_problem(problem: Problem | str) -> Problem:
    """A problem, once it is found to be what experiments need; see `environments.check_problem`.

    Args:
        problem: one, or its name.

    Raises:
        InputError: nothing of that name, or one sentence that says what is wrong with its environment or its rules.
    """
    from diffpolicy.environments.problem_checks import check_problem as check_sound

    made = make_problem(problem) if isinstance(problem, str) else problem
    if not getattr(made, "sound", False):  # what is no problem has no such thing
        check_sound(made)
    return made


def _as_problem(value: Any, text: str) -> Problem:
    """A problem out of what a name stands for."""
    import inspect

    from torchrl.envs import EnvBase

    from diffpolicy.environments.env_problem import GIVEN, EnvProblem
    from diffpolicy.environments.gym_lane import as_lane, is_made, told_made
    from diffpolicy.environments.problem import Problem

    if isinstance(value, Problem):
        return value
    if is_made(value):
        raise InputError(f"problem {text} is {told_made(value)}")
    if not callable(value):
        raise InputError(
            f"problem {text} must be a Problem or a function that returns an environment, got {check.show(value)}"
        )
    makes_env = isinstance(value, type) and issubclass(value, EnvBase)
    makes_problem = isinstance(value, type) and issubclass(value, Problem)
    try:
        asks = set(inspect.signature(value).parameters) & set(GIVEN)
    except (TypeError, ValueError):
        asks = set()
    if makes_env or (not makes_problem and asks):
        return EnvProblem(value, name=text)
    try:
        inspect.signature(value).bind()
    except TypeError:
        lacking = ", ".join(name for name, p in inspect.signature(value).parameters.items() if p.default is p.empty)
        raise InputError(
            f"problem {text} must be a Problem, or make one or an environment from no arguments or from "
            f"{', '.join(GIVEN)}, got one that asks for {lacking}{_problem_beside(text)}"
        ) from None
    except ValueError:  # of what is written in C
        pass
    with working_folder():
        made = value()
    lane = as_lane(made)
    if isinstance(lane, EnvBase):
        with suppress(Exception):  # it was made to be looked at, and plays nothing that could fail
            lane.close(raise_if_closed=False)
        return EnvProblem(value, name=text)
    if not isinstance(made, Problem):
        raise InputError(f"problem {text} must make a Problem or an environment, got {check.show(made)}")
    return made


def _problem_beside(text: str) -> str:
    """`; did you mean mine:problem?` where a module holds a problem. Args: text: another thing of it."""
    import sys

    from diffpolicy.environments.problem import Problem

    name = text.partition(":")[0]
    there = [key for key, value in vars(sys.modules.get(name, sys)).items() if isinstance(value, Problem)]
    return f"; did you mean {name}:{there[0]}?" if there else ""


def check_method(text: str | PathLike[str]) -> str:
    """What kind of method a text names, `preset`, `file`, `entry point` or `attribute`, without loading torch.

    Raises:
        InputError: none.
    """
    text = _method_text(text)
    if text in PRESETS:
        return "preset"
    if Path(text).suffix in (".yaml", ".yml"):
        if what_is(text) != "file":
            raise InputError(f"method file {text} does not exist")
        return "file"
    if _entry_point("method", text) is not None:
        return "entry point"
    if is_attribute(text):
        return "attribute"
    raise InputError(
        f"method {check.show(text)} is neither a preset ({', '.join([*PRESETS, *entry_names('method')])}), "
        f"nor a YAML file, nor module:attribute"
        f"{_yaml_beside(text) or meant_attribute(text) or meant(text, [*PRESETS, *entry_names('method')])}"
    )


def _method_text(text: str | PathLike[str]) -> str:
    """What names a method as a text. Args: text: or the path of a file."""
    plain = os.fspath(text) if isinstance(text, PathLike) else text
    if not isinstance(plain, str):
        raise InputError(f"a method must be a Method or the name of one, got {check.show(text)}")
    return plain


def _yaml_beside(text: str) -> str:
    """`; did you mean mine.yaml?` where there is such a file. Args: text: a name without its end."""
    there = [f"{text}{end}" for end in (".yaml", ".yml") if what_is(f"{text}{end}") == "file"]
    return f"; did you mean {there[0]}?" if there else ""


def make_method(source: str | PathLike[str]) -> Method:
    """Makes a training method from its name, a YAML file or `module:attribute`.

    Args:
        source: a preset's name, a YAML file, an entry point of the group `diffpolicy.methods`, or `module:attribute`.

    Returns:
        The method, whose fields are what the file says; `dataclasses.replace` changes one.

    Raises:
        InputError: nothing of that name, or a file that does not describe a method.

    Example:
        >>> make_method("lad-ts").steps
        5
    """
    source = _method_text(source)
    kind = check_method(source)
    from diffpolicy.methods.files import parse_method
    from diffpolicy.methods.method import Method

    if kind in ("attribute", "entry point"):
        method = _found("method", source, None)
        if isinstance(method, type) and issubclass(method, Method):
            method = method()
        if not isinstance(method, Method):
            raise InputError(f"method {source} must be a diffpolicy.methods.Method, got {check.show(method)}")
        return method
    path = Path(source)
    if kind == "preset":
        path = Path(str(resources.files(import_ours(PRESETS[source])) / "presets" / f"{source}.yaml"))
    return parse_method(check.read_text(path, "method file"), str(path))


def entry_names(what: str) -> list[str]:
    """Names that other packages add. Args: what: `problem` or `method`."""
    return sorted({point.name for point in metadata.entry_points(group=GROUPS[what])})


def _entry_point(what: str, name: str) -> str | None:
    """What an entry point of a name stands for, `module:attribute`, or None."""
    points = metadata.entry_points(group=GROUPS[what])
    return next((point.value for point in points if point.name == name), None)


def _found(what: str, text: str, ours: str | None) -> Any:
    """The object of a built-in name, an entry point or `module:attribute`."""
    return import_attribute(ours or _entry_point(what, text) or text, what)
