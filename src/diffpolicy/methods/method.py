"""`Method`: what builds a module that `fit` trains, from a problem and a seed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torchrl.envs import EnvBase

from diffpolicy.environments.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Whatever turns a problem and a seed into a module that Lightning trains.

    A method knows no problem: it is a frozen dataclass of what was published, and builds networks, objective and replay
    of the specs of whatever it is given. A subclass gives `build`; its name as `module:Class` serves wherever a method
    is named.

    Example:
        >>> method = make_method("d2sac")
        >>> module = method.build(EnvProblem(Clinic, steps=50), environments=8, seed=1)
        >>> isinstance(method, Method), fit(module, episodes=8).episodes
        (True, 8)
    """

    @abstractmethod
    def build(
        self,
        problem: Problem | EnvBase,
        *,
        environments: int = 1,
        episode_steps: int | None = None,
        seed: int = 0,
    ) -> Any:
        """A fresh `Trainable`.

        Args:
            problem: what is trained on; an environment stands for the problem of playing it.
            environments: lanes side by side, of a problem.
            episode_steps: steps of an episode, of an environment; None: until it is done.
            seed: of everything that is drawn.
        """
