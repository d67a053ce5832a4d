"""`DrawnEnv` and `DrawnProblem`: lanes whose episodes are drawn whole as they begin, each from its own generator."""

from __future__ import annotations

import inspect
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Composite, TensorSpec, Unbounded
from torchrl.envs import EnvBase

from diffpolicy import _validate as check
from diffpolicy.environments import Problem
from diffpolicy.environments.problem import Kind, Split
from diffpolicy.environments.seeds import episode_seed
from diffpolicy.errors import InputError
from diffpolicy.policies.protocols import Decides
from diffpolicy.policies.saving import SavedPolicy


class DrawnEnv(EnvBase):
    """Lanes whose episodes are drawn whole as they begin, so that an episode does not depend on the lanes beside it.

    A subclass gives `draw`, what chance brings in an episode; `begin`, the state in which one begins; `show`, what is
    observed of a state; and `act`, what a decision changes and costs. All that changes stands in `drawn`, `state` and
    `now`, tensordicts and a tensor of batch `[E]`.

    Args:
        seeds: of the lanes, E of them.
        steps: after which an episode is truncated.
        observation: specs by key. action: spec; all of batch `[E]`.
        device: of all tensors; chance is drawn on the CPU.
    """

    def __init__(
        self, seeds: Sequence[int], steps: int, observation: Mapping[str, TensorSpec], action: TensorSpec, device: Any
    ) -> None:
        lanes = len(seeds)
        super().__init__(device=device, batch_size=torch.Size([lanes]))
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.steps = steps
        self.observation_spec = Composite(dict(observation), shape=(lanes,)).to(device)
        self.action_spec = action.to(device)
        self.reward_spec = Unbounded((lanes, 1), device=device)
        ends = {name: Binary(1, (lanes, 1), dtype=torch.bool) for name in ("done", "terminated", "truncated")}
        self.done_spec = Composite(ends, shape=(lanes,)).to(device)
        self.drawn: Any = None
        self.state: Any = None
        self.now = torch.zeros(lanes, 1, dtype=torch.long, device=device)

    @abstractmethod
    def draw(self, generator: torch.Generator) -> TensorDict:
        """What chance brings in one episode, batch `[]`. Args: generator: of the lane."""

    @abstractmethod
    def begin(self, drawn: TensorDict) -> TensorDict:
        """The state in which episodes begin, `[E]`. Args: drawn: of all lanes, `[E]`."""

    @abstractmethod
    def show(self) -> dict[str, Tensor]:
        """What is observed of the present state, by key."""

    @abstractmethod
    def act(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """Changes the state. Args: action: of all lanes. Returns the rewards, `[E]`, and which episodes are over."""

    def _shown(self, terminated: Tensor) -> TensorDict:
        late = self.now >= self.steps
        ends = {"terminated": terminated, "truncated": late & ~terminated, "done": late | terminated}
        return TensorDict({**self.show(), **ends}, batch_size=self.batch_size, device=self.device)

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDict:
        asked = None if tensordict is None else tensordict.get("_reset", None)
        again = torch.ones_like(self.now, dtype=torch.bool) if asked is None or self.drawn is None else asked
        lanes = again.flatten()
        fresh: Any = torch.stack(
            [self.draw(g) if lanes[k] else self.drawn[k] for k, g in enumerate(self.generators)]
        ).to(self.device)
        begun = self.begin(fresh)
        self.drawn = fresh
        self.state = begun if self.state is None else torch.where(lanes, begun, self.state)
        self.now = self.now.masked_fill(again, 0)
        return self._shown(torch.zeros_like(again))

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        reward, over = self.act(tensordict["action"])
        self.now = self.now + 1
        return self._shown(over.unsqueeze(-1)).set("reward", reward.float().unsqueeze(-1))

    def _set_seed(self, seed: int | None) -> None:
        for k, generator in enumerate(self.generators):
            generator.manual_seed(episode_seed(abs(seed or 0), k))

    def get_extra_state(self) -> dict[str, Any]:
        """Everything that changes, so that a resumed run plays on as if nothing had happened."""
        begun = {} if self.drawn is None else {"drawn": self.drawn.to_dict(), "state": self.state.to_dict()}
        return {"generators": [g.get_state() for g in self.generators], "now": self.now, **begun}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes up what `get_extra_state` gave."""
        for generator, kept in zip(self.generators, state["generators"], strict=True):
            generator.set_state(kept)
        self.now = state["now"].clone()
        for name in ("drawn", "state"):
            if name in state:
                setattr(self, name, TensorDict(state[name], batch_size=self.batch_size, device=self.device).clone())


class DrawnProblem(Problem):
    """A problem whose lanes have streams of their own: episode k depends on (seed, k) alone.

    A subclass gives `lanes`, and takes its knobs as arguments by their names, which it hands to `__init__`.

    Args:
        options: the knobs, by name.

    Raises:
        InputError: a knob is below its least value.
    """

    least: Mapping[str, float] = {}
    """The knobs, and what each is at least."""
    kinds: Mapping[str, Kind] = {}
    """The knobs, and what their values are."""

    def __init__(self, **options: Any) -> None:
        for name, value in options.items():
            if self.kinds[name] == "whole":
                options[name] = check.integer(value, name, least=int(self.least[name]))
            else:
                options[name] = check.number(value, name, least=self.least[name])
        self.options = options
        usual = inspect.signature(type(self)).parameters
        others = [f"{k}={v!r}" for k, v in options.items() if k not in usual or v != usual[k].default]
        self.name = f"{type(self).name}({', '.join(others)})" if others else type(self).name

    @abstractmethod
    def lanes(self, seeds: Sequence[int], device: Any) -> EnvBase:
        """An environment of a lane for each seed."""

    def make_env(
        self, batch: int = 1, seed: int = 0, *, split: Split = "train", view: str | None = None, device: Any = None
    ) -> EnvBase:
        if split == "evaluate":
            return self.make_episodes(0, batch, seed, device=device)
        return self.lanes([episode_seed(seed, 1, k) for k in range(batch)], device)

    def make_episodes(
        self, first: int, count: int, seed: int = 0, *, view: str | None = None, device: Any = None
    ) -> EnvBase:
        return self.lanes([episode_seed(seed, 0, first + k) for k in range(count)], device)

    def knobs(self) -> Mapping[str, Kind]:
        return self.kinds

    def vary(self, key: str, value: Any) -> Problem:
        if key not in self.kinds:
            raise InputError(f"problem {self.name} has no {key!r} to vary; it has {', '.join(self.kinds)}")
        return type(self)(**{**self.options, key: value})

    def description(self) -> dict[str, Any]:
        return {**self._named(), "problem": type(self).name, "options": self.options}

    def prepare(self, policy: Decides) -> Decides:
        """Warns of a policy that was trained on the problem with other knobs, and fits this one too."""
        trained = policy.trained if isinstance(policy, SavedPolicy) else {}
        told, sha256 = trained.get("problem"), trained.get("problem_sha256")
        # what `train` writes has no digest, but the name tells the knobs
        other = told != self.name if sha256 is None else sha256 != self.digest()
        if other and str(told).partition("(")[0] == type(self).name:
            warnings.warn(
                f"the policy was trained on problem {told}, and is asked to decide in {self.name}, whose "
                f"knobs are {self.options}",
                stacklevel=2,
            )
        return policy
