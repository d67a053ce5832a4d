"""Rules that need no training, with the tensordict interface of a learned policy.

Each reads the keys in `in_keys` at its level of information and writes `("agents", "action")`, int64 `[E, B, N]`;
ties go to the lowest index. With `c_a(q) = q_a / f_a + w / f_a + r / v_a + [a is not the origin] d / v_a`. Where
servers have measured times, the time that the task would take on a, as a is at the start of the slot, stands for
w / f_a.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.data import Composite, Unbounded

from diffpolicy.edge.physics.queueing import Fleet, SlotTasks, assign_in_order, unloaded_delay_s
from diffpolicy.edge.rules.price import Price
from diffpolicy.edge.rules.rule import SERVICE, Heuristic
from diffpolicy.errors import InputError
from diffpolicy.policies.recurrent import RecurrentState

_SIZES: list[NestedKey] = [("agents", "input_mbit"), ("agents", "work_gcycles"), ("agents", "valid")]
_SERVERS: list[NestedKey] = [("servers", "capacity_gcycles_per_s"), ("servers", "rate_mbit_per_s"), ("servers", "up")]
_COSTS: list[NestedKey] = [
    *_SIZES,
    *_SERVERS,
    "queue_gcycles",
    ("agents", "result_mbit"),
    ("agents", "home"),
]


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
    reads: ClassVar = [("agents", "valid"), *_SERVERS]

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


class RoundRobin(Heuristic):
    """Station b sends its tasks to b, b + 1, b + 2, ... modulo S, going on from slot to slot.

    A turn of a server that is down falls to the next one that is up.
    """

    name, information = "round-robin", "paper"
    reads: ClassVar = [("agents", "valid"), ("agents", "action_mask"), ("agents", "turn")]

    def decide(self, td: TensorDictBase) -> Tensor:
        valid, turn = td["agents", "valid"], td["agents", "turn"]
        position = valid.long().cumsum(-1) - 1
        td["next", "agents", "turn"] = (turn + valid.sum(-1)) % self.servers
        server: Tensor = (turn.unsqueeze(-1) + position.clamp_min(0)) % self.servers
        up = td["agents", "action_mask"]
        if not up.all():
            index = torch.arange(self.servers, device=up.device)
            distance = (index - index.unsqueeze(-1)) % self.servers  # from each server to each other one
            far = torch.where(up.unsqueeze(-2), distance, self.servers)
            server = far.argmin(-1).gather(-1, server)
        return server

    def make_tensordict_primer(self) -> RecurrentState:
        """The recurrent key `("agents", "turn")`: the server of each station's next task, int64 `[E, B]`."""
        return _station_state("turn", torch.arange(self.stations) % self.servers)


class WeightedRoundRobin(Heuristic):
    """Smooth weighted round robin by capacity, per station.

    Before each task every server earns its f; the richest is taken and pays sum f. So in n tasks each server gets about
    n f_a / sum f of them, evenly spread. A station's valid tasks must stand before the others, as they do in
    `OffloadingEnv`.
    """

    name = "weighted-round-robin"
    reads: ClassVar = [("agents", "valid"), *_SERVERS, ("agents", "credit")]

    def decide(self, td: TensorDictBase) -> Tensor:
        valid = td["agents", "valid"]
        f = (td["servers", "capacity_gcycles_per_s"] * td["servers", "up"]).double()[:, None]
        down = ~td["servers", "up"][:, None]
        price = valid * f.sum(-1, keepdim=True)
        credit = td["agents", "credit"]
        home = torch.zeros_like(valid, dtype=torch.int64)
        server = assign_in_order(
            lambda k, paid: (paid - (k + 1) * f).masked_fill(down, torch.inf),
            SlotTasks(home, price, price, price, valid),
            -credit,
        )
        paid = torch.zeros_like(credit).scatter_add(-1, server, price)
        td["next", "agents", "credit"] = credit + valid.sum(-1, keepdim=True) * f - paid
        return server

    def make_tensordict_primer(self) -> RecurrentState:
        """The recurrent key `("agents", "credit")`, float64 `[E, B, S]`."""
        return _station_state("credit", torch.zeros(self.stations, self.servers, dtype=torch.float64))


class PowerOfTwo(Heuristic):
    """The less loaded, by q / f at the start of the slot, of two distinct uniformly drawn servers."""

    name = "power-of-two"
    reads: ClassVar = [("agents", "valid"), *_SERVERS, "queue_gcycles"]

    def decide(self, td: TensorDictBase) -> Tensor:
        shape, s = td["agents", "valid"].shape, self.servers
        backlog = _backlog_s(td)
        u = self.uniform(2, *shape).to(backlog.device)
        first = (u[0] * s).long().clamp_max(s - 1)
        second = (first + 1 + (u[1] * (s - 1)).long().clamp_max(max(s - 2, 0))) % s
        pair = torch.stack([torch.minimum(first, second), torch.maximum(first, second)])
        of_pair = backlog[None, :, None, None].expand(2, *shape, s).gather(-1, pair.unsqueeze(-1)).squeeze(-1)
        return torch.where(of_pair[1] < of_pair[0], pair[1], pair[0])


class LeastWork(Heuristic):
    """The server with the smallest q / f at the start of the slot."""

    name = "least-work"
    reads: ClassVar = [("agents", "valid"), *_SERVERS, "queue_gcycles"]

    def decide(self, td: TensorDictBase) -> Tensor:
        return _backlog_s(td).argmin(-1)[:, None, None].expand(td["agents", "valid"].shape).clone()


