"""Published methods as data: each builds an `OffPolicyModule` from an environment and a seed."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torchrl.envs import EnvBase

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy.diffusion.samplers import ETA
from diffpolicy.diffusion.schedules import SCHEDULES
from diffpolicy.errors import InputError
from diffpolicy.networks.critic import CriticEnsemble
from diffpolicy.networks.denoiser import OUTPUTS
from diffpolicy.networks.dense import ACTIVATIONS, WIDEST
from diffpolicy.objectives.actor_critic import SoftActorCriticLoss
from diffpolicy.objectives.bounded_sac import LatentBoundedSACLoss
from diffpolicy.objectives.discrete_sac import LatentDiscreteSACLoss
from diffpolicy.objectives.dqn import StackedDQNLoss
from diffpolicy.policies.choice import ChoicePolicy
from diffpolicy.policies.diffusion import DiffusionPolicy
from diffpolicy.policies.direct import CategoricalPolicy, GreedyValuePolicy
from diffpolicy.policies.priors import Prior
from diffpolicy.training.off_policy import OffPolicyModule
from diffpolicy.training.replay import PackedReplay
from diffpolicy.training.stream import RolloutStream
from diffpolicy.training.trainable import env_content

Rule = Callable[[Any, str], Any]
"""Checks a field's value, named in messages, and gives it as it is kept."""


def _function(value: Any, key: str) -> Any:
    if not callable(value):
        raise InputError(f"{key} must be a function, got {check.show(value)}")
    return value


