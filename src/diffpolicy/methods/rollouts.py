"""`RolloutMethod`: what the methods that learn from rollouts share, off their policy or on it."""

from __future__ import annotations

import copy
import inspect
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
from torchrl.envs import EnvBase
from torchrl.objectives import LossModule

from diffpolicy import _validate as check
from diffpolicy._identity import describe
from diffpolicy.environments.given_env import GivenEnv
from diffpolicy.environments.problem import Problem
from diffpolicy.environments.tally import Tally
from diffpolicy.errors import InputError
from diffpolicy.methods.fields import PLAIN, Rule, acting, annotated, function, rates, widths
from diffpolicy.methods.method import Method, Situation
from diffpolicy.networks.dense import ACTIVATIONS
from diffpolicy.policies.heads import Head, named_head
from diffpolicy.policies.heads.registry import NAMED
from diffpolicy.policies.policy import Policy
from diffpolicy.policies.protocols import Decides
from diffpolicy.policies.registry import part_with
from diffpolicy.policies.specs import keys_of
from diffpolicy.training.rollouts import RolloutModule
from diffpolicy.training.trainable import env_content, policy_content


@dataclass(frozen=True)
class Parts:
    """What a method's module is put together of, made of a problem.

    Args:
        problem: what is trained on. env: its environment, batched. policy: what acts. objective: what is minimised.
        transitions: of a rollout. tally: adds up what passes cost. player: who plays, where it is not the policy.
        seed: of the run. seed_of_batches: of the draws of batches.
    """

    problem: Problem
    env: EnvBase
    policy: Policy
    objective: Any
    transitions: Callable[[Any], Any]
    tally: Tally
    seed: int
    seed_of_batches: int
    player: Any = None


ITEMS = ("independent", "joint")
"""How the items of a row may be decided."""