class SlotGreedy(Heuristic):
    """The smallest c_a of the queues at the start of the slot: every task of the slot sees the same queues."""

    name = "slot-greedy"
    reads: ClassVar = _COSTS

    def decide(self, td: TensorDictBase) -> Tensor:
        return (_unloaded_s(td) + _backlog_s(td)[:, None, None]).argmin(-1)


class LeastWorkOwn(Heuristic):
    """The smallest c_a(q + B x own sends): each station supposes that the B - 1 others send what it sends."""

    name = "least-work-own"
    reads: ClassVar = _COSTS

    def decide(self, td: TensorDictBase) -> Tensor:
        delay, f = _unloaded_s(td), td["servers", "capacity_gcycles_per_s"][:, None]
        down = ~td["servers", "up"][:, None]
        tasks = _tasks(td)
        scaled = SlotTasks(
            tasks.origin, tasks.input_mbit, tasks.result_mbit, self.stations * tasks.work_gcycles, tasks.valid
        )
        queue = td["queue_gcycles"][:, None].expand(-1, self.stations, -1)
        work_on = _work_on(td, f.unsqueeze(-2))
        return assign_in_order(
            lambda k, q: (q / f + delay[:, :, k]).masked_fill(down, torch.inf),
            scaled,
            queue,
            None if work_on is None else self.stations * work_on,
        )


class OptTS(Heuristic):
    """The smallest c_a of the live queues, task by task in order of arrival: the greedy rule of LAD-TS."""

    name, information = "opt-ts", "live"
    reads: ClassVar = [*_COSTS, ("agents", "arrival")]

    def decide(self, td: TensorDictBase) -> Tensor:
        grid = _tasks(td)
        count = int(grid.valid.flatten(1).sum(-1).max())
        order = td["agents", "arrival"].flatten(1).argsort(dim=-1, stable=True)[:, :count]
        tasks = SlotTasks(*(getattr(grid, x).flatten(1).gather(1, order) for x in SlotTasks.__dataclass_fields__))
        fleet, down = _fleet(td), ~td["servers", "up"]
        delay, f = unloaded_delay_s(tasks, fleet), fleet.capacity_gcycles_per_s
        work_on = _work_on(td, f[:, None, None])
        if work_on is not None:
            work_on = work_on.flatten(1, 2).gather(1, order.unsqueeze(-1).expand(-1, -1, f.shape[-1]))
            delay = delay + (work_on - tasks.work_gcycles.unsqueeze(-1)) / f.unsqueeze(-2)
        delays = delay.masked_fill(down.unsqueeze(-2), torch.inf).unbind(-2)
        server = assign_in_order(lambda k, q: q / f + delays[k], tasks, td["queue_gcycles"], work_on)
        return torch.zeros_like(grid.origin).flatten(1).scatter(1, order, server).view(grid.valid.shape)


HEURISTICS: dict[str, type[Heuristic]] = {
    rule.name: rule
    for rule in (
        OptTS,
        Price,
        WeightedRoundRobin,
        CapacityProportional,
        PowerOfTwo,
        LeastWorkOwn,
        RoundRobin,
        SlotGreedy,
        Random,
        LeastWork,
        Local,
    )
}


def _draw(weight: Tensor, u: Tensor) -> Tensor:
    """Index drawn in proportion to `weight [E, B, S]` by the uniform `u [E, B, N]`: inverse of the running sum."""
    total = weight.cumsum(-1)
    drawn = torch.searchsorted(total.contiguous(), (u * total[..., -1:]).contiguous(), right=True)
    last = weight.shape[-1] - 1 - weight.flip(-1).gt(0).byte().argmax(-1, keepdim=True)
    return torch.minimum(drawn, last)


def _fleet(td: TensorDictBase) -> Fleet:
    return Fleet(td["servers", "capacity_gcycles_per_s"], td["servers", "rate_mbit_per_s"])


def _tasks(td: TensorDictBase) -> SlotTasks:
    agents = td["agents"]
    return SlotTasks(*(agents[x] for x in ("home", "input_mbit", "result_mbit", "work_gcycles", "valid")))


def _unloaded_s(td: TensorDictBase) -> Tensor:
    """Delay of each task on each server if nothing were queued, `[E, B, N, S]`."""
    fleet = _fleet(td)
    per_station = Fleet(fleet.capacity_gcycles_per_s[:, None], fleet.rate_mbit_per_s[:, None])
    delay = unloaded_delay_s(_tasks(td), per_station)
    f = per_station.capacity_gcycles_per_s.unsqueeze(-2)
    work_on = _work_on(td, f)
    return delay if work_on is None else delay + (work_on - td["agents", "work_gcycles"].unsqueeze(-1)) / f


def _work_on(td: TensorDictBase, f: Tensor) -> Tensor | None:
    """What each task would add to each server's queue under measured times, `[E, B, N, S]`; None without them."""
    service_s = td.get(SERVICE, None)
    if service_s is None:
        return None
    work: Tensor = service_s * f * td["agents", "valid"].unsqueeze(-1)
    return work


def _backlog_s(td: TensorDictBase) -> Tensor:
    """The backlog q / f at the start of the slot, infinite where a server is down, seconds `[E, S]`."""
    backlog: Tensor = td["queue_gcycles"] / td["servers", "capacity_gcycles_per_s"]
    return backlog.masked_fill(~td["servers", "up"], torch.inf)


def _station_state(name: str, initial: Tensor) -> RecurrentState:
    stations = initial.shape[0]
    spec = Composite(agents=Composite({name: Unbounded(initial.shape, dtype=initial.dtype)}, shape=(stations,)))

    def fresh(e: int) -> TensorDict:
        value = initial.expand(e, *initial.shape).clone()
        return TensorDict(agents=TensorDict({name: value}, batch_size=[e, stations]), batch_size=[e])

    return RecurrentState(spec, fresh)
