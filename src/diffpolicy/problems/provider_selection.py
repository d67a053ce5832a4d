"""`ProviderSelection`: which provider of generated content serves each user, where one that is overloaded crashes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Categorical, Unbounded
from torchrl.envs import EnvBase

from diffpolicy.environments import Cost
from diffpolicy.environments.problem import Kind
from diffpolicy.policies.protocols import Decides
from diffpolicy.problems.drawn import DrawnEnv, DrawnProblem

PROVIDERS = 20
ARRIVALS, HORIZON_S = 1000, 1_000_000
"""Mean number of tasks of an episode, and the seconds in which they come."""
MOST = 1300
"""Tasks of an episode at most; a Poisson number of mean 1000 is larger once in 10^19 episodes."""
MOST_CAPACITY, STEPS = 900.0, (100.0, 250.0)
"""Of a provider; and the fewest and the most denoising steps of a task."""
PLACES = int(MOST_CAPACITY // STEPS[0])
"""Tasks that one provider can run at once."""


def runtime_s(steps: Tensor) -> Tensor:
    """R(t) = 60 (0.001 t^2 + 2.5 t - 14), s. Args: steps: t, of a task's denoising."""
    return 60 * (0.001 * steps.square() + 2.5 * steps - 14)


@dataclass(frozen=True)
class Providers:
    """What providers are: how much each can run, and how a user likes what it makes of t denoising steps.

    Args:
        capacity: denoising steps that may run at once, `[P]`.
        low_steps, high_steps: between which the utility rises, `[P]`; below it is 0. rise: how much it rises, `[P]`.

    Example:
        >>> providers = Providers.drawn(0)
        >>> providers.capacity.shape, providers.utility(torch.tensor([100.0, 250.0])).shape
        (torch.Size([20]), torch.Size([2, 20]))
    """

    capacity: Tensor
    low_steps: Tensor
    high_steps: Tensor
    rise: Tensor

    @classmethod
    def drawn(cls, seed: int) -> Providers:
        """Twenty of them.

        C ~ U{400, 500, .., 900}, A^x ~ U{0, 10, .., 90}, B^x ~ U{150, 160, .., 240}, and the rise B^y - A^y of
        A^y ~ U{0, .05, .., .45} and B^y ~ U{.5, .55, .., .95}.

        Args:
            seed: of the draw.
        """
        generator = torch.Generator().manual_seed(seed)

        def any_of(count: int) -> Tensor:
            return torch.randint(count, (PROVIDERS,), generator=generator).float()

        capacity, low, at_low, high, at_high = (any_of(n) for n in (6, 10, 10, 10, 10))
        return cls(400 + 100 * capacity, 10 * low, 150 + 10 * high, 0.5 + 0.05 * at_high - 0.05 * at_low)

    def utility(self, steps: Tensor) -> Tensor:
        """u_i(t) = (B^y - A^y) min((t - A^x) / (B^x - A^x), 1), 0 below A^x, `[*, P]`. Args: steps: t, `[*]`."""
        t = steps.unsqueeze(-1)
        part = ((t - self.low_steps) / (self.high_steps - self.low_steps)).clamp(0, 1)
        return self.rise * part


