"""The names that may stand where help says PROBLEM, METHOD, POLICY, SCENARIO or PROFILE. Loads no torch."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources

from diffpolicy.edge.names import HEURISTIC_NAMES, PRETRAINED_NAMES, SCENARIO_NAMES
from diffpolicy.environments.entrants import PRETRAINED
from diffpolicy.experiments.entry_points import entry_names
from diffpolicy.experiments.method_names import METHOD_NAMES
from diffpolicy.experiments.problem_names import PROBLEMS


@dataclass(frozen=True)
class Known:
    """What may stand somewhere. Args: kind: what `list` calls it. names: that there are. also: what else may stand."""

    kind: str
    names: Callable[[], list[str]]
    also: str


def profiles() -> list[str]:
    """Measured servers that come with the package."""
    files = resources.files("diffpolicy.edge.hardware") / "profiles"
    return sorted(f.name.removesuffix(".json") for f in files.iterdir() if f.name.endswith(".json"))


KNOWN: Mapping[str, Known] = {
    "PROBLEM": Known(
        "problems",
        lambda: [*PROBLEMS, *entry_names("problem")],
        "gym:ID of Gymnasium, or module:attribute: a Problem, or what makes one or makes an environment",
    ),
    "METHOD": Known(
        "methods", lambda: [*METHOD_NAMES, *entry_names("method")], "a YAML file, or module:attribute: a Method"
    ),
    "POLICY": Known(
        "policies",
        lambda: [*HEURISTIC_NAMES, *(PRETRAINED + name for name in PRETRAINED_NAMES)],
        "a policy's folder, or module:attribute; for another problem one of its rules, or random",
    ),
    "SCENARIO": Known("scenarios", lambda: list(SCENARIO_NAMES), "a JSON file"),
    "PROFILE": Known("profiles", profiles, "a JSON file"),
}
"""By the word that help puts in their place."""


def word_of(action: argparse.Action) -> str:
    """The word that stands for what an option takes, `METHOD` also where several may stand; empty where it has none."""
    return action.metavar.split(",")[0] if isinstance(action.metavar, str) else ""


def told(parser: argparse.ArgumentParser) -> Iterator[str]:
    """What may stand for each such word in a command's help, a paragraph each."""
    words = dict.fromkeys(word_of(action) for action in parser._actions)
    for word in words:
        if word in KNOWN:
            known = KNOWN[word]
            text = f"{word}: {', '.join(known.names())}; or {known.also}"
            yield textwrap.fill(text, 98, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
