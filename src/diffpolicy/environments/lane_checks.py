"""Whether the lanes of a batched environment are episodes of their own, found out by what it does."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase, ParallelEnv, SerialEnv

from diffpolicy._global_draws import global_draws, seed_globals
from diffpolicy.environments.lanes import Lanes
from diffpolicy.environments.random_rule import RandomRule
from diffpolicy.environments.repeating import same
from diffpolicy.errors import InputError
from diffpolicy.policies.nested_keys import beside
from diffpolicy.policies.protocols import bare

SEED = 0
PREFIXES = (2, 1, 3, 4)
"""Steps before each try."""
Outcomes = tuple[TensorDictBase, TensorDictBase, TensorDictBase]


def begins_all(make: Callable[[], EnvBase]) -> bool:
    """Whether a reset of the first lane begins the second anew too.

    Three environments play the same. Then the first lane is reset in one, none in another, all in the third, what they
    draw is seeded alike, and each takes a step by the same actions. Where `_reset` does not ask which lanes it is to
    begin, the second lane shows in the first what it does in the third, and not what it does in the second.

    Args:
        make: gives an environment, each time the same.
    """
    return _alike(make, _reset_apart)


def follows_first(make: Callable[[], EnvBase]) -> bool:
    """Whether the second lane does what the first one's action says, whatever its own is. Args: make: as above.

    Three environments play the same; then each takes a step, by two actions, by the first of them, and by the second.
    """
    return _alike(make, _acted_apart)


def check_ends_apart(env: EnvBase) -> None:
    """Refuses an environment whose lanes end apart and that begins all of them anew where one is to begin.

    It is asked at the first such end, of copies; one that cannot be copied, or that is put together of environments of
    one lane each, is taken as it is.

    Raises:
        InputError: names the environment, and says what `_reset` is to do.
    """
    base = bare(env)
    if isinstance(base, (Lanes, SerialEnv, ParallelEnv)):
        return
    try:
        first = copy.deepcopy(base)
    except Exception:  # whatever a simulator says to that
        return
    if begins_all(lambda: copy.deepcopy(first)):
        raise InputError(f"{reset_fault(base)}; here its lanes end at different times")


def reset_fault(env: EnvBase) -> str:
    """What is wrong with a `_reset` that begins all lanes, as the beginning of a sentence."""
    return (
        f"_reset of {type(env).__name__} resets all lanes where only some are to be reset; it must reset those that "
        "tensordict['_reset'] names, and leave the others as they are"
    )


def _alike(make: Callable[[], EnvBase], tries: Callable[[list[EnvBase], int], Outcomes | None]) -> bool:
    """Whether what the second lane does is in some try unlike the second outcome, and in none unlike the third.

    The first and third outcomes are alike where the fault is, whatever an environment draws. Where it is not, the
    first and second are, unless lanes change how much others draw; that alone is no evidence.
    """
    found = False
    with global_draws(SEED):
        try:
            envs = [make() for _ in range(3)]
            if not envs[0].batch_size or envs[0].batch_size[0] < 2:
                return False
            for steps in PREFIXES:
                outcomes = tries(envs, steps)
                if outcomes is None:
                    continue
                mixed, apart, common = (outcome[1] for outcome in outcomes)
                if not same(mixed, common):
                    return False
                found = found or not same(mixed, apart)
        except Exception:  # an environment that cannot be led so tells nothing, and it is played in earnest soon
            return False
    return found


def _reset_apart(envs: list[EnvBase], steps: int) -> Outcomes | None:
    """What a step shows after a reset of the first lane, of none, and of all; None: they had not played the same."""
    roots = [_after(env, steps) for env in envs]
    if not all(same(roots[0], root) for root in roots):
        return None
    first = torch.arange(envs[0].batch_size[0]) == 0
    roots[0] = _begun(envs[0], roots[0], first)
    roots[2] = _begun(envs[2], roots[2], torch.ones_like(first))
    mixed, own = (RandomRule(envs[k])(roots[k].clone()) for k in range(2))
    actions = [mixed, mixed.clone(), mixed]
    for key in envs[0].action_keys:  # a lane that was not reset may be allowed something else than one that was
        actions[1][key][0] = own[key][0]
    return _stepped(envs, roots, actions)


def _acted_apart(envs: list[EnvBase], steps: int) -> Outcomes | None:
    """What a step shows by the actions (a, b), (b, b) and (a, a); None: they had not played the same."""
    roots = [_after(env, steps) for env in envs]
    if not all(same(roots[0], root) for root in roots):
        return None
    actions = [RandomRule(envs[0])(roots[0].clone()) for _ in envs]
    for key in envs[0].action_keys:
        actions[1][key][0], actions[2][key][1] = actions[1][key][1].clone(), actions[2][key][0].clone()
    return _stepped(envs, roots, actions)


def _after(env: EnvBase, steps: int) -> TensorDictBase:
    """Where steps at random lead to. Args: steps: how many."""
    _seed(env)
    root, rule = env.reset(), RandomRule(env)
    for _ in range(steps):
        _, root = env.step_and_maybe_reset(rule(root))
    return root


def _begun(env: EnvBase, root: TensorDictBase, lanes: Tensor) -> TensorDictBase:
    """Where a reset of some lanes leads to. Args: root: before it. lanes: which, bool `[E]`."""
    for key in env.reset_keys:
        like = root.get(beside(key, "done"))
        root.set(key, lanes.view(-1, *[1] * (like.ndim - 1)).to(like.device).expand_as(like).clone())
    _seed(env)
    return env.reset(root, select_reset_only=True)


def _stepped(envs: list[EnvBase], roots: list[TensorDictBase], actions: list[TensorDictBase]) -> Outcomes:
    """What each environment shows after a step, whatever it has drawn before."""

    def shown() -> Iterator[Any]:
        for env, root, action in zip(envs, roots, actions, strict=True):
            _seed(env)
            yield env.step(root.clone().update(action.select(*env.action_keys)))["next"]

    first, second, third = shown()
    return first, second, third


def _seed(env: EnvBase) -> None:
    """Seeds what an environment draws, from generators of its own or the process's."""
    env.set_seed(SEED)
    seed_globals(SEED)
