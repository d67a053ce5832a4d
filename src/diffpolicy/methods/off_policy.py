"""`OffPolicyMethod`: what the methods that learn from a replay share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tensordict import TensorDictBase

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy._read import show_path
from diffpolicy.environments.data_set import digest, read_data, rows_of
from diffpolicy.environments.problem import Problem
from diffpolicy.errors import InputError
from diffpolicy.methods.fields import Rule
from diffpolicy.methods.rollouts import Parts, RolloutMethod
from diffpolicy.policies.specs import keys_of
from diffpolicy.training.off_policy import OffPolicyModule
from diffpolicy.training.offline import OfflineModule
from diffpolicy.training.replay import PackedReplay
from diffpolicy.training.stream import RolloutStream


@dataclass(frozen=True, kw_only=True)
class OffPolicyMethod(RolloutMethod):
    """Base of off-policy methods: a replay, and updates from it after each rollout.

    A subclass gives `make_objective` and `own_policy`; `SACMethod` and `DQNMethod` are two.

    Args:
        capacity: transitions that the replay keeps, for each agent.
        batch_size: rows of an update, for each agent.
        start_after: transitions of each agent before updates begin, fewer than `capacity`.
        updates: after each rollout.
        rollout_steps: of a rollout, a divisor of an episode's steps.
        ema: decay of averaged weights, from 0 to below 1, by which the policy acts and is saved; None: its own.
        others: of `RolloutMethod`.

    Raises:
        InputError: a field is out of range or of another kind.

    Example:
        >>> rates = {"critic": 1e-3}
        >>> isinstance(DQNMethod(learning_rates=rates), OffPolicyMethod)
        True
        >>> DQNMethod(learning_rates=rates, capacity=100, start_after=200)
        Traceback (most recent call last):
        diffpolicy.errors.InputError: start_after must be below the capacity 100, got 200
    """

    capacity: int = 1000
    batch_size: int = 64
    start_after: int = 300
    updates: int = 1
    rollout_steps: int = 1
    ema: float | None = None

    rules: ClassVar[Mapping[str, Rule]] = {
        **RolloutMethod.rules,
        "capacity": partial(check.integer, least=1, most=10**8),
        "batch_size": partial(check.integer, least=1, most=10**6),
        "start_after": partial(check.integer, least=0, most=10**8),
        "updates": partial(check.integer, least=1, most=10**6),
        "rollout_steps": partial(check.integer, least=1, most=_limits.SLOTS),
        "ema": lambda value, key: None if value is None else check.number(value, key, least=0, most=0.999999),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start_after >= self.capacity:
            raise InputError(f"start_after must be below the capacity {self.capacity}, got {self.start_after}")

    learns_from_data: ClassVar[bool] = False
    """Whether its objective learns from the rows of a data set as from a replay; see `build_from`."""

    def build_from(self, problem: Problem, data: TensorDictBase | str | Path, *, seed: int = 0) -> OfflineModule:
        """A fresh `Trainable` of a data set instead of play; a pass over all rows is an episode of it.

        Args:
            problem: of whose specs the policy is made. data: of `read_data`, or the path of it.
            seed: of everything that is drawn.

        Raises:
            InputError: the method learns from its own play, or the data is not of this problem.
        """
        if not self.learns_from_data:
            raise InputError(f"a {type(self).__name__} learns from play, and not from a data set")
        of_policy, of_objective, of_batches, _ = (int(s) for s in np.random.SeedSequence(seed).generate_state(4))
        env = problem.make_env(1, seed)
        policy = self.policy_for(problem, env, of_policy)
        objective = self.make_objective(policy, of_objective)
        name = "the data" if isinstance(data, TensorDictBase) else f"data {show_path(data)}"
        given = data if isinstance(data, TensorDictBase) else read_data(data)
        values = "reward" in getattr(objective, "in_keys", ())
        rows = rows_of(policy, given, keys_of(policy, env), values=values, name=name)
        module = OfflineModule(
            policy,
            objective,
            rows,
            learning_rates=self.learning_rates,
            batch_size=self.batch_size,
            ema=self.ema,
            seed=of_batches,
        )
        module.problem = None if problem.sound else problem
        module.identity = {
            "method": self.description(),
            "seed": seed,
            "data": digest(rows),
            "problem": problem.description(),
        }
        return module

    module_class: ClassVar[Any] = OffPolicyModule
    """What is trained: an `OffPolicyModule`, a name that readers of files in modules of other methods do not know."""

    def make_module(self, parts: Parts) -> OffPolicyModule:
        policy, steps = parts.policy, parts.problem.steps
        player = policy if parts.player is None else parts.player
        module: OffPolicyModule = self.module_class(
            policy,
            parts.objective,
            RolloutStream(parts.env, player, episode_steps=steps, steps=self.rollout_steps, seed=parts.seed),
            PackedReplay(self.capacity, policy.agents, parts.seed_of_batches),
            parts.transitions,
            tally=parts.tally,
            learning_rates=self.learning_rates,
            batch_size=self.batch_size,
            updates=self.updates,
            start_after=self.start_after,
            ema=self.ema,
        )
        return module
