"""From what a user types to a policy of a problem: rules, `pretrained:NAME`, folders, `module:attribute`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffpolicy import _validate as check
from diffpolicy._imports import import_attribute, is_attribute, meant_attribute
from diffpolicy._read import what_is
from diffpolicy._suggest import meant
from diffpolicy.errors import InputError

if TYPE_CHECKING:
    from diffpolicy.environments.problem import Problem
    from diffpolicy.policies.protocols import Decides

PRETRAINED = "pretrained:"


def check_policy(text: str, rules: Sequence[str], bundled: Sequence[str]) -> str:
    """What kind of policy a text names, `rule`, `pretrained`, `file` or `attribute`, without loading torch.

    Args:
        text: the name. rules, bundled: names of the problem's rules, and of the trained policies that come with it.

    Raises:
        InputError: none.
    """
    if text in rules:
        return "rule"
    if not text:
        raise InputError("a policy must be named, got ''")
    path = Path(text)
    if what_is(path) == "folder":
        if not (path / "policy.json").is_file():
            raise InputError(f"policy folder {text} has no policy.json{_seeds(path)}")
        return "file"
    if path.name in ("policy.json", "policy.safetensors") or path.suffix in (".json", ".safetensors"):
        if what_is(path) != "file":
            raise InputError(f"policy file {text} does not exist")
        if path.name not in ("policy.json", "policy.safetensors"):
            raise InputError(f"a policy's files are called policy.json and policy.safetensors, got {text}")
        return "file"
    if text.startswith(PRETRAINED):
        if text.removeprefix(PRETRAINED) in bundled:
            return "pretrained"
        there = ", ".join(bundled) or "none"
        near = meant(text, [PRETRAINED + name for name in bundled])
        raise InputError(f"policy {check.show(text)} is not bundled; there are {there}{near}")
    if is_attribute(text):
        return "attribute"
    near = _run_beside(text) or meant_attribute(text) or meant(text, [*rules, *(PRETRAINED + name for name in bundled)])
    raise InputError(
        f"policy {check.show(text)} is neither a rule ({', '.join(rules)}), nor pretrained:NAME, "
        f"nor a policy folder, nor module:attribute{near}"
    )


def _run_beside(text: str) -> str:
    """`; did you mean runs/mine?` where `train` has left a policy of that name. Args: text: what was typed."""
    path = Path("runs") / text
    return f"; did you mean {path}?" if what_is(path / "policy.json") == "file" else ""


def _seeds(path: Path) -> str:
    """The folders of a policy's seeds, as `compare` writes them, where there are any. Args: path: of the folder."""
    found = sorted((p.parent for p in path.glob("seed-*/policy.json")), key=lambda p: (len(p.name), p.name))
    return f"; it has {', '.join(map(str, found))}" if found else ""


def rules_of(problem: Problem) -> Mapping[str, Callable[[int], Decides]]:
    """A problem's rules, and `random` after them where it has none of that name; the first is the baseline."""
    from diffpolicy.environments.random_rule import RandomRule

    rules = dict(problem.rules())
    rules.setdefault("random", lambda seed: RandomRule(problem.make_env(), seed))
    return rules


def make_policy(source: str | Path, problem: Problem, *, seed: int = 0) -> Decides:
    """Makes a policy for a problem from its name, a folder or `module:attribute`.

    Args:
        source: a rule's name, `random` always being one; `pretrained:NAME`; a policy folder or either of its files;
            `module:attribute`, a tensordict module or a function that makes one of the problem (of the scenario,
            where it is offloading).
        problem: what it is to decide.
        seed: of what the policy draws.

    Returns:
        A tensordict module, or a function of a tensordict.

    Raises:
        InputError: nothing of that name, or the policy does not fit.

    Example:
        >>> policy = make_policy("random", EnvProblem(Clinic, steps=50), seed=1)
        >>> policy(Clinic(4).reset())["action"].shape
        torch.Size([4])
    """
    text = str(source)
    rules, bundled = rules_of(problem), problem.policies()
    kind = check_policy(text, tuple(rules), tuple(bundled))
    if kind == "rule":
        return rules[text](seed)
    if kind == "pretrained":
        return bundled[text.removeprefix(PRETRAINED)](seed)
    from diffpolicy.policies import SavedPolicy

    if kind == "file":
        policy = SavedPolicy.load(text)
        policy.generator.manual_seed(seed)
        return problem.prepare(policy)
    return _made(text, problem, seed)


def _made(text: str, problem: Problem, seed: int) -> Decides:
    """What `module:attribute` names."""
    from torch import nn

    from diffpolicy._global_draws import global_draws
    from diffpolicy.policies import SavedPolicy

    made: Any = import_attribute(text, "policy")
    if not isinstance(made, nn.Module) and callable(made):
        with global_draws(seed):
            made = made(problem.subject)
        if isinstance(made, SavedPolicy):
            made.reseed(seed)
    if isinstance(made, type) or not callable(made):
        raise InputError(
            f"policy {text} must be a tensordict module or a function of {problem.given} that makes a policy, "
            f"got {check.show(made)}"
        )
    decides: Decides = made
    return decides