class ProviderSelectionEnv(DrawnEnv):
    """One task a step, at once given to a provider; a provider without room for it crashes and loses all it runs.

    Args:
        seeds: of the lanes. providers: who they are. device: of all tensors.
    """

    def __init__(self, seeds: Sequence[int], providers: Providers, device: Any = None) -> None:
        lanes = len(seeds)
        shown = {"observation": Unbounded((lanes, 2 * PROVIDERS + 2)), "arrival": Unbounded((lanes, 1))}
        super().__init__(seeds, MOST, shown, Categorical(PROVIDERS, (lanes,)), device)
        self.providers = providers

    def draw(self, generator: torch.Generator) -> TensorDict:
        count = int(torch.poisson(torch.tensor(float(ARRIVALS)), generator=generator).clamp(1, MOST - 1))
        time_s = torch.full((MOST + 1,), float(HORIZON_S))
        time_s[0], drawn = 0.0, torch.randint(HORIZON_S, (count,), generator=generator)
        time_s[1 : count + 1] = drawn.sort().values.float()
        steps = 10.0 * torch.randint(10, 26, (MOST + 1,), generator=generator)
        return TensorDict(time_s=time_s, steps=steps, count=torch.tensor(count))

    def begin(self, drawn: TensorDict) -> TensorDict:
        none = torch.zeros(*self.batch_size, PROVIDERS, PLACES, device=self.device)
        return TensorDict(running=none, since_s=none.clone(), until_s=none.clone(), batch_size=self.batch_size)

    def _of_now(self, name: str) -> Tensor:
        """What was drawn of the task that waits, `[E]`."""
        value: Tensor = self.drawn[name].gather(1, self.now.to(self.drawn[name].device)).squeeze(1)
        return value

    def _available(self) -> Tensor:
        """Denoising steps that each provider has room for, `[E, P]`."""
        room: Tensor = self.providers.capacity - self.state["running"].sum(-1)
        return room

    def show(self) -> dict[str, Tensor]:
        steps, capacity = self._of_now("steps"), self.providers.capacity
        room = self._available() / capacity
        of_each = torch.stack([(capacity / MOST_CAPACITY).expand_as(room), room], -1).flatten(-2)
        task = torch.stack([steps / STEPS[1], runtime_s(steps) / runtime_s(torch.tensor(STEPS[1]))], -1)
        return {"observation": torch.cat([of_each, task], -1), "arrival": self.now.float()}

    def act(self, action: Tensor) -> tuple[Tensor, Tensor]:
        s, lane = self.state, torch.arange(len(action))
        now_s, steps = self._of_now("time_s"), self._of_now("steps")
        fits = steps <= self._available()[lane, action]
        running, since, until = (s[name][lane, action] for name in ("running", "since_s", "until_s"))
        # a crash costs 2, and what of each lost task was still to do, twice
        left = ((until - now_s.unsqueeze(-1)) / (until - since).clamp_min(1)).masked_fill(running <= 0, 0.0)
        reward = torch.where(fits, self.providers.utility(steps)[lane, action], -2 - 2 * left.sum(-1))
        place = torch.nn.functional.one_hot((running <= 0).to(torch.int8).argmax(-1), PLACES).bool()
        here = place & fits.unsqueeze(-1)
        begun = torch.where(here, steps.unsqueeze(-1), running).masked_fill(~fits.unsqueeze(-1), 0.0)
        s["running"][lane, action] = begun
        s["since_s"][lane, action] = torch.where(here, now_s.unsqueeze(-1), since)
        s["until_s"][lane, action] = torch.where(here, (now_s + runtime_s(steps)).unsqueeze(-1), until)
        later = self.drawn["time_s"].gather(1, self.now + 1)
        s["running"] = s["running"].masked_fill(s["until_s"] <= later.unsqueeze(-1), 0.0)
        return reward, (self.now + 1 >= self.drawn["count"].unsqueeze(-1)).squeeze(-1)


class ProviderSelection(DrawnProblem):
    """Which of twenty providers makes each user's images: how well each does it is hidden, and full ones crash.

    The problem of D2SAC (Du et al. 2023, arXiv 2303.13052), as its released code has it. The cost is minus the sum of
    the users' utilities, less what crashes lose.

    Args:
        providers: who they are, the seed of their draw.

    Raises:
        InputError: the seed is below 0.

    Example:
        >>> problem = ProviderSelection(providers=1)
        >>> problem.make_env(8, seed=1).reset()["observation"].shape, list(problem.rules())[:2]
        (torch.Size([8, 42]), ['most-available', 'round-robin'])
    """

    name, steps = "provider-selection", MOST
    cost = Cost("minus utility", column="minus_utility")
    masks = False
    kinds: Mapping[str, Kind] = {"providers": "whole"}
    least: Mapping[str, float] = {"providers": 0}

    def __init__(self, providers: int = 0) -> None:
        super().__init__(providers=providers)
        self.providers = Providers.drawn(providers)

    def lanes(self, seeds: Sequence[int], device: Any) -> EnvBase:
        return ProviderSelectionEnv(seeds, self.providers, device)

    def rules(self) -> Mapping[str, Callable[[int], Decides]]:
        of, kinds = self.providers, ("most-available", "round-robin", "available-times-quality", "clairvoyant")
        return {kind: partial(_Rule, of, kind) for kind in kinds}


class _Rule:
    """One of the rules. Args: providers: who they are. kind: which rule. seed: of nothing, as none draws."""

    def __init__(self, providers: Providers, kind: str, seed: int) -> None:
        self.providers, self.kind = providers, kind

    def __call__(self, td: TensorDictBase) -> TensorDictBase:
        if self.kind == "round-robin":
            return td.set("action", td["arrival"].squeeze(-1).long() % PROVIDERS)
        room = td["observation"][..., 1 : 2 * PROVIDERS : 2] * self.providers.capacity
        steps = td["observation"][..., -2] * STEPS[1]
        score = {
            "most-available": lambda: room,
            "available-times-quality": lambda: room * self.providers.rise,
            "clairvoyant": lambda: self.providers.utility(steps),
        }[self.kind]()
        # a hair less, since what is shown was divided
        full = room < steps.unsqueeze(-1) - 0.5
        return td.set("action", (score - 1e6 * full).argmax(-1))
