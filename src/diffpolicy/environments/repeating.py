"""Whether one seed always gives the same episodes, found out by playing the beginning of one twice."""

from __future__ import annotations

from contextlib import suppress

import torch
from tensordict import TensorDictBase
from torch import Tensor

from diffpolicy._global_draws import global_draws
from diffpolicy.environments.given_env import GivenEnv
from diffpolicy.environments.problem import Problem
from diffpolicy.environments.random_rule import RandomRule

STEPS = 50
"""Of an episode that are played twice, at most."""


def repeats(problem: Problem, seed: int = 0) -> bool:
    """Whether the first episode on which policies are judged is the same when it is played again.

    Two environments of it are led by the same random actions for a few steps. One that draws from the process's global
    generators finds them elsewhere the second time, as a policy that draws from them too would leave them.

    Args:
        problem: that is known to be sound, or one that `play_episodes` plays. seed: of its episodes.

    Returns:
        Whether both show the same; True where they cannot be led so.

    Example:
        >>> repeats(EnvProblem(Clinic, steps=50))
        True
    """
    if isinstance(problem, GivenEnv):  # its one environment goes on from where it is
        return False
    if problem.sound:
        return True
    with global_draws():
        try:
            first, again = (_beginning(problem, seed) for _ in range(2))
            return all(map(same, first, again))
        except Exception:  # an environment that random actions break tells nothing
            return True


def same(a: TensorDictBase, b: TensorDictBase) -> bool:
    """Whether two rollouts or states show the same; NaN, by which some mark what is not there, is the same as NaN."""
    pairs = ((value, b[key]) for key, value in a.items(True, True) if isinstance(value, Tensor))
    return all(torch.equal(x.nan_to_num(), y.nan_to_num()) and torch.equal(x.isnan(), y.isnan()) for x, y in pairs)


def _beginning(problem: Problem, seed: int) -> list[TensorDictBase]:
    """What a reset and a few steps at random show, in an environment that is closed again. Args: of `repeats`."""
    env = problem.make_episodes(0, 1, seed)
    try:
        root, rule = env.reset(), RandomRule(env)
        shown = [root.clone()]
        for _ in range(STEPS if problem.steps is None else min(STEPS, problem.steps)):
            step, root = env.step_and_maybe_reset(rule(root))
            shown.append(step.clone())
        return shown
    finally:
        with suppress(Exception):  # nothing is played in it any more
            env.close(raise_if_closed=False)
