"""From what a user types to a policy: names, files, folders, `module:attribute`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from diffpolicy.edge.names import HEURISTIC_NAMES, PRETRAINED_NAMES
from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.errors import InputError

if TYPE_CHECKING:
    from diffpolicy.policies.protocols import Decides


def make_policy(source: str | Path, scenario: Scenario, *, seed: int = 0) -> Decides:
    """Makes a policy for a scenario from its name, a folder or `module:attribute`.

    Args:
        source: a heuristic's name; `pretrained:NAME`; a policy folder or either of its files; `module:attribute`, a
            tensordict module or a function of the scenario that makes one.
        scenario: gives the numbers of stations and servers.
        seed: of what the policy draws.

    Returns:
        A tensordict module that reads what its `information` level shows and writes `("agents", "action")`.

    Raises:
        InputError: nothing of that name, or the policy does not fit.

    Example:
        >>> make_policy("opt-ts", Scenario.load("lad-ts")).information
        'live'
    """
    from diffpolicy.edge.problem import OffloadingProblem
    from diffpolicy.environments import entrants

    return entrants.make_policy(source, OffloadingProblem(scenario), seed=seed)


def resample(policy: Decides, name: str, sampler: str | None, steps: int | None) -> Decides:
    """The policy under another sampler, if one is asked for; heuristics and policies without a chain stay as they are.

    Raises:
        InputError: more steps than the policy's schedule has.
    """
    from diffpolicy.policies.protocols import Resampled

    if (sampler is None and steps is None) or not isinstance(policy, Resampled):
        return policy
    try:
        return policy.with_sampler(sampler or policy.sampler, steps)
    except InputError as error:
        raise InputError(f"policy {name}: {error}") from None


def check_policy(text: str) -> str:
    """What kind of policy a text names, see `environments.entrants.check_policy`, without loading torch.

    Raises:
        InputError: none.
    """
    from diffpolicy.environments import entrants

    return entrants.check_policy(text, HEURISTIC_NAMES, PRETRAINED_NAMES)
