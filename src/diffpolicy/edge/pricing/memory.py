"""What a fleet rule remembers from slot to slot: of servers, their latents and loads; of arrivals, what it heard."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Composite, Unbounded

from diffpolicy.edge.pricing import heard
from diffpolicy.edge.pricing.heard import Heard
from diffpolicy.edge.pricing.law import LATENTS, TASKS_PER_SERVER
from diffpolicy.edge.pricing.state import FleetState
from diffpolicy.policies.recurrent import RecurrentState

MEMORY = ("tasks", "work", "waiting", "load")
"""Recurrent keys of each server beside its latents, in `"fleet"`: moving averages of tasks and of work a slot, tasks
that wait on it, and the load at the end of the last slot, before it was worked on."""
SPAN = ("agents", "last_span")
"""How far apart each station's arrivals of the slot before lay, where an environment tells it."""


@dataclass(frozen=True)
class FleetMemory:
    """Which recurrent keys `("fleet", ...)` there are, and how they move on.

    Live, one memory of each environment; stale, one, with what was heard of all stations; private, one of each station.

    Args:
        information, learns: of `FleetRule`.
    """

    information: str
    learns: bool

    def shapes(self, servers: int, stations: int = 1, tasks: int = 1) -> dict[str, tuple[int, ...]]:
        """Of what is remembered in one environment, by name."""
        shapes = {**dict.fromkeys(MEMORY, (servers,)), "latent": (servers, LATENTS)}
        if self.learns:
            shapes["spans"] = (2,)
            if self.information != "live":
                shapes |= {"counts": (tasks,), "slots": (1,)}
                shapes |= {"sizes": (stations, tasks, 3), "known": (stations, tasks)}
        if self.information == "private" and stations > 1:
            shapes = {name: (stations, *shape) for name, shape in shapes.items()}
        return shapes

    def primer(self, servers: int, stations: int, tasks: int) -> RecurrentState:
        """The recurrent keys. Args: stations, tasks: B and N, of which a live rule keeps nothing."""
        shapes = self.shapes(servers, stations, tasks)
        fields = {name: Unbounded(shape, dtype=torch.float64) for name, shape in shapes.items()}
        spec = Composite(fleet=Composite(fields, shape=()))
        return RecurrentState(spec, lambda e: TensorDict(fleet=_fresh(shapes, e), batch_size=[e]))

    def of(self, td: TensorDictBase) -> TensorDictBase:
        """What is remembered as a slot begins; afresh where nothing is."""
        memory = td.get("fleet", None)
        if memory is None:
            e, b, n = td["agents", "valid"].shape
            queue = td["queue_gcycles"]
            memory = _fresh(self.shapes(queue.shape[-1], b, n), e, queue.device)
        return memory

    def of_dispatcher(self, memory: TensorDictBase, stations: int) -> TensorDictBase:
        """What one dispatcher remembers, where stations that hear of themselves alone would remember each their own."""
        if self.information != "private" or stations == 1:
            return memory
        return memory.apply(lambda x: x[:, 0], batch_size=memory.batch_size[:1])

    def spans(self, td: TensorDictBase, memory: TensorDictBase, own: Tensor | None = None) -> Tensor:
        """What is known of how far apart stations' arrivals lie, `[K, 2]`. Args: own: see `heard.span_learned`."""
        span: Tensor | None = td.get(SPAN, None)
        if not self.learns or span is None:
            return torch.zeros(len(td), 2, dtype=torch.float64, device=td["queue_gcycles"].device)
        return heard.span_learned(memory["spans"], span, own)


def heard_in(memory: TensorDictBase) -> Heard:
    """What a memory holds of arrivals."""
    return Heard(*(memory[name] for name in Heard._fields))


def of_servers(state: FleetState) -> dict[str, Tensor]:
    """What is remembered of servers in the next slot. Args: state: as the slot ends, before it is worked on."""
    x, total = state.servers, state.sent_tasks.sum(-1, keepdim=True)
    share = 1 - torch.exp(-total / (TASKS_PER_SERVER * state.whole.number))
    return {
        "tasks": x.tasks + share * (state.sent_tasks - x.tasks),
        "work": x.work + share * (state.sent_work - x.work),
        "waiting": x.waiting,
        "load": x.load,
        "latent": state.latent,
    }


def _fresh(shapes: dict[str, tuple[int, ...]], e: int, device: torch.device | None = None) -> TensorDict:
    """Memories before anything was seen. Args: shapes: of one environment. e: environments."""
    values = {name: torch.zeros(e, *shape, dtype=torch.float64, device=device) for name, shape in shapes.items()}
    values["latent"] += 1 / LATENTS
    return TensorDict(values, batch_size=[e])