def _object(value: Any, key: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise InputError(f"{key} must be an object, got {check.show(value)}")
    return dict(value)


def _rates(value: Any, key: str) -> dict[str, float]:
    return {name: check.number(rate, f"{key}.{name}", least=0) for name, rate in _object(value, key).items()}


def _widths(value: Any, key: str) -> list[int]:
    widths = check.sequence(value, key)
    if len(widths) > LAYERS:
        raise InputError(f"{key} must hold at most {LAYERS} widths, got {len(widths)}")
    return [check.integer(width, f"{key}[{k}]", least=1, most=WIDEST) for k, width in enumerate(widths)]


LAYERS = 100
"""Of a network."""


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Whatever turns an environment and a seed into a module that Lightning trains."""

    @abstractmethod
    def build(self, env: EnvBase, *, episode_steps: int, seed: int = 0) -> OffPolicyModule:
        """A fresh module. Args: env: batched. episode_steps: steps of an episode. seed: of everything that is drawn."""


@dataclass(frozen=True, kw_only=True)
class OffPolicyMethod(Method):
    """What the off-policy methods share.

    Args:
        transitions: makes transitions of a rollout (in a file: its import path). One with a parameter `masks` is told
            whether to give them.
        learning_rates: by the name of the objective's group.
        hidden, act: of all networks.
        share_parameters: one set for all agents instead of one each.
        masks: whether the policy reads the environment's action mask; None: where there is one. `transitions` must
            then give `action_mask` and `("next", "action_mask")`, bool `[*, A]`.
        normalize: whether networks read observations normalised by their running statistics.
        gamma: discount. capacity: of the replay, for each agent. batch_size: rows of an update, for each agent.
        start_after: transitions of each agent before updates begin. updates: after each rollout. rollout_steps: of a
            rollout.
    """

    transitions: Callable[[Any], Any]
    learning_rates: Mapping[str, float]
    hidden: list[int] = field(default_factory=lambda: [20, 20])
    act: str = "relu"
    share_parameters: bool = False
    masks: bool | None = None
    normalize: bool = False
    gamma: float = 0.95
    capacity: int = 1000
    batch_size: int = 64
    start_after: int = 300
    updates: int = 1
    rollout_steps: int = 1

    rules: ClassVar[Mapping[str, Rule]] = {
        "transitions": _function,
        "learning_rates": _rates,
        "hidden": _widths,
        "act": partial(check.choice, words=ACTIVATIONS),
        "share_parameters": check.flag,
        "masks": lambda value, key: None if value is None else check.flag(value, key),
        "normalize": check.flag,
        "gamma": partial(check.number, least=0, most=1),
        "capacity": partial(check.integer, least=1, most=10**8),
        "batch_size": partial(check.integer, least=1, most=10**6),
        "start_after": partial(check.integer, least=0, most=10**8),
        "updates": partial(check.integer, least=1, most=10**6),
        "rollout_steps": partial(check.integer, least=1, most=_limits.SLOTS),
    }
    """How each field is checked; a subclass adds those of its own."""

    def __post_init__(self) -> None:
        for name, rule in self.rules.items():
            object.__setattr__(self, name, rule(getattr(self, name), name))
        if self.start_after >= self.capacity:
            raise InputError(f"start_after must be below the capacity {self.capacity}, got {self.start_after}")

    @property
    def mask_key(self) -> str | None:
        """What `ChoicePolicy.from_specs` is told."""
        return None if self.masks is False else "auto"

    @abstractmethod
    def policy(self, env: EnvBase, seed: int) -> ChoicePolicy:
        """What acts."""

    @abstractmethod
    def objective(self, policy: Any, seed: int) -> Any:
        """What is minimised."""

    def build(self, env: EnvBase, *, episode_steps: int, seed: int = 0) -> OffPolicyModule:
        of_policy, of_objective, of_replay = (int(s) for s in np.random.SeedSequence(seed).generate_state(3))
        policy = self.policy(env, of_policy).train()
        if self.masks and policy.mask_key is None:
            raise InputError("masks is true, and the environment shows no 'action_mask' beside its action")
        module = OffPolicyModule(
            policy,
            self.objective(policy, of_objective),
            RolloutStream(env, policy, episode_steps=episode_steps, steps=self.rollout_steps, seed=seed),
            PackedReplay(self.capacity, policy.agents, of_replay),
            with_masks(self.transitions, policy.mask_key is not None),
            learning_rates=self.learning_rates,
            batch_size=self.batch_size,
            updates=self.updates,
            start_after=self.start_after,
        )
        module.identity = {
            "method": self,
            "seed": seed,
            "environments": module.lanes,
            "episode_steps": episode_steps,
            "env": env_content(env),
        }
        return module


def with_masks(transitions: Callable[[Any], Any], masks: bool) -> Callable[[Any], Any]:
    """Transitions that give masks or not, if they have a parameter `masks` that is not yet set."""
    parameter = inspect.signature(transitions).parameters.get("masks")
    told = parameter is None or "masks" in getattr(transitions, "keywords", {}) or parameter.default == masks
    return transitions if told else partial(transitions, masks=masks)  # type: ignore[call-arg]


@dataclass(frozen=True, kw_only=True)
class SACMethod(OffPolicyMethod):
    """Soft actor-critic: switches of `LatentDiscreteSACLoss`, or where actions are vectors of `LatentBoundedSACLoss`.

    For vectors a target entropy of `share` is minus their dimension.
    """

    alpha: float = 0.05
    tau: float = 0.005
    target_entropy: float | Literal["share"] = -1.0
    entropy_share: float = 0.5
    entropy: Literal["conditional", "marginal"] = "conditional"
    entropy_samples: int = 8
    target_actor: bool = False
    critic_latent: bool = False
    reward_scale: float = 1.0
    draw: Literal["sample", "argmax"] = "sample"
    rules: ClassVar[Mapping[str, Rule]] = {
        **OffPolicyMethod.rules,
        "alpha": partial(check.number, above=0),
        "tau": partial(check.number, above=0, most=1),
        "target_entropy": lambda value, key: value if value == "share" else check.number(value, key),
        "entropy_share": partial(check.number, least=0, most=1),
        "entropy": partial(check.choice, words=("conditional", "marginal")),
        "entropy_samples": partial(check.integer, least=1, most=10**4),
        "target_actor": check.flag,
        "critic_latent": check.flag,
        "reward_scale": partial(check.number, above=0),
        "draw": partial(check.choice, words=("sample", "argmax")),
    }

    def policy(self, env: EnvBase, seed: int) -> ChoicePolicy:
        return CategoricalPolicy.from_specs(
            env,
            hidden=self.hidden,
            act=self.act,
            share_parameters=self.share_parameters,
            head=self.draw,
            mask_key=self.mask_key,
            normalize=self.normalize,
            seed=seed,
        )

    def objective(self, policy: ChoicePolicy, seed: int) -> SoftActorCriticLoss:
        """Over all joint choices where they can be enumerated, pathwise through the action where it is a vector."""
        pathwise = policy.head.expectation == "pathwise"
        critic = CriticEnsemble(
            policy.observation_dim + self.critic_latent * policy.choices + pathwise * sum(policy.head.event),
            1 if pathwise else policy.head.joint,
            hidden=self.hidden,
            act=self.act,
            stack=policy.agents,
            generator=torch.Generator().manual_seed(seed),
        )
        shared: dict[str, Any] = {
            "gamma": self.gamma,
            "tau": self.tau,
            "alpha": self.alpha,
            "target_actor": self.target_actor,
            "critic_latent": self.critic_latent,
            "reward_scale": self.reward_scale,
        }
        if pathwise:
            target: Any = "auto" if self.target_entropy == "share" else self.target_entropy
            return LatentBoundedSACLoss(policy, critic, target_entropy=target, **shared)
        return LatentDiscreteSACLoss(
            policy,
            critic,
            target_entropy=self.target_entropy,
            entropy_share=self.entropy_share,
            entropy=self.entropy,
            samples=self.entropy_samples,
            **shared,
        )


@dataclass(frozen=True, kw_only=True)
class DiffusionSACMethod(SACMethod):
    """Discrete soft actor-critic through a chain: D2SAC with a `GaussianPrior`, LAD-TS with an `ActionMemory`.

    Args:
        prior: its JSON form, e.g. `{"type": "ActionMemory", "key": "task"}` or `ActionMemory(key="task").to_dict()`.
        steps, schedule, sampler, sampler_steps, prediction: of `DiffusionPolicy`.
        denoiser_output, time: of `MLPDenoiser`.
    """

    prior: dict[str, Any] = field(default_factory=lambda: {"type": "GaussianPrior"})
    steps: int = 5
    schedule: str = "vp"
    sampler: str = "ddpm"
    sampler_steps: int | None = None
    prediction: Literal["noise", "x0"] = "noise"
    denoiser_output: Literal["softmax", "tanh", "linear"] = "linear"
    time: int = 16
    rules: ClassVar[Mapping[str, Rule]] = {
        **SACMethod.rules,
        "prior": _object,
        "steps": partial(check.integer, least=1, most=_limits.CHAIN),
        "schedule": partial(check.choice, words=SCHEDULES),
        "sampler": partial(check.choice, words=ETA),
        "sampler_steps": lambda value, key: (
            None if value is None else check.integer(value, key, least=1, most=_limits.CHAIN)
        ),
        "prediction": partial(check.choice, words=("noise", "x0")),
        "denoiser_output": partial(check.choice, words=OUTPUTS),
        "time": partial(check.integer, least=2, most=10**5),
    }

    def policy(self, env: EnvBase, seed: int) -> ChoicePolicy:
        policy = DiffusionPolicy.from_specs(
            env,
            prior=Prior.from_dict(self.prior),
            steps=self.steps,
            schedule=self.schedule,
            sampler=self.sampler,
            sampler_steps=self.sampler_steps,
            prediction=self.prediction,
            denoiser={
                "hidden": list(self.hidden),
                "act": self.act,
                "output": self.denoiser_output,
                "time": self.time,
            },
            head=self.draw,
            share_parameters=self.share_parameters,
            mask_key=self.mask_key,
            normalize=self.normalize,
            seed=seed,
        )
        policy.trained["through_chain"] = True
        return policy


@dataclass(frozen=True, kw_only=True)
class DQNMethod(OffPolicyMethod):
    """Deep Q-learning.

    Args:
        epsilon: rate of uniform choices while training.
        target_interval: updates between two copies to the target.
        double: double DQN.
    """

    epsilon: float = 0.01
    target_interval: int = 200
    double: bool = False
    rules: ClassVar[Mapping[str, Rule]] = {
        **OffPolicyMethod.rules,
        "epsilon": partial(check.number, least=0, most=1),
        "target_interval": partial(check.integer, least=1, most=_limits.TRAINING),
        "double": check.flag,
    }

    def policy(self, env: EnvBase, seed: int) -> ChoicePolicy:
        return GreedyValuePolicy.from_specs(
            env,
            hidden=self.hidden,
            act=self.act,
            epsilon=self.epsilon,
            share_parameters=self.share_parameters,
            mask_key=self.mask_key,
            normalize=self.normalize,
            seed=seed,
        )

    def objective(self, policy: GreedyValuePolicy, seed: int) -> StackedDQNLoss:
        return StackedDQNLoss(policy, gamma=self.gamma, target_interval=self.target_interval, double=self.double)