@dataclass(frozen=True, kw_only=True)
class RolloutMethod(Method):
    """Base of methods that learn from rollouts.

    Args:
        transitions: makes transitions of a rollout (in a file: its import path); None: the problem's. One with a
            parameter `masks` is told whether to give them.
        policy: what acts: a class, of which one is made from the environment's specs, or a policy, of which each run
            trains a copy (in a file: `module:attribute`); None: the method's own.
        learning_rates: of Adam, by the names of the objective's groups, such as `actor`, `critic` and `alpha`.
        hidden: widths of the hidden layers of all networks.
        act: of all networks: their activation, such as `relu`, `mish` or `tanh`.
        share_parameters: one set for all agents instead of one each.
        masks: whether the policy reads the environment's action mask; None: where there is one. `transitions` must
            then give `action_mask` and `("next", "action_mask")`, bool `[*, A]`.
        items: `joint`: all items of a row are decided together; None, or `independent`: each alone.
        head: what an action is, where its spec does not tell: `simplex`, shares that sum to one; None: as it tells.
        normalize: whether networks read observations normalised by their running statistics.
        gamma: discount, from 0 to 1.

    Raises:
        InputError: a field is out of range or of another kind.

    Example:
        >>> method = SACMethod(learning_rates={"actor": 1e-3, "critic": 1e-3, "alpha": 1e-3}, hidden=[64, 64])
        >>> isinstance(method, RolloutMethod), method.gamma
        (True, 0.95)
        >>> SACMethod(learning_rates={}, gamma=2)
        Traceback (most recent call last):
        diffpolicy.errors.InputError: gamma must be at most 1, got 2
    """

    transitions: Callable[[Any], Any] | None = None
    policy: Any = None
    learning_rates: Mapping[str, float]
    hidden: list[int] = field(default_factory=lambda: [20, 20])
    act: str = "relu"
    share_parameters: bool = False
    masks: bool | None = None
    items: Literal["independent", "joint"] | None = None
    head: Literal["simplex"] | None = None
    normalize: bool = False
    gamma: float = 0.95

    rules: ClassVar[Mapping[str, Rule]] = {
        "transitions": lambda value, key: None if value is None else function(value, key),
        "policy": acting,
        "learning_rates": rates,
        "hidden": widths,
        "act": partial(check.choice, words=ACTIVATIONS),
        "share_parameters": check.flag,
        "masks": lambda value, key: None if value is None else check.flag(value, key),
        "items": lambda value, key: None if value is None else check.choice(value, key, words=ITEMS),
        "head": lambda value, key: None if value is None else check.choice(value, key, words=tuple(NAMED)),
        "normalize": check.flag,
        "gamma": partial(check.number, least=0, most=1),
    }
    """How each field is checked; a subclass adds those of its own.

    :meta hide-value:
    """

    def __post_init__(self) -> None:
        for name, rule in self.rules.items():
            object.__setattr__(self, name, rule(getattr(self, name), name))
        for own in fields(self):  # a field of a user's own class has no rule: what its annotation says
            plain = PLAIN.get(annotated(own)) if own.init and own.name not in self.rules else None
            # the default is the class's own word, None or infinity too
            if plain is not None and (value := getattr(self, own.name)) is not own.default:
                object.__setattr__(self, own.name, plain(value, own.name))

    serves: ClassVar[tuple[Situation, ...]] = ("masks", "agents", "items", "early ends")
    own_policy: ClassVar[type[Policy]]
    """The class of what acts, where no `policy` is given."""

    @property
    def mask_key(self) -> str | None:
        """What `Policy.from_specs` is told."""
        return None if self.masks is False else "auto"

    def options(self) -> dict[str, Any]:
        """Arguments of the policy's `from_specs`."""
        return {
            "hidden": self.hidden,
            "act": self.act,
            "share_parameters": self.share_parameters,
            "mask_key": self.mask_key,
            "normalize": self.normalize,
            **({} if self.items is None else {"items": self.items}),
            **({} if self.head is None else {"head": self.asked_head("sample")}),
        }

    def asked_head(self, draw: str) -> Head | str:
        """What `Policy.from_specs` is told of the head. Args: draw: how it decides, `sample` or `argmax`."""
        return draw if self.head is None else part_with(named_head(self.head), draw=draw)

    def options_in(self, env: EnvBase) -> dict[str, Any]:
        """The same where they hang on what is decided. Args: env: tells what that is."""
        return self.options()

    def make_player(self, problem: Problem, seed: int) -> Decides | None:
        """Who plays what is learned from; None: the policy that is trained."""
        return None

    def make_policy(self, env: EnvBase, seed: int) -> Policy:
        """What acts."""
        if isinstance(self.policy, Policy):
            policy = copy.deepcopy(self.policy)
            policy.check_env(env)
            policy.reseed(seed)
            return policy
        kind: type[Policy] = self.own_policy if self.policy is None else self.policy
        return kind.from_specs(env, **self.options_in(env), seed=seed)

    @abstractmethod
    def make_objective(self, policy: Any, seed: int) -> LossModule:
        """What is minimised."""

    @abstractmethod
    def make_module(self, parts: Parts) -> RolloutModule:
        """What is trained."""

    def build(
        self,
        problem: Problem | EnvBase,
        *,
        environments: int = 1,
        episode_steps: int | None = None,
        seed: int = 0,
    ) -> RolloutModule:
        given = problem if isinstance(problem, Problem) else GivenEnv(problem, episode_steps)
        of_policy, of_objective, of_batches, of_player = (
            int(s) for s in np.random.SeedSequence(seed).generate_state(4)
        )
        player = self.make_player(given, of_player)
        view = None if player is None else given.view(player)
        env = given.make_env(environments, seed, view=view)
        # a policy sees what the problem shows it, whatever more it is played to it from
        shown = env if view is None else given.make_env(environments, seed)
        policy = self.policy_for(given, shown, of_policy)
        keys = keys_of(policy, env)
        transitions: Callable[[Any], Any] = partial(given.transitions, keys=keys)
        if self.transitions is not None:
            transitions = with_masks(self.transitions, policy.reading.masked)
        objective = self.make_objective(policy, of_objective)
        module = self.make_module(
            Parts(given, env, policy, objective, transitions, given.tally(keys), seed, of_batches, player)
        )
        module.problem = None if given.sound else given
        module.identity = {
            "method": self.description(),
            "seed": seed,
            "environments": module.lanes,
            **(
                {"episode_steps": given.steps, "env": env_content(env)}
                if isinstance(given, GivenEnv)
                else {"problem": given.description()}
            ),
        }
        return module

    def policy_for(self, problem: Problem, env: EnvBase, seed: int) -> Policy:
        """What is trained, in `train` mode. Args: problem: of which env is. env: as the policy sees it. seed: of it.

        Raises:
            InputError: the method trains no such policy, or there is no mask where one is asked for.
        """
        masked = replace(self, masks=False) if self.masks is None and not problem.masks else self
        policy: Policy = masked.make_policy(env, seed).train()
        if why := self.refuses(policy.head):
            raise InputError(f"{type(self).__name__} cannot train a policy with a {type(policy.head).__name__}: {why}")
        if self.masks and not policy.reading.masked:
            raise InputError("masks is true, and the environment shows no 'action_mask' beside its action")
        return policy

    def description(self) -> dict[str, Any] | RolloutMethod:
        """What it is, itself or by content; a policy that was given by what can be seen of it."""
        if isinstance(self.policy, Policy):
            return {**describe(replace(self, policy=None), "method"), "policy": policy_content(self.policy)}
        return self


def with_masks(transitions: Callable[[Any], Any], masks: bool) -> Callable[[Any], Any]:
    """Transitions that give masks or not, if they have a parameter `masks` that is not yet set."""
    parameter = inspect.signature(transitions).parameters.get("masks")
    told = parameter is None or "masks" in getattr(transitions, "keywords", {}) or parameter.default == masks
    return transitions if told else partial(transitions, masks=masks)  # type: ignore[call-arg]
