"""From what a user types to a policy or a method: names, files, folders, `module:attribute`."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from diffpolicy import _validate as check
from diffpolicy._imports import import_module, working_folder
from diffpolicy.edge.names import HEURISTIC_NAMES, METHOD_NAMES, PRETRAINED_NAMES
from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.errors import InputError


def make_policy(source: str | Path, scenario: Scenario, *, seed: int = 0) -> Any:
    """A policy for a scenario.

    Args:
        source: a heuristic's name; `pretrained:NAME`; a policy folder or either of its files; `module:attribute`, a
            tensordict module or a function of the scenario that makes one.
        scenario: gives the numbers of stations and servers.
        seed: of what the policy draws.

    Raises:
        InputError: nothing of that name, or the policy does not fit.
    """
    text = str(source)
    kind = check_policy(text)
    if kind == "heuristic":
        from diffpolicy.edge.rules.registry import HEURISTICS

        rule: Any = HEURISTICS[text](
            len(scenario.stations), len(scenario.servers), seed=seed, measured=scenario.measured
        )
        return rule.for_scenario(scenario) if hasattr(rule, "for_scenario") else rule
    if kind in ("file", "pretrained"):
        from diffpolicy.edge.pricing.policy import load_bundled
        from diffpolicy.policies import ChoicePolicy

        policy: Any = ChoicePolicy.load(text) if kind == "file" else load_bundled(text.removeprefix("pretrained:"))
        if hasattr(policy, "for_scenario"):
            policy.for_scenario(scenario)
        policy.generator.manual_seed(seed)
        return policy
    made = import_attribute(text, "policy")
    from torch import nn

    from diffpolicy._global_draws import global_draws
    from diffpolicy.policies import ChoicePolicy

    if not isinstance(made, nn.Module) and callable(made):
        with global_draws(seed):
            made = made(scenario)
        if isinstance(made, ChoicePolicy):
            made.reseed(seed)
    if not isinstance(made, nn.Module):
        raise InputError(
            f"policy {text} must be a tensordict module or a function of a scenario that makes one, "
            f"got {check.show(made)}"
        )
    return made


def resample(policy: Any, name: str, sampler: str | None, steps: int | None) -> Any:
    """The policy under another sampler, if one is asked for; heuristics and policies without a chain stay as they are.

    Raises:
        InputError: more steps than the policy's schedule has.
    """
    if (sampler is None and steps is None) or not hasattr(policy, "with_sampler"):
        return policy
    try:
        return policy.with_sampler(sampler or policy.sampler, steps)
    except InputError as error:
        raise InputError(f"policy {name}: {error}") from None


def check_policy(text: str) -> str:
    """What kind of policy a text names, `heuristic`, `pretrained`, `file` or `attribute`, without loading torch.

    Raises:
        InputError: none.
    """
    if text in HEURISTIC_NAMES:
        return "heuristic"
    path = Path(text)
    if path.is_dir():
        if not (path / "policy.json").is_file():
            raise InputError(f"policy folder {text} has no policy.json")
        return "file"
    if path.name in ("policy.json", "policy.safetensors") or path.suffix in (".json", ".safetensors"):
        if not path.is_file():
            raise InputError(f"policy file {text} does not exist")
        if path.name not in ("policy.json", "policy.safetensors"):
            raise InputError(f"a policy's files are called policy.json and policy.safetensors, got {text}")
        return "file"
    if text.startswith("pretrained:"):
        if text.removeprefix("pretrained:") in PRETRAINED_NAMES:
            return "pretrained"
        raise InputError(f"policy {check.show(text)} is not bundled; there are {', '.join(PRETRAINED_NAMES)}")
    if _is_attribute(text):
        return "attribute"
    raise InputError(
        f"policy {check.show(text)} is neither a heuristic ({', '.join(HEURISTIC_NAMES)}), nor pretrained:NAME, "
        "nor a policy folder, nor module:attribute"
    )


def make_method(source: str) -> Any:
    """A training method: a preset's name, a YAML file, or `module:attribute`.

    Raises:
        InputError: nothing of that name, or a file that does not describe a method.
    """
    kind = check_method(source)
    from diffpolicy.training.method_files import parse_method
    from diffpolicy.training.methods import Method

    if kind == "attribute":
        method = import_attribute(source, "method")
        if not isinstance(method, Method):
            raise InputError(f"method {source} must be a diffpolicy.training.Method, got {check.show(method)}")
        return method
    if kind == "preset":
        path = Path(str(resources.files("diffpolicy.edge") / "presets" / f"{source}.yaml"))
    else:
        path = Path(source)
    return parse_method(check.read_text(path, "method file"), str(path))


def check_method(text: str) -> str:
    """What kind of method a text names, `preset`, `file` or `attribute`, without loading torch.

    Raises:
        InputError: none.
    """
    if text in METHOD_NAMES:
        return "preset"
    if Path(text).suffix in (".yaml", ".yml"):
        if not Path(text).is_file():
            raise InputError(f"method file {text} does not exist")
        return "file"
    if _is_attribute(text):
        return "attribute"
    raise InputError(
        f"method {check.show(text)} is neither a preset ({', '.join(METHOD_NAMES)}), "
        "nor a YAML file, nor module:attribute"
    )


def _is_attribute(text: str) -> bool:
    module, _, attribute = text.partition(":")
    return bool(attribute) and all(part.isidentifier() for part in f"{module}.{attribute}".split("."))


def import_attribute(text: str, what: str) -> Any:
    """The object that `module:attribute` names; modules are looked for in the working folder first.

    Importing a module runs it. What it draws from global generators is always the same; these and `sys.path` are left
    as they were.

    Args:
        text: the name. what: it is of, in messages.

    Raises:
        InputError: no such module or attribute, or the module fails.
    """
    module_name, _, path = text.partition(":")
    from diffpolicy._global_draws import global_draws

    with working_folder(), global_draws(seed=0):
        module = import_module(module_name, f"{what} {text}")
    value: Any = module
    for name in path.split("."):
        try:
            value = getattr(value, name)
        except AttributeError:
            raise InputError(f"{what} {text}: {module_name} has no attribute {path!r}") from None
    return value
