"""From what a user types to a problem: a built-in name, `gym:ID`, an entry point or `module:attribute`.

Names are looked at without loading torch, so that a command can refuse a wrong one at once; only `make_problem`
imports what they name.
"""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from diffpolicy import _validate as check
from diffpolicy._imports import is_attribute, meant_attribute, working_folder
from diffpolicy._suggest import meant
from diffpolicy.errors import InputError
from diffpolicy.experiments.entry_points import entry_names, entry_point, import_named

if TYPE_CHECKING:
    from diffpolicy.environments.problem import Problem

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
GYM = "gym:"


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
    if entry_point("problem", text) is not None:
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
        problem = _as_problem(import_named("problem", text, PROBLEMS.get(text)), text)
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
