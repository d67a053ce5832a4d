"""Rules that carry nothing from slot to slot and weigh no costs: by chance, by origin, by backlog."""

from __future__ import annotations

from typing import ClassVar

import torch
from tensordict import TensorDictBase
from torch import Tensor

from diffpolicy.edge.rules.costs import SERVERS, backlog_s
from diffpolicy.edge.rules.rule import Heuristic
from diffpolicy.errors import InputError


class Random(Heuristic):
    """A uniformly drawn server."""

    name, information = "random", "paper"
    reads: ClassVar = [("agents", "valid"), ("agents", "action_mask")]

    def decide(self, td: TensorDictBase) -> Tensor:
        chance = td["agents", "action_mask"].float()
        return _draw(chance, self.uniform(*td["agents", "valid"].shape).to(chance.device))


class CapacityProportional(Heuristic):
    """A server drawn with chance f_a / sum f: knows the fleet and no state."""

    name = "capacity-proportional"
    reads: ClassVar = [("agents", "valid"), *SERVERS]

    def decide(self, td: TensorDictBase) -> Tensor:
        chance = td["servers", "capacity_gcycles_per_s"] * td["servers", "up"]
        valid = td["agents", "valid"]
        return _draw(
            chance[:, None].expand(*valid.shape[:2], -1), self.uniform(*valid.shape).to(chance.device, chance.dtype)
        )


class Local(Heuristic):
    """The server at the task's own origin."""

    name = "local"
    reads: ClassVar = [("agents", "valid"), ("agents", "home")]

    def decide(self, td: TensorDictBase) -> Tensor:
        homeless = td["agents", "valid"] & (td["agents", "home"] < 0)
        if homeless.any():
            _, b, n = homeless.nonzero()[0].tolist()
            raise InputError(f"policy local cannot decide task {n} of station {b}, whose origin has no server")
        home: Tensor = td["agents", "home"]
        return home.clamp_min(0)


class PowerOfTwo(Heuristic):
    """The less loaded, by q / f at the start of the slot, of two distinct uniformly drawn servers."""

    name = "power-of-two"
    reads: ClassVar = [("agents", "valid"), *SERVERS, "queue_gcycles"]

    def decide(self, td: TensorDictBase) -> Tensor:
        shape, s = td["agents", "valid"].shape, self.servers
        backlog = backlog_s(td)
        u = self.uniform(2, *shape).to(backlog.device)
        first = (u[0] * s).long().clamp_max(s - 1)
        second = (first + 1 + (u[1] * (s - 1)).long().clamp_max(max(s - 2, 0))) % s
        pair = torch.stack([torch.minimum(first, second), torch.maximum(first, second)])
        of_pair = backlog[None, :, None, None].expand(2, *shape, s).gather(-1, pair.unsqueeze(-1)).squeeze(-1)
        return torch.where(of_pair[1] < of_pair[0], pair[1], pair[0])


class LeastWork(Heuristic):
    """The server with the smallest q / f at the start of the slot."""

    name = "least-work"
    reads: ClassVar = [("agents", "valid"), *SERVERS, "queue_gcycles"]

    def decide(self, td: TensorDictBase) -> Tensor:
        return backlog_s(td).argmin(-1)[:, None, None].expand(td["agents", "valid"].shape).clone()


def _draw(weight: Tensor, u: Tensor) -> Tensor:
    """Index drawn in proportion to `weight [E, B, S]` by the uniform `u [E, B, N]`: inverse of the running sum."""
    total = weight.cumsum(-1)
    drawn = torch.searchsorted(total.contiguous(), (u * total[..., -1:]).contiguous(), right=True)
    last = weight.shape[-1] - 1 - weight.flip(-1).gt(0).byte().argmax(-1, keepdim=True)
    return torch.minimum(drawn, last)
