"""`check_problem`: whether a problem can be trained on and compared, by a few steps of environments of its own."""

from __future__ import annotations

import itertools
import math
import warnings
from contextlib import suppress
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.envs import EnvBase

from diffpolicy import _validate as check
from diffpolicy.environments.arguments import kept_arguments, taken_by
from diffpolicy.environments.checks import REUSED, TOUCHED, check_acts, check_env, check_untouched
from diffpolicy.environments.chosen import choices_of
from diffpolicy.environments.ends import ended
from diffpolicy.environments.env_problem import EnvProblem
from diffpolicy.environments.gym_lane import SHARED, is_made
from diffpolicy.environments.lane_checks import begins_all, follows_first, reset_fault
from diffpolicy.environments.lanes import Lanes
from diffpolicy.environments.problem import Problem
from diffpolicy.environments.random_rule import RandomRule
from diffpolicy.environments.repeating import same
from diffpolicy.environments.spec_checks import (
    actions_of,
    check_raw_shapes,
    check_same_actions,
    check_values,
    warn_of_bounds,
)
from diffpolicy.environments.state import saves_state
from diffpolicy.errors import InputError
from diffpolicy.policies.keys import Keys
from diffpolicy.policies.nested_keys import group_of, last_of, plain
from diffpolicy.policies.recurrent import with_recurrent_state

LANES, STEPS, ACTS = 2, 2, 4
READ = ("observation", "action", "reward", ("next", "observation"))
"""What every objective reads of transitions."""


def check_problem(problem: Any) -> None:
    """Whether a problem's environment, transitions and rules are what training and comparing need.

    It makes environments of two lanes and plays a few steps at random, and a few of each rule. It warns where two
    seeds give the same, where one seed does not give the same again, and where a reset of one lane begins all anew,
    which is right as long as all end together; training and playing refuse that as soon as they do not.

    Args:
        problem: a `Problem`.

    Raises:
        InputError: one sentence that names the problem or environment, the key and the value.

    Example:
        >>> check_problem(EnvProblem(Clinic, steps=50, rules={"longest": longest_queue}))
        >>> check_problem(EnvProblem(Clinic, steps=50, rules={"all": lambda td: td.set("action", td["observation"])}))
        Traceback (most recent call last):
        diffpolicy.errors.InputError: 'action' of rule 'all' must have shape [2], got [2, 3]
    """
    if is_made(problem) or (isinstance(problem, type) and issubclass(problem, EnvBase)):
        name = problem.__name__ if isinstance(problem, type) else type(problem).__name__
        raise InputError(f"a problem must be a Problem, such as EnvProblem({name}), got the environment itself")
    if not isinstance(problem, Problem):
        raise InputError(f"a problem must be a Problem, such as EnvProblem(make_env), got {check.show(problem)}")
    if problem.steps is not None:
        check.integer(problem.steps, f"steps of problem {problem.name}", least=1)
    env = problem.make_env(LANES, 0)
    check_env(env)
    if tuple(env.batch_size) != (LANES,):
        raise InputError(
            f"problem {problem.name}: make_env({LANES}) must give batch [{LANES}], got {list(env.batch_size)}"
        )
    keys, called, actions = Keys.of(env), _called(problem, env), actions_of(env)
    rollout = _played(env, problem.steps, called)
    check_same_actions(env, actions, called)
    _check_raw(problem, env, called)
    _check_transitions(problem, rollout, keys)
    _check_rules(problem)
    if problem.make_env(LANES, 0) is env:
        raise InputError(f"problem {problem.name}: make_env {SHARED}")
    warn_of_bounds(env, rollout, called)
    _check_seeds(problem, rollout)
    _check_description(problem)
    if not isinstance(env, Lanes):
        _check_lanes(problem)


def _called(problem: Problem, env: EnvBase) -> str:
    """What sentences call an environment. Args: problem: its. env: of it, as it was made."""
    return problem.name if isinstance(env, Lanes) else type(env).__name__


def _within(steps: int, problem_steps: int | None) -> range:
    """As many steps as are to be looked at, but none past an episode's last, which there need not be."""
    return range(steps if problem_steps is None else min(steps, problem_steps))


