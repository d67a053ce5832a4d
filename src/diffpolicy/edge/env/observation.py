"""What the stations of an `OffloadingEnv` see of a slot, at each level of information."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl.data import Binary, Bounded, Composite, Unbounded

from diffpolicy.edge.information import Information
from diffpolicy.edge.physics.queueing import ServerSpeeds
from diffpolicy.edge.physics.service import MeasuredService, ServiceState
from diffpolicy.edge.physics.slot_grid import SlotGrid


@dataclass(frozen=True)
class Sight:
    """What may be seen. The keys are those of the table in the docs; `OffloadingEnv` says what a level adds.

    Args:
        information: `paper`, `stale` or `live`.
        fleet: S servers.
        service: their measured times; None under the linear law.
        numbered: whether tasks have numbers, so that one that is sent again can be known.
        device: what the environment is given, if anything.
    """

    information: Information
    fleet: ServerSpeeds
    service: MeasuredService | None
    numbered: bool
    device: torch.device | None = None

    def spec(self, e: int, b: int, n: int) -> Composite:
        """Of `see`. Args: e, b, n: environments, stations and tasks of each, E, B and N."""
        s = len(self.fleet.capacity_gcycles_per_s)
        seen = 2 + s if self.service is None else 2 + 2 * s
        like: dict[str, Any] = {"dtype": self.fleet.capacity_gcycles_per_s.dtype, "device": self.device}
        integer: dict[str, Any] = {"dtype": torch.int64, "device": self.device}
        flag: dict[str, Any] = {"dtype": torch.bool, "device": self.device}
        agents = {
            "observation": Unbounded((e, b, n, seen), **like),
            "valid": Binary(n, (e, b, n), **flag),
            "action_mask": Binary(s, (e, b, s), **flag),
            "input_mbit": Unbounded((e, b, n), **like),
            "work_gcycles": Unbounded((e, b, n), **like),
        }
        root: dict[str, Any] = {"queue_gcycles": Unbounded((e, s), **like)}
        if self.information != "paper":
            agents["result_mbit"] = Unbounded((e, b, n), **like)
            agents["home"] = Bounded(-1, s - 1, (e, b, n), **integer)
            root["servers"] = Composite(
                capacity_gcycles_per_s=Unbounded((e, s), **like),
                rate_mbit_per_s=Unbounded((e, s), **like),
                up=Binary(s, (e, s), **flag),
                shape=(e,),
            )
            root["shared_seed"] = Unbounded((e, 1), **integer)
            agents["last_span"] = Unbounded((e, b), **like)
            if self.service is not None:
                models = max(len(self.service.models), 1)
                agents["service_s"] = Unbounded((e, b, n, s), **like)
                agents["model"] = Bounded(-1, models - 1, (e, b, n), **integer)
                root["servers"]["loaded"] = Bounded(-1, models - 1, (e, s), **integer)
        if self.numbered:
            agents["task"] = Unbounded((e, b, n), **integer)
        if self.information == "live":
            agents["arrival"] = Bounded(0, b * n, (e, b, n), **integer)
        root["agents"] = Composite(agents, shape=(e, b))
        return Composite(root, shape=(e,))

    def see(
        self,
        grid: SlotGrid,
        queue_gcycles: Tensor,
        up: Tensor,
        state: ServiceState,
        task: Tensor | None,
        shared_seed: Tensor | None,
        last_span: Tensor | None,
    ) -> TensorDict:
        """What is seen of a slot, batch `[E]`.

        Args:
            grid: its tasks. queue_gcycles: at its start, `[E, S]`. up: which servers are, bool `[E, S]`.
            state: of measured servers. task: numbers of the tasks, `[E, B, N]`, where they have some.
            shared_seed: `[E, 1]`, where it may be seen. last_span: how far apart each station's arrivals of the step
                before lay, `[E, B]`, where it may be seen; -1 where nothing is to be told.
        """
        e, b, n = grid.valid.shape
        s = queue_gcycles.shape[-1]
        parts = [
            torch.stack([grid.input_mbit, grid.work_gcycles], -1),
            queue_gcycles[:, None, None].expand(e, b, n, s),
        ]
        service_s = None
        if self.service is not None:
            assert grid.measured is not None
            service_s = self.service.present_s(grid.measured, state)
            parts.append(service_s)
        # where all are down, all may be chosen: tasks wait for the repair
        allowed = up | ~up.any(-1, keepdim=True)
        agents = {
            "observation": torch.cat(parts, -1),
            "valid": grid.valid.clone(),
            "action_mask": allowed[:, None].expand(e, b, s).clone(),
            "input_mbit": grid.input_mbit.clone(),
            "work_gcycles": grid.work_gcycles.clone(),
        }
        root: dict[str, Any] = {"queue_gcycles": queue_gcycles.clone()}
        if self.information != "paper":
            agents["result_mbit"] = grid.result_mbit.clone()
            agents["home"] = grid.home.clone()
            root["servers"] = TensorDict(
                capacity_gcycles_per_s=self.fleet.capacity_gcycles_per_s.expand(e, s).clone(),
                rate_mbit_per_s=self.fleet.rate_mbit_per_s.expand(e, s).clone(),
                up=allowed,
                batch_size=[e],
            )
            root["shared_seed"] = shared_seed
            assert last_span is not None
            agents["last_span"] = last_span.nan_to_num(-1.0)
            if service_s is not None and grid.measured is not None:
                agents["service_s"], agents["model"] = service_s.clone(), grid.measured.model.clone()
                root["servers"]["loaded"] = state.loaded.clone()
        if task is not None:
            agents["task"] = task.clone()
        if self.information == "live":
            rank = torch.arange(grid.order.shape[1], device=grid.order.device).expand_as(grid.order)
            last = torch.full((e, b * n), b * n, dtype=torch.int64, device=grid.order.device)
            arrival = last.scatter(1, grid.order, rank).view(e, b, n)
            agents["arrival"] = torch.where(grid.valid, arrival, b * n)
        root["agents"] = TensorDict(agents, batch_size=[e, b], device=self.device)
        return TensorDict(root, batch_size=[e], device=self.device)
