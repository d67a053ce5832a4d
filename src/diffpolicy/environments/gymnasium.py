"""Problems out of Gymnasium's registry, by id: `gym:CartPole-v1`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from tensordict import TensorDict, TensorDictBase
from torchrl.envs import EnvBase

from diffpolicy import _validate as check
from diffpolicy.environments.cost import Cost
from diffpolicy.environments.env_problem import EnvProblem
from diffpolicy.environments.gym_lane import is_made, observed_whole, one_decision
from diffpolicy.environments.problem import Problem
from diffpolicy.errors import InputError

RETURN = Cost("minus return")
OPTIONS = "?"
"""Between an id and the arguments of its environment."""


def gym_problem(
    name: str,
    *,
    options: Mapping[str, Any] | None = None,
    steps: int | None = None,
    rules: Mapping[str, Any] | None = None,
    cost: str | Cost = RETURN,
    version: str | None = None,
    transitions: Callable[[TensorDictBase], TensorDict] | None = None,
    methods: Sequence[str] = Problem.methods,
) -> EnvProblem:
    """Makes a problem from a registered Gymnasium environment, as a batch of seeded lanes; needs the extra `gym`.

    The cost of an episode is minus its return, and its steps are the registry's limit, or what `max_episode_steps`
    among the arguments says. With arguments an environment takes a step at once, as many are wrong only then.

    Args:
        name: the id, e.g. `CartPole-v1`, or with arguments of the environment `FrozenLake-v1?is_slippery=false`, with
            commas between them; what is no number, `true`, `false` or `null` is a text.
        options: further arguments of the environment, of any kind.
        steps: of an episode; None: the registry's limit. version: of the problem; None: Gymnasium's.
        rules, cost, transitions, methods: of `EnvProblem`.

    Returns:
        A problem called `gym:NAME`, whose default cost is called `minus return`.

    Raises:
        InputError: Gymnasium is not installed, or it does not know the id or an argument, or takes no step with it.

    Example:
        >>> gym_problem("CartPole-v1").steps
        500
        >>> gym_problem("FrozenLake-v1?is_slippery=false,map_name=8x8").name
        'gym:FrozenLake-v1?is_slippery=false,map_name=8x8'
    """
    if not isinstance(name, str):
        hint = "; EnvProblem takes what makes an environment of your own" if callable(name) or is_made(name) else ""
        raise InputError(f"the name of a problem of Gymnasium must be a string, got {check.show(name)}{hint}")
    plain, given = _apart(name)
    given |= options or {}
    for key, value in given.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"problem gym:{name}: {key} must be finite, got {value}")
    try:
        import gymnasium
    except ImportError:
        raise InputError(f"problem gym:{name} needs the extra 'gym': pip install -c constraints.txt '.[gym]'") from None
    try:
        limit = _tried(plain, given) if given else gymnasium.spec(plain).max_episode_steps
    except (gymnasium.error.Error, TypeError, ValueError, KeyError) as error:
        raise InputError(f"problem gym:{name} cannot be made: {' '.join(str(error).split())}") from None
    except Exception as error:  # with arguments that it did not foresee an environment raises anything
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"problem gym:{name} cannot be made: {said}") from None
    return EnvProblem(
        partial(make_gym, plain, given) if given else partial(make_gym, plain),
        name=f"gym:{_joined(plain, given)}",
        steps=limit if steps is None else steps,
        rules=rules,
        cost=cost,
        version=gymnasium.__version__ if version is None else version,
        transitions=transitions,
        methods=methods,
    )


def make_gym(name: str, options: Mapping[str, Any] | None = None, seed: int = 0, device: Any = None) -> EnvBase:
    """One lane of a Gymnasium environment.

    Args:
        name: its id. options: its arguments. seed: of its draws. device: of its tensors.
    """
    from torchrl.envs import GymEnv

    env = GymEnv(name, categorical_action_encoding=True, device=device, **(options or {}))
    env = observed_whole(one_decision(env, env.action_space), env.observation_space)
    env.set_seed(seed)
    return env


def _tried(name: str, options: Mapping[str, Any]) -> int | None:
    """The steps of an episode of an environment with arguments, with which it has taken a step. Args: of `make_gym`."""
    import gymnasium

    env = gymnasium.make(name, **options)
    try:
        env.reset(seed=0)
        env.action_space.seed(0)
        env.step(env.action_space.sample())
        return None if env.spec is None else env.spec.max_episode_steps
    finally:
        env.close()


def _apart(name: str) -> tuple[str, dict[str, Any]]:
    """An id, and the arguments that stand behind it. Args: name: `ID`, or `ID?KEY=VALUE,KEY=VALUE`."""
    plain, mark, rest = name.partition(OPTIONS)
    given: dict[str, Any] = {}
    for pair in rest.split(",") if mark else ():
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier() or key in given:
            raise InputError(f"problem gym:{name}: arguments must be KEY=VALUE, each key once, got {check.show(pair)}")
        given[key] = _value(value)
    return plain, given


def _value(text: str) -> Any:
    """What a text stands for: a number, `true`, `false` or `null`, else itself."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if value is None or isinstance(value, (bool, int, float)) else text


def _joined(name: str, given: Mapping[str, Any]) -> str:
    """What `_apart` takes apart."""
    pairs = [
        f"{key}={value if isinstance(value, str) else json.dumps(value, default=str)}" for key, value in given.items()
    ]
    return name + (OPTIONS + ",".join(pairs) if pairs else "")
