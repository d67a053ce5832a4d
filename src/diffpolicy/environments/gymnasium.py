"""Problems out of Gymnasium's registry, by id: `gym:CartPole-v1`."""

from __future__ import annotations

from functools import partial
from typing import Any

from torchrl.envs import EnvBase

from diffpolicy.environments.cost import Cost
from diffpolicy.environments.env_problem import EnvProblem
from diffpolicy.errors import InputError


def gym_problem(name: str, **options: Any) -> EnvProblem:
    """A registered Gymnasium environment as a problem: a batch of seeded one-lane environments; needs the extra `gym`.

    The cost of an episode is minus its return, and its steps are the registry's limit.

    Args:
        name: the id, e.g. `CartPole-v1`. options: of `EnvProblem`, e.g. `rules`.

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
        **{"steps": limit, "cost": Cost("minus return"), "version": gymnasium.__version__, **options},
    )


def make_gym(name: str, seed: int = 0, device: Any = None) -> EnvBase:
    """One lane of a Gymnasium environment. Args: name: its id. seed: of its draws. device: of its tensors."""
    from torchrl.envs import GymEnv

    env = GymEnv(name, categorical_action_encoding=True, device=device)
    env.set_seed(seed)
    return env
