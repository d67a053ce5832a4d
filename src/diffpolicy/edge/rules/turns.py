"""Rules by turns: each station goes round the servers, and carries from slot to slot whose turn is next."""

from __future__ import annotations

from typing import ClassVar

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Composite, Unbounded

from diffpolicy.edge.rules.costs import SERVERS
from diffpolicy.edge.rules.rule import Heuristic
from diffpolicy.policies.recurrent import RecurrentState, carried
from diffpolicy.policies.sequential import decide_in_order


class RoundRobin(Heuristic):
    """Station b sends its tasks to b, b + 1, b + 2, ... modulo S, going on from slot to slot.

    A turn of a server that is down falls to the next one that is up.
    """

    name, information = "round-robin", "paper"
    reads: ClassVar = [("agents", "valid"), ("agents", "action_mask"), ("agents", "turn")]

    def decide(self, td: TensorDictBase) -> Tensor:
        valid, turn = td["agents", "valid"], carried(td, ("agents", "turn"))
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
    reads: ClassVar = [("agents", "valid"), *SERVERS, ("agents", "credit")]

    def decide(self, td: TensorDictBase) -> Tensor:
        valid = td["agents", "valid"]
        f = (td["servers", "capacity_gcycles_per_s"] * td["servers", "up"]).double()[:, None]
        down = ~td["servers", "up"][:, None]
        price = valid * f.sum(-1, keepdim=True)
        credit = carried(td, ("agents", "credit"))
        server = decide_in_order(lambda k, paid: (paid - (k + 1) * f).masked_fill(down, torch.inf), price, -credit)
        paid = torch.zeros_like(credit).scatter_add(-1, server, price)
        td["next", "agents", "credit"] = credit + valid.sum(-1, keepdim=True) * f - paid
        return server

    def make_tensordict_primer(self) -> RecurrentState:
        """The recurrent key `("agents", "credit")`, float64 `[E, B, S]`."""
        return _station_state("credit", torch.zeros(self.stations, self.servers, dtype=torch.float64))


def _station_state(name: str, initial: Tensor) -> RecurrentState:
    stations = initial.shape[0]
    spec = Composite(agents=Composite({name: Unbounded(initial.shape, dtype=initial.dtype)}, shape=(stations,)))

    def fresh(e: int) -> TensorDict:
        value = initial.expand(e, *initial.shape).clone()
        return TensorDict(agents=TensorDict({name: value}, batch_size=[e, stations]), batch_size=[e])

    return RecurrentState(spec, fresh)
