"""`OnPolicyMethod`: what the methods share that learn from what their policy has just played."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from diffpolicy import _validate as check
from diffpolicy.environments.ends import ENDLESS
from diffpolicy.methods.fields import Rule
from diffpolicy.methods.rollouts import Parts, RolloutMethod
from diffpolicy.training.on_policy import OnPolicyModule
from diffpolicy.training.stream import RolloutStream

STRIDE = 10
"""Steps, at most, that are played before it is looked whether all lanes have ended."""


@dataclass(frozen=True, kw_only=True)
class OnPolicyMethod(RolloutMethod):
    """Base of on-policy methods, which train any policy with a law, so any head that draws its action.

    Args:
        sequential: whether an agent's next item succeeds an item in the transitions; None: as the problem says.
        lmbda: of the generalised advantage, from 0 to 1.
        collect: transitions of each agent before an update.
        epochs: of an update.
        batch_size: rows of a minibatch, for each agent.
        clip_norm: greatest norm of a gradient.
        target_kl: an update ends after the epoch whose approximate divergence is above this; None: it does not.
        normalize_advantages: whether each agent's have mean 0 and deviation 1 in an update.
        reward_scale: factor on rewards; `auto`: one over the deviation of the first update's returns.
        others: of `RolloutMethod`.

    Example:
        >>> method = PPOMethod(learning_rates={"actor": 3e-4, "critic": 1e-3}, collect=400)
        >>> isinstance(method, OnPolicyMethod), method.epochs
        (True, 10)
    """

    sequential: bool | None = None
    lmbda: float = 0.95
    collect: int = 1024
    epochs: int = 10
    batch_size: int = 256
    clip_norm: float = 0.5
    target_kl: float | None = None
    normalize_advantages: bool = True
    reward_scale: float | Literal["auto"] = "auto"

    rules: ClassVar[Mapping[str, Rule]] = {
        **RolloutMethod.rules,
        "sequential": lambda value, key: None if value is None else check.flag(value, key),
        "lmbda": partial(check.number, least=0, most=1),
        "collect": partial(check.integer, least=1, most=10**8),
        "epochs": partial(check.integer, least=1, most=10**6),
        "batch_size": partial(check.integer, least=1, most=10**6),
        "clip_norm": partial(check.number, above=0),
        "target_kl": lambda value, key: None if value is None else check.number(value, key, above=0),
        "normalize_advantages": check.flag,
        "reward_scale": lambda value, key: value if value == "auto" else check.number(value, key, above=0),
    }

    def options(self) -> dict[str, Any]:
        return {**super().options(), "head": self.asked_head("sample")}

    def make_module(self, parts: Parts) -> OnPolicyModule:
        steps = parts.problem.steps
        stride = max(d for d in range(1, STRIDE + 1) if (ENDLESS if steps is None else steps) % d == 0)
        return OnPolicyModule(
            parts.policy,
            parts.objective,
            RolloutStream(parts.env, parts.policy, episode_steps=steps, steps=stride, seed=parts.seed),
            parts.transitions,
            tally=parts.tally,
            learning_rates=self.learning_rates,
            gamma=self.gamma,
            lmbda=self.lmbda,
            sequential=parts.problem.sequential if self.sequential is None else self.sequential,
            collect=self.collect,
            epochs=self.epochs,
            batch_size=self.batch_size,
            clip_norm=self.clip_norm,
            target_kl=self.target_kl,
            normalize_advantages=self.normalize_advantages,
            reward_scale=self.reward_scale,
            seed=parts.seed_of_batches,
        )
