"""`Method`: what builds a module that `fit` trains, from a problem and a seed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torchrl.envs import EnvBase

from diffpolicy.environments.problem import Problem
from diffpolicy.policies.heads import Head

if TYPE_CHECKING:
    from diffpolicy.training.trainable import Trainable

Situation = Literal["masks", "agents", "items", "early ends"]
"""What a problem may have: forbidden choices, a group of agents, items of one step, episodes that end by themselves."""


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Turns a problem and a seed into a module that Lightning trains.

    A method knows no problem: it is a frozen dataclass of what was published, and builds networks, objective and replay
    of the specs of whatever it is given. A subclass gives `build`; its name as `module:Class` serves wherever a method
    is named.

    Attributes:
        serves: what a problem may have that it trains on; nothing is known of one that does not say.

    Example:
        >>> method = make_method("d2sac")
        >>> module = method.build(EnvProblem(Clinic, steps=50), environments=8, seed=1)
        >>> isinstance(method, Method), fit(module, episodes=8).episodes
        (True, 8)
    """

    serves: ClassVar[tuple[Situation, ...]] = ()

    def refuses(self, head: Head) -> str:
        """Why it trains no policy with such a head, in one clause; empty: it does, which is so unless it says more."""
        return ""

    def brought_by(self, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        """What else changes, unless it is among them; nothing, unless a method says more.

        Args:
            changes: by field, or `field.key`, as a user gives them.
        """
        return {}

    @abstractmethod
    def build(
        self,
        problem: Problem | EnvBase,
        *,
        environments: int = 1,
        episode_steps: int | None = None,
        seed: int = 0,
    ) -> Trainable:
        """A fresh `Trainable`.

        Args:
            problem: what is trained on; an environment stands for the problem of playing it.
            environments: lanes side by side, of a problem.
            episode_steps: steps of an episode, of an environment; None: until it is done.
            seed: of everything that is drawn.
        """
