"""`Problem`: what training, evaluating and comparing need to know of a decision problem."""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.envs import EnvBase

from diffpolicy import _validate as check
from diffpolicy._suggest import meant
from diffpolicy.environments.arguments import kept_arguments
from diffpolicy.environments.cost import Cost
from diffpolicy.environments.lanes import Lanes
from diffpolicy.environments.random_rule import RandomRule
from diffpolicy.environments.schedule import Schedule
from diffpolicy.environments.seeds import episode_seed
from diffpolicy.environments.tally import Tally
from diffpolicy.environments.transitions import step_transitions
from diffpolicy.errors import InputError
from diffpolicy.policies.keys import Keys
from diffpolicy.policies.protocols import Decides
from diffpolicy.policies.saving import SavedPolicy

if TYPE_CHECKING:
    from diffpolicy.evaluation.playing import Played

Kind = Literal["whole", "number", "LO:HI"]
"""What a value of a knob is, as it is typed."""
Split = Literal["train", "evaluate"]
"""Which episodes: those that are trained on, or those on which policies are judged; the two never meet."""


class Problem(ABC):
    """A decision problem: its environment, its cost, and what it is compared with.

    A subclass gives `make_env`; everything else has a default. `EnvProblem` makes one of a function that makes
    environments, and `gym_problem` of a Gymnasium id; a subclass of your own is for rules, sweeps, columns or files
    that these two do not have.

    Attributes:
        name: as tables call it.
        cost: what is to be small.
        steps: of an episode, or None: until it is done, within 10,000.
        methods: presets that `compare` trains by default.
        reference: `module:attribute` by which another process finds it, or None.
        sequential: whether `transitions` go from item to item, so that an item is succeeded by the agent's next one;
            False: from step to step, the items of one being decided at once.
        masks: whether a choice is ever forbidden; False: no policy need read a mask.
        sound: whether it is known to be what experiments need, so that none plays a few steps of it before its work.
        references: rules that plots draw as lines, besides the baseline.
        alike: what an evaluation plays, in titles of tables, where its episodes can be repeated.
        noun: what files call the problem.
        given: what `subject` is, in messages.
        level: what `levels` are called in files, with their unit.
        place: what an item is done at, in pictures of a `schedule`. clock: its time, with its unit.

    Example:
        >>> class Ward(Problem):
        ...     name, steps, cost = "ward", 50, Cost("waiting")
        ...     def make_env(self, batch=1, seed=0, *, split="train", view=None, device=None):
        ...         return Clinic(batch, seed)
        >>> evaluate(Ward(), {"longest": longest_queue}, episodes=4).baseline
        'random'
    """

    name: str = "problem"
    cost: Cost = Cost()
    steps: int | None = None
    methods: Sequence[str] = ("d2sac", "sac", "dqn")
    reference: str | None = None
    sequential: bool = False
    masks: bool = True
    sound: bool = False
    references: Sequence[str] = ()
    alike: str = "identical episodes"
    noun: str = "problem"
    given: str = "a problem"
    level: str = "level"
    place: str = "place"
    clock: str = "time"

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
        """What is learned from a rollout, in time order; by default from each step to the next, see `step_transitions`.

        Args:
            rollout: batch `[E, T]`, of an environment of this problem. keys: of that environment.

        Returns:
            Batch `[E, agents, T, items]`, with `valid` and the next done, terminated and masks.
        """
        return step_transitions(rollout, keys)

    def tally(self, keys: Keys) -> Tally:
        """What adds up the cost of training's passes, by default the rewards'. Args: keys: of the environment."""
        return Tally(self.cost, keys.reward, keys.valid)

    def rules(self) -> Mapping[str, Callable[[int], Decides]]:
        """Untrained policies by name, each as a function of a seed; the first is the baseline. By default `random`."""
        return {"random": lambda seed: RandomRule(self.make_env(), seed)}

    def policies(self) -> Mapping[str, Callable[[int], Decides]]:
        """Trained policies that come with the problem, by name, each as a function of a seed."""
        return {}

    def compared_rules(self) -> Sequence[str]:
        """Rules that `compare` plays, all by default; the first is the baseline."""
        return list(self.rules())

    def compared(self) -> Sequence[str]:
        """Trained policies that `compare` plays by default; all that come with the problem, as `pretrained:NAME`."""
        return [f"pretrained:{name}" for name in self.policies()]

    def left_out(self) -> str:
        """What `compare` would play if more were installed, in one sentence with the remedy; empty: nothing."""
        return ""

    # What an evaluation asks

    @property
    def subject(self) -> object:
        """What a user's function that makes a policy is given; by default the problem itself."""
        return self

    def view(self, policy: Decides) -> str | None:
        """What the decisions of a policy may use, where the problem has levels of that."""
        return None

    def prepare(self, policy: Decides) -> Decides:
        """A policy that was read from a file, told what it has to know of the problem before it decides."""
        return policy

    def check(self, policy: Decides, env: EnvBase) -> None:
        """Refuses a policy that cannot decide in an environment of this problem.

        Raises:
            InputError: it says why.
        """
        if isinstance(policy, SavedPolicy):
            with self._of_another(policy):
                policy.check_env(env)

    @contextmanager
    def _of_another(self, policy: SavedPolicy) -> Iterator[None]:
        """Says of a policy that is refused what it was trained on, where that is another problem."""
        try:
            yield
        except InputError as error:
            found = [(noun, policy.trained[noun]) for noun in ("problem", "scenario") if noun in policy.trained]
            if not found or found[0][1] == self.name.rsplit(os.sep, 1)[-1]:
                raise
            noun, name = found[0]
            raise InputError(
                f"{error}; it was trained on {noun} {check.show(name)[1:-1]}, and this is {self.noun} {self.name}"
            ) from None

    def check_episodes(self, episodes: int) -> None:
        """Refuses more episodes than can be played.

        Raises:
            InputError: it names the number.
        """
        return

    def notes(self, env: EnvBase) -> Sequence[NestedKey]:
        """What is noted of each item beside its cost: keys of the reward's shape."""
        return ()

    def counts(self, played: Played) -> Played:
        """What is counted of what was played; by default each item as it is."""
        return played

    def summarise(self, played: Played, episodes: int) -> Mapping[str, float]:
        """What an evaluation reports beside the cost, by name, such as a load.

        Args:
            played: what the baseline's episodes cost. episodes: how many there were.
        """
        return {}

    def told(self) -> str:
        """The problem in a few words, for progress."""
        return self.name

    def breakdowns(self) -> Mapping[str, tuple[str, str]]:
        """By what the cost is broken down in a file and a picture, each in bins of about as many items.

        Returns:
            One of the `notes` as text, and its column's name, with its unit, by the file's name without its end, such
            as `{"delay_by_size": ("('agents', 'work_gcycles')", "work_gcycles")}`.
        """
        return {}

    def levels(self, step: TensorDictBase) -> Tensor | None:
        """What fills up while an episode goes on, `[E, n]`, drawn as each step of one begins; None: nothing.

        Args:
            step: of an environment of this problem, with what comes `next`.
        """
        return None

    def schedule(self, env: EnvBase) -> Callable[[TensorDictBase], Schedule] | None:
        """What tells of each step of lane 0 in turn where and when its items are done; None: they are done nowhere.

        Args:
            env: an environment of the problem that plays its episode 0, not yet reset.
        """
        return None

    # What a sweep asks

    def knobs(self) -> Mapping[str, Kind]:
        """What a sweep can vary, and what its values are: whole numbers, numbers or ranges."""
        return {}

    def vary(self, key: str, value: Any) -> Problem:
        """The problem with a knob turned.

        Raises:
            InputError: it has no such knob, or the value is out of range.
        """
        raise InputError(f"problem {self.name} has no {key!r} to vary{meant(key, self.knobs())}")

    def description(self) -> dict[str, Any]:
        """What the problem is, by content, as JSON holds it; what was trained on another is not resumed on it.

        Beside name, steps and cost it tells the arguments of the constructor that stand in attributes of their names,
        and their contents, as far as they have any. Override it where what the problem is depends on more.
        """
        given, _ = kept_arguments(self, ("name", "steps", "cost"))
        return {**self._named(), **({"arguments": given} if given else {})}

    def _named(self) -> dict[str, Any]:
        """What every description begins with."""
        return {"problem": self.name, "steps": self.steps, "cost": vars(self.cost)}

    def trained(self) -> dict[str, Any]:
        """What a policy keeps of the problem that it was trained on, as JSON holds it."""
        return {self.noun: self.name.rsplit(os.sep, 1)[-1], f"{self.noun}_sha256": self.digest()}

    def digest(self) -> str:
        """SHA-256 of the description."""
        return hashlib.sha256(json.dumps(self.description(), sort_keys=True).encode()).hexdigest()