@torch.no_grad()  # as training and evaluation play
def _played(env: EnvBase, most: int | None, called: str | None = None) -> TensorDict:
    """Steps at random, `[E, T]`, each compared with the specs, and with itself after the others.

    Args:
        env: that is played. most: steps of an episode. called: what sentences call it; None: its class.
    """
    name, rule, steps = called or type(env).__name__, RandomRule(env), []
    td = _done(env.reset, f"a reset of {name}")
    for specs in (env.full_observation_spec, env.full_done_spec):
        check_values(td, specs, f"a reset of {name}")
    given = [(td, td.clone())]
    for _ in _within(STEPS, most):
        acting = rule(td.clone())
        step, td = _stepped(env, acting, name)
        check_untouched(step, acting, f"a step of {name} {TOUCHED}")
        steps.append(step)
        given.append((step, step.clone()))
    _done(env.reset, f"a reset of {name}")
    for now, before in given:
        check_untouched(now, before, f"what {name} gave as {{key!r}} {REUSED}")
    result: TensorDict = torch.stack([before for _, before in given[1:]], 1)
    return result


def _stepped(env: EnvBase, acting: TensorDictBase, name: str) -> tuple[TensorDictBase, TensorDictBase]:
    """A step, and the root of the next one."""
    every = (env.full_observation_spec, env.full_done_spec, env.full_reward_spec)
    try:
        step, root = env.step_and_maybe_reset(acting.clone())
    except Exception as error:
        _check_place(env, acting, name)
        # what TorchRL stumbles over stands in what the environment itself gives
        raw = _done(lambda: env._step(acting.clone()), f"a step of {name}")
        for specs in every:
            check_values(raw, specs, f"a step of {name}")
        raise InputError(f"a step of {name} failed: {type(error).__name__}: {str(error).splitlines()[0]}") from error
    for specs in every:
        check_values(step.get("next"), specs, f"a step of {name}")
    return step, root


def _check_raw(problem: Problem, played: EnvBase, name: str) -> None:
    """Whether rewards and ends have their order before TorchRL views them as of their shapes.

    Args:
        problem: whose environment. played: one of it. name: of it.
    """
    if isinstance(played, Lanes) or type(played)._step.__module__.startswith("torchrl."):
        return  # of one lane nothing can be turned, and TorchRL's wrappers leave their shapes to it
    specs = (*played.full_reward_spec.values(True, True), *played.full_done_spec.values(True, True))
    others = {size for spec in specs for size in spec.shape[1:]}
    env = problem.make_env(next(n for n in itertools.count(LANES) if n not in others), 0)  # of 2 by 2 it cannot be told
    raw: TensorDictBase | None = None
    with suppress(Exception):  # a step that fails was told before, and `_step` alone need not go
        raw = env._step(RandomRule(env)(env.reset()))
    for specs in (env.full_reward_spec, env.full_done_spec):
        check_raw_shapes(raw if raw is not None else TensorDict(), specs, f"a step of {name}")


def _check_place(env: EnvBase, acting: TensorDictBase, name: str) -> None:
    """Refuses an action that the step, which failed, finds elsewhere than where its spec has it.

    Args:
        env: whose. acting: what the step was given. name: of it.
    """
    if _steps(env, acting):
        return  # and TorchRL stumbled over what came of it
    groups = {(), *(group_of(plain(key)) for key in env.full_observation_spec.keys(True, True))}
    for key in map(plain, env.action_keys):
        for group in sorted(groups - {group_of(key)}):
            other, moved = plain((*group, last_of(key))), None
            with suppress(Exception):  # a shape that does not fit there
                moved = acting.clone().set(other, acting[key])
            if moved is not None and _steps(env, moved):
                place = "the root" if not group else f"the Composite of {group[-1]!r}"
                raise InputError(
                    f"a step of {name} reads its action at {other!r}, and the action_spec has it at {key!r}; put the "
                    f"spec under {place}, where the step reads it"
                )


def _steps(env: EnvBase, acting: TensorDictBase) -> bool:
    """Whether a step goes well. Args: env: whose. acting: what it is given."""
    try:
        env._step(acting.clone())
    except Exception:  # it fails of something else
        return False
    return True


def _done(work: Any, what: str) -> TensorDictBase:
    """What an environment gives; a failure of it in one sentence."""
    try:
        result: TensorDictBase = work()
        return result
    except InputError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(f"{what} failed: {type(error).__name__}: {reason}") from error


