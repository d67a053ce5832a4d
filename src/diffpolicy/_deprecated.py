"""Names of before: all of them stand here, each with what is written instead. `docs/releasing.md` says when they go."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, ParamSpec

from diffpolicy.errors import InputError

_Arguments = ParamSpec("_Arguments")

OLD_NAMES = {
    "diffpolicy.CategoricalPolicy": "diffpolicy.FeedforwardPolicy",
    "diffpolicy.ChoicePolicy": "diffpolicy.Policy",
    "diffpolicy.edge.Fleet": "diffpolicy.edge.ServerSpeeds",
    "diffpolicy.edge.physics.Fleet": "diffpolicy.edge.ServerSpeeds",
    "diffpolicy.edge.physics.queueing.Fleet": "diffpolicy.edge.ServerSpeeds",
    "diffpolicy.objectives.StackedDQNLoss": "diffpolicy.objectives.AgentsDQNLoss",
    "diffpolicy.objectives.dqn.StackedDQNLoss": "diffpolicy.objectives.AgentsDQNLoss",
    "diffpolicy.policies.CategoricalPolicy": "diffpolicy.policies.FeedforwardPolicy",
    "diffpolicy.policies.ChoicePolicy": "diffpolicy.policies.Policy",
    "diffpolicy.policies.choice.ChoicePolicy": "diffpolicy.policies.Policy",
    "diffpolicy.policies.direct.CategoricalPolicy": "diffpolicy.policies.FeedforwardPolicy",
    **{
        f"diffpolicy.training.{name}": f"diffpolicy.{layer}.{name}"
        for layer, names in (
            ("methods", ("Method", "OffPolicyMethod", "SACMethod", "DiffusionSACMethod", "DQNMethod", "parse_method")),
            ("evaluation", ("Interval", "Played", "mean_interval", "play", "ratio_interval", "undisturbed")),
        )
        for name in names
    },
}
"""What Python code may still import, and what it should."""

MOVED = {
    "diffpolicy.edge.transitions": "diffpolicy.edge.env.transitions",
    **OLD_NAMES,
    **{
        f"diffpolicy.training.methods.{name}": f"diffpolicy.methods.{module}.{name}"
        for name, module in (
            ("Method", "method"),
            ("OffPolicyMethod", "off_policy"),
            ("SACMethod", "sac"),
            ("DiffusionSACMethod", "diffusion_sac"),
            ("DQNMethod", "dqn"),
        )
    },
    "diffpolicy.objectives.dqn.StackedDQNLoss": "diffpolicy.objectives.dqn.AgentsDQNLoss",
    "diffpolicy.policies.choice.ChoicePolicy": "diffpolicy.policies.policy.Policy",
    "diffpolicy.policies.direct.CategoricalPolicy": "diffpolicy.policies.direct.FeedforwardPolicy",
}
"""Modules, and names in modules, as files of earlier versions have them, and where they are now."""


OLD_KEYWORDS = {"stack": "agents"}
"""What networks may still be told, and describe themselves by in files of earlier versions, and what it is now."""


def moved(path: str) -> str:
    """An import path of an earlier version as it is today. Args: path: `package.module.thing`."""
    module, dot, name = path.rpartition(".")
    return MOVED.get(path) or f"{MOVED.get(module, module)}{dot}{name}"


def moved_in_file(path: str, where: str) -> str:
    """`moved`, of a path that a user's file holds; one of before is warned of, so that the user sees it.

    Args:
        path: `package.module.thing`. where: the file and its key, in the warning.
    """
    now = moved(path)
    if now != path:
        warnings.warn(f"{where}: {path} is {now} now; the old path will be removed", FutureWarning, stacklevel=2)
    return now


class OldNames(ModuleType):
    """A module that still has its names of `OLD_NAMES`, and warns where one is used.

    Type checkers do not see them: they find such a name before it is gone.
    """

    def __getattr__(self, name: str) -> Any:
        path = f"{self.__name__}.{name}"
        if path not in OLD_NAMES:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        module, _, now = OLD_NAMES[path].rpartition(".")
        value = getattr(importlib.import_module(module), now)
        level = 2 if type(self) is OldNames else 3  # the user's line, also where a package asks here
        warnings.warn(
            f"{path} is {module}.{now} now; the old name will be removed", DeprecationWarning, stacklevel=level
        )
        return value


def keep_old_names(module: str) -> None:
    """Gives a module its names of before. Args: module: its `__name__`."""
    sys.modules[module].__class__ = OldNames


def keeps_keywords(init: Callable[_Arguments, None]) -> Callable[_Arguments, None]:
    """A constructor that still takes the keywords of `OLD_KEYWORDS`, and warns of them.

    Args:
        init: the constructor, of the keywords of today.

    Raises:
        InputError: while it constructs: a keyword is given by both its names.
    """

    @functools.wraps(init)
    def taking(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        for old in OLD_KEYWORDS.keys() & kwargs.keys():
            now, name = OLD_KEYWORDS[old], type(args[0]).__name__
            if now in kwargs:
                raise InputError(f"{name}: {old} is {now} now; give {now} alone")
            warnings.warn(
                f"{name}: {old} is {now} now; the old keyword will be removed", DeprecationWarning, stacklevel=2
            )
            kwargs[now] = kwargs.pop(old)
        init(*args, **kwargs)

    return taking


class OldAttribute:
    """An attribute of before, which warns and gives what it is called now; a subclass may set one of that name.

    Args:
        now: its name.
    """

    def __init__(self, now: str) -> None:
        self._now = now

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, thing: object, owner: type) -> Any:
        if thing is None:
            return self
        name = type(thing).__name__
        said = f"{name}.{self._name} is {name}.{self._now} now; the old name will be removed"
        warnings.warn(said, DeprecationWarning, stacklevel=2)
        return getattr(thing, self._now)


def with_keywords_of(made: type, told: Mapping[str, Any]) -> dict[str, Any]:
    """What a file of ours, of any version, tells a constructor, by the keywords that it takes.

    Args:
        made: the class; one of a user's may take a keyword of before still. told: by keyword.
    """
    names = inspect.signature(made).parameters
    other = {**OLD_KEYWORDS, **{now: old for old, now in OLD_KEYWORDS.items() if old in names and now not in names}}
    return {key if key in names else other.get(key, key): value for key, value in told.items()}
