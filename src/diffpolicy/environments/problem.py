"""`Problem`: what training, evaluating and comparing need to know of a decision problem."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tensordict import TensorDict, TensorDictBase
from torchrl.envs import EnvBase

from diffpolicy.environments.lanes import Lanes
from diffpolicy.environments.random_rule import RandomRule
from diffpolicy.environments.seeds import episode_seed
from diffpolicy.environments.transitions import step_transitions
from diffpolicy.errors import InputError
from diffpolicy.policies.keys import Keys

Split = Literal["train", "evaluate"]
"""Which episodes: those that are trained on, or those on which policies are judged; the two never meet."""


@dataclass(frozen=True)
class Cost:
    """What is to be small, and what it is counted by.

    Args:
        label: what it is called in tables and plots, such as `delay`.
        unit: e.g. `s`; empty where it has none.
        per: what a mean is taken over: whole `episode`s (then an episode's costs are added up), `step`s (all agents'
            and items' costs of a step added up), or `item`s.

    Raises:
        InputError: `per` is none of these, or the label is empty.
    """

    label: str = "cost"
    unit: str = ""
    per: Literal["episode", "step", "item"] = "episode"

    def __post_init__(self) -> None:
        if self.per not in ("episode", "step", "item"):
            raise InputError(f"Cost.per must be episode, step or item, got {self.per!r}")
        if not isinstance(self.label, str) or not self.label:
            raise InputError(f"Cost.label must be a word, got {self.label!r}")

    def titled(self, what: str = "mean") -> str:
        """As the head of a column, e.g. `mean delay, s`."""
        return f"{what} {self.label}" + (f", {self.unit}" if self.unit else "")


class Problem(ABC):
    """A decision problem: its environment, its cost, and what it is compared with.

    A subclass gives `make_env`; everything else has a default. `EnvProblem` makes one of a factory or a Gymnasium id.

    Attributes:
        name: as tables call it.
        cost: what is to be small.
        steps: of an episode, or None: until it is done.
        methods: presets that `compare` trains by default.
        reference: `module:attribute` by which another process finds it, or None.
    """

    name: str = "problem"
    cost: Cost = Cost()
    steps: int | None = None
    methods: Sequence[str] = ("d2sac", "sac", "dqn")
    reference: str | None = None

    @abstractmethod
    def make_env(
        self, batch: int = 1, seed: int = 0, *, split: Split = "train", view: str | None = None, device: Any = None
    ) -> EnvBase:
        """A fresh environment of batch `[batch]`.

        Args:
            batch: lanes side by side. seed: of everything that it draws. split: whose episodes it plays.
            view: what its decisions may use, where the problem has levels of that. device: of its tensors.
        """

    def make_episodes(
        self, first: int, count: int, seed: int = 0, *, view: str | None = None, device: Any = None
    ) -> EnvBase:
        """The episodes `first`, `first + 1`, ... on which policies are judged, one a lane, batch `[count]`.

        By default each has an environment of its own, seeded by (seed, number), so an episode does not depend on how
        many are played side by side. A problem whose lanes have streams of their own overrides it.
        """
        return Lanes(
            [
                self.make_env(1, episode_seed(seed, first + k), split="evaluate", view=view, device=device)
                for k in range(count)
            ]
        )

    def transitions(self, rollout: TensorDictBase, keys: Keys) -> TensorDict:
        """What is learnt from a rollout, in time order; by default from each step to the next, see `step_transitions`.

        Args:
            rollout: batch `[E, T]`, of an environment of this problem. keys: of that environment.

        Returns:
            Batch `[E, agents, T, items]`, with `valid` and the next done, terminated and masks.
        """
        return step_transitions(rollout, keys)

    def rules(self) -> Mapping[str, Callable[[int], Any]]:
        """Untrained policies by name, each as a function of a seed; the first is the baseline. By default `random`."""
        return {"random": lambda seed: RandomRule(self.make_env(), seed)}

    def policies(self) -> Mapping[str, Callable[[int], Any]]:
        """Trained policies that come with the problem, by name, each as a function of a seed."""
        return {}

    def description(self) -> dict[str, Any]:
        """What the problem is, by content, as JSON holds it; what was trained on another is not resumed on it."""
        return {"problem": self.name, "steps": self.steps, "cost": vars(self.cost)}