def _check_transitions(problem: Problem, rollout: TensorDict, keys: Keys) -> None:
    """Whether transitions are a tensordict of the rollout's lanes, with what every objective reads."""
    rows: Any = _done(lambda: problem.transitions(rollout.clone(), keys), f"transitions of problem {problem.name}")
    if not isinstance(rows, TensorDictBase):
        raise InputError(f"transitions of problem {problem.name} must give a TensorDict, got {check.show(rows)}")
    for key in READ:
        if rows.get(key, None) is None:
            raise InputError(f"transitions of problem {problem.name} do not give {key!r}")
    agents = () if keys.agents is None else (keys.agents,)
    steps = rollout.batch_size[1]
    most = LANES * steps * math.prod(agents) * math.prod(keys.items)
    if tuple(rows.batch_size[: 1 + len(agents)]) != (LANES, *agents) or rows.numel() > most:
        wanted = ["lanes", *(["agents"] if agents else []), "steps", *(["items"] if keys.items else [])]
        raise InputError(
            f"transitions of problem {problem.name} must have batch [{', '.join(wanted)}], "
            f"{[LANES, *agents, steps, *keys.items]} of {steps} step{'s' * (steps > 1)}, got {list(rows.batch_size)}"
        )


def _check_rules(problem: Problem) -> None:
    """Whether each rule makes a policy that writes the environment's action, at each of a few steps."""
    for name, make in problem.rules().items():
        policy = make(0)
        if not callable(policy):
            raise InputError(f"rule {name!r} must make a policy of a seed, got {check.show(policy)}")
        made = problem.make_env(LANES, 0, view=problem.view(policy))  # as it is evaluated: a rule may see more
        called, env = _called(problem, made), with_recurrent_state(made, policy)
        choices = choices_of(env, masks=isinstance(problem, EnvProblem))
        td = env.reset()
        for _ in _within(ACTS, problem.steps):  # a rule that does not ask the mask may be in luck at first
            # what it gives back is what is played, which need not be the tensordict that it was shown
            acting = check_acts(policy, env, td, f"rule {name!r}", choices)
            step, td = _stepped(env, acting, called)
            if ended(step.get("next"), LANES).all():
                break  # as playing does


def _check_seeds(problem: Problem, rollout: TensorDict) -> None:
    """Warns where a seed does not tell what an environment draws."""
    again, other = (_played(problem.make_env(LANES, seed), problem.steps) for seed in (0, 1))
    if not same(rollout, again):
        warnings.warn(
            f"problem {problem.name} gives different results each time with the same seed and actions, so nothing can "
            "be repeated: does it draw from a generator of its own?",
            stacklevel=3,
        )
    elif same(rollout, other):
        warnings.warn(
            f"problem {problem.name} shows the same with seed 0 and seed 1: does its seed do nothing?", stacklevel=3
        )
    elif not _begins_by_seed(problem):
        warnings.warn(
            f"problem {problem.name} shows something different after each set_seed(0), so a resumed run would not "
            "continue as it would have without a stop: does _set_seed do nothing?",
            stacklevel=3,
        )


def _begins_by_seed(problem: Problem) -> bool:
    """Whether `set_seed` tells all that is drawn from then on, as it must where the state cannot be saved."""
    fresh, used = (problem.make_env(LANES, seed) for seed in (0, 1))
    if saves_state(fresh):
        return True
    _played(used, problem.steps)
    for env in (fresh, used):
        env.set_seed(0)
    return same(_played(fresh, problem.steps), _played(used, problem.steps))


def _check_description(problem: Problem) -> None:
    """Warns where a problem is no other one to a resumed run when its constructor is given something else."""
    ours = (Problem.description, EnvProblem.description)
    besides = taken_by(EnvProblem) if isinstance(problem, EnvProblem) else ("name", "steps", "cost")
    untold = kept_arguments(problem, besides)[1] if type(problem).description in ours else {}
    if untold:
        told = ", ".join(f"{name!r} ({why})" for name, why in untold.items())
        warnings.warn(
            f"problem {problem.name} is described without {told}, so a run of it could be resumed with another value: "
            "keep each argument under its name, or override description()",
            stacklevel=3,
        )


def _check_lanes(problem: Problem) -> None:
    """Whether each lane goes by its own action, which is refused, and begins by itself, which is warned of."""

    def make() -> EnvBase:
        return problem.make_env(LANES, 0)

    if follows_first(make):
        raise InputError(
            f"lane 1 of {type(make()).__name__} does what the action of lane 0 says; a step must read the action of "
            "each lane of the batch"
        )
    if begins_all(make):
        warnings.warn(f"{reset_fault(make())}; that is right only as long as all lanes end together", stacklevel=3)
