"""`PowerAllocation`: the transmit power of a link shared out over its channels; water filling is the best there is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Bounded, Unbounded
from torchrl.envs import EnvBase

from diffpolicy.environments import Cost
from diffpolicy.environments.problem import Kind
from diffpolicy.policies.keys import Keys
from diffpolicy.policies.protocols import Decides
from diffpolicy.problems.drawn import DrawnEnv, DrawnProblem
from diffpolicy.problems.filling import water_level
from diffpolicy.problems.shares import lone_transitions, shares_of

DECISIONS = 32
"""Of an episode; each sees gains of its own."""


def rate(gain: Tensor, power: Tensor) -> Tensor:
    """Sum over channels of log2(1 + g p), bit/s/Hz, `[*]`. Args: both `[*, M]`."""
    return (1 + gain * power).log2().sum(-1)


def water_filling(gain: Tensor, power: float) -> Tensor:
    """The powers of the greatest rate, p_m = max(level - 1 / g_m, 0), which sum to `power`.

    Args:
        gain: of the channels, in units of their noise, greater than 0, `[*, M]`.
        power: in all.

    Returns:
        Powers, `[*, M]`.

    Example:
        >>> water_filling(torch.tensor([2.0, 1.0, 0.1]), 2.0)
        tensor([1.2500, 0.7500, 0.0000])
    """
    floor = 1 / gain
    return (water_level(floor, torch.ones_like(floor), power).unsqueeze(-1) - floor).clamp_min(0)


class PowerAllocationEnv(DrawnEnv):
    """One decision a step: shares of the power, of gains that are drawn anew each time.

    Of M channels the first half has gains of U[1, 2), the others of U[0, 1).

    Args:
        seeds: of the lanes. channels: M. power: in all, in units of a channel's noise. device: of all tensors.
    """

    def __init__(self, seeds: Sequence[int], channels: int, power: float, device: Any = None) -> None:
        shape = (len(seeds), channels)
        super().__init__(seeds, DECISIONS, {"observation": Unbounded(shape)}, Bounded(-1.0, 1.0, shape), device)
        self.channels, self.power = channels, power

    def draw(self, generator: torch.Generator) -> TensorDict:
        gain = torch.rand(DECISIONS + 1, self.channels, generator=generator).clamp_min(1e-6)
        gain[:, : (self.channels + 1) // 2] += 1
        return TensorDict(gain=gain)

    def begin(self, drawn: TensorDict) -> TensorDict:
        return TensorDict(gain=drawn["gain"][:, 0], batch_size=self.batch_size)

    def show(self) -> dict[str, Tensor]:
        return {"observation": self.state["gain"].clone()}

    def act(self, action: Tensor) -> tuple[Tensor, Tensor]:
        gain = self.state["gain"].double()
        got, best = rate(gain, self.power * shares_of(action.double())), rate(gain, water_filling(gain, self.power))
        later = self.drawn["gain"].gather(1, (self.now + 1).unsqueeze(-1).expand(-1, -1, self.channels))
        self.state["gain"] = later.squeeze(1)
        return -100 * (1 - got / best), torch.zeros_like(self.now.squeeze(-1), dtype=torch.bool)


class PowerAllocation(DrawnProblem):
    """Shares of a transmit power over channels whose gains are seen; the cost is what part of the best rate is lost.

    The problem of GDMOPT (Du et al. 2024, arXiv 2308.05384). An action is M numbers from -1 to 1, of which the
    environment makes shares, a / sum a of the positive ones; shares themselves, as of a simplex head, stay as they are.

    Args:
        channels: how many, M. power: in all, in units of a channel's noise.

    Raises:
        InputError: a knob is out of range.

    Example:
        >>> problem = PowerAllocation(channels=4)
        >>> problem.make_env(8, seed=1).reset()["observation"].shape, problem.cost.titled()
        (torch.Size([8, 4]), 'mean lost rate, %')
    """

    name, steps = "power-allocation", DECISIONS
    cost = Cost("lost rate", "%", per="step", column="lost_rate_percent", counted="decisions")
    methods: Sequence[str] = ("d2sac", "sac", "ppo")
    masks = False
    kinds: Mapping[str, Kind] = {"channels": "whole", "power": "number"}
    least: Mapping[str, float] = {"channels": 2, "power": 1e-3}

    def __init__(self, channels: int = 10, power: float = 3.0) -> None:
        super().__init__(channels=channels, power=power)

    def lanes(self, seeds: Sequence[int], device: Any) -> EnvBase:
        return PowerAllocationEnv(seeds, **self.options, device=device)

    def transitions(self, rollout: TensorDictBase, keys: Keys) -> TensorDict:
        return lone_transitions(rollout, keys)

    def rules(self) -> Mapping[str, Callable[[int], Decides]]:
        power = self.options["power"]
        shares: Mapping[str, Callable[[Tensor], Tensor]] = {
            "equal-power": torch.ones_like,
            "water-filling": lambda gain: water_filling(gain.double(), power).to(gain) / power,
            "proportional": lambda gain: gain / gain.sum(-1, keepdim=True),
            "best-channel": lambda gain: (gain == gain.amax(-1, keepdim=True)).to(gain),
        }
        return {name: partial(_rule, of) for name, of in shares.items()}


def _rule(shares: Callable[[Tensor], Tensor], seed: int) -> Callable[[TensorDictBase], TensorDictBase]:
    """A rule. Args: shares: of gains. seed: of nothing, as no rule draws."""
    return lambda td: td.set("action", shares(td["observation"]))
