"""Problems out of Gymnasium's registry, by id: `gym:CartPole-v1`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from tensordict import TensorDict, TensorDictBase
from torchrl.envs import EnvBase

from diffpolicy.environments.cost import Cost
from diffpolicy.environments.env_problem import EnvProblem
from diffpolicy.environments.problem import Problem
from diffpolicy.errors import InputError

RETURN = Cost("minus return")


def gym_problem(
    name: str,
    *,
    steps: int | None = None,
    rules: Mapping[str, Any] | None = None,
    cost: str | Cost = RETURN,
    version: str | None = None,
    transitions: Callable[[TensorDictBase], TensorDict] | None = None,
    methods: Sequence[str] = Problem.methods,
) -> EnvProblem:
    """A registered Gymnasium environment as a problem: a batch of seeded one-lane environments; needs the extra `gym`.

    The cost of an episode is minus its return, and its steps are the registry's limit.

    Args:
        name: the id, e.g. `CartPole-v1`.
        steps: of an episode; None: the registry's limit. version: of the problem; None: Gymnasium's.
        rules, cost, transitions, methods: of `EnvProblem`.

    Returns:
        A problem called `gym:NAME`, whose default cost is called `minus return`.

    Raises:
        InputError: Gymnasium is not installed, or it does not know the id.

    Example:
        >>> gym_problem("CartPole-v1").steps
        500
    """
    try:
        import gymnasium
    except ImportError:
        raise InputError(f"problem gym:{name} needs Gymnasium; install the extra 'gym'") from None
    try:
        limit = gymnasium.spec(name).max_episode_steps
    except gymnasium.error.Error as error:
        raise InputError(f"problem gym:{name} cannot be made: {' '.join(str(error).split())}") from None
    return EnvProblem(
        partial(make_gym, name),
        name=f"gym:{name}",
        steps=limit if steps is None else steps,
        rules=rules,
        cost=cost,
        version=gymnasium.__version__ if version is None else version,
        transitions=transitions,
        methods=methods,
    )


def make_gym(name: str, seed: int = 0, device: Any = None) -> EnvBase:
    """One lane of a Gymnasium environment. Args: name: its id. seed: of its draws. device: of its tensors."""
    from torchrl.envs import GymEnv

    env = GymEnv(name, categorical_action_encoding=True, device=device)
    env.set_seed(seed)
    return env
