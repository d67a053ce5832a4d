"""`evaluate`: policies on identical episodes of any problem, by its name too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from diffpolicy.environments.problem import Problem
from diffpolicy.evaluation import evaluating
from diffpolicy.evaluation.evaluating import Evaluation
from diffpolicy.experiments.problem_names import checked_problem
from diffpolicy.policies.protocols import Decides


def evaluate(
    problem: Problem | str,
    policies: Mapping[str, Decides] | Sequence[str | Path],
    episodes: int = 16,
    seed: int = 0,
    baseline: str | None = None,
    heard: Callable[[str, float], None] | None = None,
) -> Evaluation:
    """Plays policies on identical episodes and compares them with a baseline, once the problem is found sound.

    Args:
        problem: one, or its name.
        policies, episodes, seed, baseline, heard: of `diffpolicy.evaluation.evaluate`.

    Returns:
        A `Result` of each policy beside the baseline; `table()` shows them, `to_dict()` is what `--json` prints.

    Raises:
        InputError: nothing of a name, or the problem, a policy or a number does not fit.

    Example:
        >>> problem = EnvProblem(Clinic, steps=50, rules={"longest": longest_queue}, cost="waiting")
        >>> found = evaluate(problem, ["random"], episodes=4)
        >>> found.baseline, found.results["random"].costs.count
        ('longest', 4)
    """
    return evaluating.evaluate(checked_problem(problem), policies, episodes, seed, baseline, heard)
