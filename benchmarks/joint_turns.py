"""A station's turn: its critic as numbers, and `pretrained:stale` with another search for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from tensordict import TensorDictBase
from torch import Tensor

from diffpolicy.edge import FleetPolicy, Scenario
from diffpolicy.edge.env.env import OffloadingEnv
from diffpolicy.edge.physics.queueing import ServerSpeeds, SlotTasks, unloaded_delay_s, work_sent_gcycles
from diffpolicy.edge.pricing import law
from diffpolicy.edge.pricing.chains import PriceChain
from diffpolicy.edge.pricing.imagined import Met, Own, at_turn
from diffpolicy.edge.pricing.imagining import Imagining
from diffpolicy.edge.pricing.law import Coefficients
from diffpolicy.edge.pricing.memory import heard_in, of_servers
from diffpolicy.edge.pricing.rule import FleetRule
from diffpolicy.edge.pricing.state import FleetState
from diffpolicy.policies.recurrent import with_recurrent_state
from joint_renewed import beam_renewed
from joint_search import Costs, Search, cost_s

Decide = Callable[[list[Costs], list[Costs], list[Costs]], list[Any]]
"""From `alone`, `service` and `slope` of several stations to servers of their tasks, `[n_r]`; see `Search`."""

RISE = 0.5
"""Better than 0 and 1 on one episode each of 40 and 50 tasks, for decisions in order and for joint ones."""


def one_by_one(search: Search) -> Decide:
    """A search as it decides of several stations."""
    return lambda *turns: [search(*turn) for turn in zip(*turns, strict=True)]


class TurnRule(FleetRule):
    """The stale rule, whose stations place their own tasks by a search over the price that they meet at their turn.

    Args:
        decide: the search; None: as the rule does, task by task with prices renewed after each.
        ahead: whether the price counts the station's own tasks still to come, as the rule's own does; otherwise it
            counts those of later stations alone, and siblings are counted by the search.
        width: of a beam over the rule's own renewed prices in the place of a search; 0: none.
        watch: is given `alone`, `service` and `slope` of the stations of a slot.
    """

    def __init__(self, decide: Decide | None = None, *, ahead: bool = False, width: int = 0, watch: Any = None) -> None:
        super().__init__("stale")
        self.by, self.ahead, self.width, self.watch = decide, ahead, width, watch
        self.seconds = 0.0

    def decide(self, td: TensorDictBase, coefficients: Coefficients, generator: torch.Generator) -> Tensor:
        begun = time.process_time()
        found = super().decide(td, coefficients, generator)
        self.seconds += time.process_time() - begun
        return found

    def _imagining(self, coefficients: Coefficients) -> Imagining:
        return Turns(self.memory, self.told, coefficients, self.weight, self)

    def place(self, met: Met, coefficients: Coefficients) -> Tensor:
        """Servers of the tasks of stations at their turn, int64 `[R, N]`."""
        chosen = torch.zeros(met.queue.amount.shape, dtype=torch.int64)
        if self.by is not None or self.watch is not None:
            counts = met.queue.amount.sum(-1).long().tolist()
            *costs, slope = critic(met, coefficients, ahead=self.ahead)
            turns = [[x[:n] for x, n in zip(y.numpy(), counts, strict=True)] for y in costs]
            if self.watch is not None:
                self.watch(*turns, list(slope.numpy()))
            if self.by is not None:
                for row, servers in enumerate(self.by(*turns, list(slope.numpy()))):
                    chosen[row, : counts[row]] = torch.as_tensor(servers)
                return chosen
        if self.width:
            assert isinstance(coefficients, PriceChain)
            return beam_renewed(met, coefficients, self.width, ahead=self.ahead)
        return met.found.place(met.queue, coefficients)[0]


@dataclass(frozen=True)
class Turns(Imagining):
    """Stations that come in turn, and place their tasks by a rule. Args: rule: it; others: of `Imagining`."""

    rule: TurnRule

    def _decided(
        self,
        td: TensorDictBase,
        memory: TensorDictBase,
        seen: SlotTasks,
        heard_of: Tensor | None,
        who: Tensor,
        station: Tensor,
        own: Own,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        slot, fleets = self._imagined(td, memory, seen, alone=False)
        met = at_turn(slot, fleets, who, station, own, self.coefficients)
        new = {**memory, **of_servers(met.after), "spans": self.memory.spans(td, memory)}
        return self.rule.place(met, self.coefficients), new | heard_in(memory).learned(seen, None)._asdict()


def critic(met: Met, coefficients: Coefficients, *, ahead: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """`alone` and `service` of the tasks of stations at their turn, `[R, N, S]`, and `slope`, `[R, S]`.

    The slope is `RISE` times how the price of a server rises as every one gets a task of the station's usual work.
    Where the network's price falls, it is nought: a search would pile up all tasks where the price is said to vanish.

    Args:
        met: see there. coefficients: the network. ahead: see `TurnRule`.
    """
    found, queue = met.found, met.queue
    rest = (queue.rest if ahead else met.left.expand_as(queue.rest)).unsqueeze(-1)
    backlog = (found.servers.load / found.servers.capacity).unsqueeze(1)
    alone = queue.delay_s + backlog + queue.service_s * priced(found, rest, queue.service_s)
    real = queue.amount.unsqueeze(-1).to(alone)
    usual = (queue.service_s * real).sum(1, keepdim=True) / real.sum(1, keepdim=True).clamp_min(1)
    s = found.servers
    more = s._replace(load=s.load + usual.squeeze(1) * s.capacity, waiting=s.waiting + 1)
    every = torch.arange(s.load.shape[-1]).expand_as(s.load)
    moved = replace(found, servers=more)._renewed(every, queue.turn[:, -1:], every >= 0, coefficients)
    rise = (priced(moved, rest[:, -1:], usual) - priced(found, rest[:, -1:], usual)) / usual.clamp_min(1e-9)
    return alone, queue.service_s.contiguous(), RISE * rise.squeeze(1).clamp_min(0)


def priced(state: FleetState, rest: Tensor, service_s: Tensor) -> Tensor:
    """Prices of servers for tasks, `[R, N, S]`. Args: state: of R fleets. rest: `[R, N, 1]`. service_s: `[R, N, S]`."""
    terms = law.Terms(*(x.unsqueeze(1) for x in state.terms))
    return law.price(terms, rest, (state.fleet_load / state.whole.capacity).unsqueeze(-1), service_s)


def policy_of(scenario: Scenario, rule: TurnRule) -> FleetPolicy:
    """The parameters of `pretrained:stale` under a rule."""
    policy = FleetPolicy.pretrained("stale")
    # not `for_scenario`, which would decide by a copy of the rule
    policy.rule = rule
    rule.told = rule.told.of_scenario(scenario)
    return policy


def hindsight(scenario: Scenario, seed: int, searches: dict[str, Search]) -> dict[str, float]:
    """What searches cost by a critic that knows the episode, as shares of the delay that the rule's decisions cost.

    The rule plays an episode. Then each station's slot is decided again while all else stays as it was: the queues it
    met are the real ones, and the price of a server is the number of later tasks of its busy period, so that J is the
    exact total to first order.
    """
    env = OffloadingEnv(scenario, [1], seed, information="stale", dtype=torch.float64)
    policy = policy_of(scenario, TurnRule())
    with torch.no_grad():
        played = with_recurrent_state(env, policy).rollout(scenario.slots or 1, policy)[0]
    agents, servers = played["agents"], len(scenario.servers)
    valid, action, work = (agents[x] for x in ("valid", "action", "work_gcycles"))
    fleet = ServerSpeeds(env.fleet.capacity_gcycles_per_s, env.fleet.rate_mbit_per_s)
    tasks = SlotTasks(agents["home"], agents["input_mbit"], agents["result_mbit"], work, valid)
    f = fleet.capacity_gcycles_per_s
    unloaded, service = unloaded_delay_s(tasks, fleet), work.unsqueeze(-1) / f
    sent = work_sent_gcycles(action, work * valid, servers)
    count = work_sent_gcycles(action, valid.to(work), servers)
    met = played["queue_gcycles"].unsqueeze(1) + sent.cumsum(1) - sent
    later = count.sum(1, keepdim=True) - count.cumsum(1)
    beyond, price = torch.zeros(servers, dtype=work.dtype), []
    for t in reversed(range(len(valid))):
        price.append(later[t] + beyond)
        on = played["queue_gcycles"][t] > 0
        beyond = torch.where(on, count[t].sum(0) + beyond, 0.0)
    alone = unloaded + (met / f).unsqueeze(2) + service * torch.stack(price[::-1]).unsqueeze(2)
    flat = np.zeros(servers)
    total = dict.fromkeys(("as played", *searches), 0.0)
    for t, b in np.ndindex(*valid.shape[:2]):
        n = int(valid[t, b].sum())
        of = alone[t, b, :n].numpy(), service[t, b, :n].numpy(), flat
        total["as played"] += cost_s(*of, action[t, b, :n].numpy())
        for name, search in searches.items():
            total[name] += cost_s(*of, search(*of))
    delay = -float(played["next", "agents", "reward"].sum())
    return {name: value / delay for name, value in total.items()}
