"""From what a station or a dispatcher sees to priced decisions: memories, a slot's order, imagined stations."""

from __future__ import annotations

import copy
import math
from typing import Any, TypeVar

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.data import Composite, Unbounded

from diffpolicy._types import Ints
from diffpolicy.edge.physics.file_steps import FileSteps
from diffpolicy.edge.physics.queueing import SlotTasks
from diffpolicy.edge.pricing.law import LATENTS, TASKS_PER_SERVER, Coefficients, PriceChain, Servers
from diffpolicy.edge.pricing.slot import costs_of, possible_tasks, tasks_of, turns
from diffpolicy.edge.pricing.state import FleetState, Queue, form_of
from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.edge.workload.lad_ts import Workload
from diffpolicy.edge.workload.task_file import TaskList
from diffpolicy.errors import InputError
from diffpolicy.policies.draws import without_chance
from diffpolicy.policies.recurrent import RecurrentState

MEMORY = ("tasks", "work", "waiting", "load")
"""Recurrent keys of each server beside its latents, in `"fleet"`: moving averages of tasks and of work a slot, tasks
that wait on it, and the load at the end of the last slot, before it was worked on."""
_SIZES = ("input_mbit", "work_gcycles", "valid", "result_mbit", "home")
READS: list[NestedKey] = [
    *(("agents", x) for x in _SIZES),
    ("servers", "capacity_gcycles_per_s"),
    ("servers", "rate_mbit_per_s"),
    ("servers", "up"),
    "queue_gcycles",
]
Rule = TypeVar("Rule", bound="FleetRule")


class FleetRule:
    """Decides for any number of servers and stations by own delay and price.

    Live, it places the slot's tasks in order of arrival. Stale, every station imagines the same slot, from the queues
    at its start: every task that a station may have, counted by its chance in the law of arrivals, its input drawn
    with the shared seed. Then each places its own tasks where it stands in it: no message is needed, and what really
    comes differs from what was imagined only by chance, independently from station to station.

    Args:
        information: `live` or `stale`.
        candidates: servers among which each task chooses, drawn uniformly; None: all. An action without chance, by
            TorchRL's `set_exploration_type`, chooses among all.
        weight: of prices, at least 0. At 1 the mean delay is what counts; less spares the largest tasks, who pay for
            it; at 0 the live rule is Opt-TS.
    """

    def __init__(self, information: str, candidates: int | None = None, weight: float = 1.0) -> None:
        if information not in ("live", "stale"):
            raise InputError(f"a fleet rule is live or stale, got {information!r}")
        if candidates is not None and candidates < 1:
            raise InputError(f"candidates must be at least 1, got {candidates}")
        if not 0 <= weight < float("inf"):
            raise InputError(f"weight must be at least 0, got {weight}")
        self.information, self.candidates, self.weight = information, candidates, weight
        self.workload: Workload | None = None
        self.step_s = 1.0
        self.usual: tuple[float, float] | None = None
        """Tasks and Gcycles of a step, where each step is one request: then nothing is stale and nothing imagined."""

    def for_scenario(self: Rule, scenario: Scenario) -> Rule:
        """The rule with a scenario's law of arrivals, which a stale rule imagines."""
        other = copy.copy(self)
        other.workload = scenario.workload if isinstance(scenario.workload, Workload) else None
        rate = getattr(scenario.workload, "rate_per_s", None)
        other.step_s = 1 / rate if rate else scenario.slot_s
        return other

    def for_tasks(self: Rule, tasks: TaskList) -> Rule:
        """The rule for a task file: where each step is one request, it is told their mean distance and work."""
        other, steps = copy.copy(self), tasks.duration_s
        if len(steps) == len(tasks) > 1:
            other.usual = 1.0, float(tasks.work_gcycles.mean())
            other.step_s = float(steps[:-1].mean()) or self.step_s
        return other

    def primer(self, servers: int) -> RecurrentState:
        """The recurrent keys `("fleet", ...)`."""
        fields = {name: Unbounded(shape, dtype=torch.float64) for name, shape in _shapes(servers).items()}
        spec = Composite(fleet=Composite(fields, shape=()))
        return RecurrentState(spec, lambda e: self._fresh(e, servers))

    @staticmethod
    def _fresh(e: int, servers: int, device: torch.device | None = None) -> TensorDict:
        """Memories before anything was seen."""
        like: dict[str, Any] = {"dtype": torch.float64, "device": device}
        values = {name: torch.zeros(e, *s, **like) for name, s in _shapes(servers).items()}
        values["latent"] += 1 / LATENTS
        return TensorDict(fleet=TensorDict(values, batch_size=[e]), batch_size=[e])

    def decide(self, td: TensorDictBase, coefficients: Coefficients, generator: torch.Generator) -> Tensor:
        """Servers, int64 `[E, B, N]`; writes `("next", "fleet", ...)`."""
        valid: Tensor = td["agents", "valid"]
        e, b, n = valid.shape
        seen = tasks_of(td)
        delay, service = costs_of(seen, td, td.get(("agents", "service_s"), None))
        state = self._start(td, seen, coefficients)
        if self.information == "live" or b == 1 or self.usual is not None:
            arrival = td.get(("agents", "arrival"), None)
            if b == 1 or arrival is None:
                arrival = torch.arange(b * n, device=valid.device).view(1, b, n).expand(e, b, n)
            flat = valid.flatten(1)
            order = arrival.flatten(1).masked_fill(~flat, b * n).argsort(dim=-1, stable=True)
            order = order[:, : int(flat.sum(-1).max())]
            stations = b if self.usual is None else 1
            turn, rest = turns(order, valid.view(e, stations, -1), state.whole.tasks * state.whole.number / stations)
            rest = torch.cat([torch.ones_like(rest[:, :1]), rest[:, :-1]], -1)
            wide = order.unsqueeze(-1).expand(-1, -1, delay.shape[-1])
            queue = Queue(
                delay_s=delay.flatten(1, 2).gather(1, wide),
                service_s=service.flatten(1, 2).gather(1, wide),
                amount=flat.gather(1, order),
                turn=turn,
                rest=rest,
                others=_by_capacity(td),
                candidates=self._drawn(order.shape, td, generator),
            )
            chosen, state, _ = state.place(queue, coefficients)
            action = torch.zeros(e, b * n, dtype=torch.int64, device=valid.device).scatter(1, order, chosen)
            self._remember(td, state)
            return action.view(e, b, n)
        return self._imagine(td, seen, delay, service, state, coefficients, generator)

    def decide_file(self, steps: FileSteps, first: TensorDictBase, coefficients: Coefficients) -> Ints | None:
        """All decisions of a task file at once, `[K]`; None: there is no compiled form of how this rule decides.

        Args:
            steps: the file. first: what is seen of its first step. coefficients: the network.

        Raises:
            InputError: the prices' coefficients are not finite.
        """
        live = self.information == "live" or steps.stations == 1 or self.usual is not None
        all_of_them = self.candidates is None or self.candidates >= len(steps.fleet.rate_mbit_per_s)
        if type(self) is not FleetRule or not live or not all_of_them:
            return None
        if not isinstance(coefficients, PriceChain) or form_of(coefficients, first["queue_gcycles"]) is None:
            return None
        from diffpolicy.edge.pricing.whole_file import play

        begun, order = self._start(first, tasks_of(first), coefficients), _by_capacity(first)[0]
        chosen, latent = play(steps, begun, order, coefficients, single=self.usual is not None)
        refuse_unpriced(latent.sum())
        return chosen

    def _drawn(self, shape: torch.Size, td: TensorDictBase, generator: torch.Generator) -> Tensor | None:
        """The candidates of each task, servers that are up, distinct if there are C, `[R, K, C]`; None: all are."""
        up = td["servers", "up"]
        if self.candidates is None or self.candidates >= up.shape[-1] or without_chance():
            return None
        up = up.repeat_interleave(shape[0] // len(up), 0)
        # windows, begun anywhere, of one random order of those that are up: each server as likely, and cheap
        drawn: dict[str, Any] = {"generator": generator, "device": generator.device}
        key = torch.rand(up.shape, **drawn).to(up.device).masked_fill(~up, 2)
        count = up.sum(-1).clamp_min(1).view(-1, 1, 1)
        start = (torch.rand(*shape, 1, **drawn).to(up.device) * count).long()
        window = (start + torch.arange(self.candidates, device=up.device)) % count
        return key.argsort(-1).gather(1, window.flatten(1)).view(*shape, self.candidates)

    def _start(self, td: TensorDictBase, seen: SlotTasks, coefficients: Coefficients) -> FleetState:
        """The fleet as the slot begins."""
        f, up = td["servers", "capacity_gcycles_per_s"].double(), td["servers", "up"]
        queue, memory = td["queue_gcycles"].double().masked_fill(~up, 0), td.get("fleet", None)
        if memory is None:
            memory = self._fresh(len(f), f.shape[-1], f.device)["fleet"]
        e = len(f)
        tasks, work = memory["tasks"], memory["work"]
        fresh = tasks.sum(-1, keepdim=True) <= 0
        if fresh.any():
            stations = seen.valid.shape[1]
            share = f * up / (f * up).sum(-1, keepdim=True)
            if self.usual is not None:
                mean_tasks, mean_work = (f.new_full((e, 1), x / stations) for x in self.usual)
            elif self.workload is not None:
                lo, hi = self.workload.tasks_per_station_and_slot
                mean_tasks = f.new_full((e, 1), (lo + hi) / 2)
                mean_work = f.new_full((e, 1), self.workload.mean_work_gcycles())
            else:
                here = seen.valid.sum(-1)
                first = here.gt(0).byte().argmax(-1, keepdim=True)
                mean_tasks = here.gather(-1, first).double().clamp_min(1)
                works = seen.work_gcycles.sum(-1).double()
                mean_work = works.gather(-1, first).clamp_min(1e-9)
            tasks = torch.where(fresh, mean_tasks * stations * share, tasks)
            work = torch.where(fresh, mean_work * stations * share, work)
        ratio = torch.where(memory["load"] > 0, queue / memory["load"].clamp_min(1e-300), 0.0).clamp_max(1)
        known = f.masked_fill(~up, torch.inf)
        slower = (known.unsqueeze(-2) < known.unsqueeze(-1)).sum(-1).to(f)
        rank = 2 * (slower + 0.5) / up.sum(-1, keepdim=True) - 1
        servers = Servers(queue, memory["waiting"] * ratio, f, tasks, work, rank)
        return FleetState.start(servers, memory["latent"], up, coefficients, step_s=self.step_s, weight=self.weight)

    def _remember(self, td: TensorDictBase, state: FleetState) -> None:
        """Writes the memories of the next slot."""
        x, total = state.servers, state.sent_tasks.sum(-1, keepdim=True)
        share = 1 - torch.exp(-total / (TASKS_PER_SERVER * state.whole.number))
        values = {
            "tasks": x.tasks + share * (state.sent_tasks - x.tasks),
            "work": x.work + share * (state.sent_work - x.work),
            "waiting": x.waiting,
            "load": x.load,
            "latent": state.latent,
        }
        td["next", "fleet"] = TensorDict(values, batch_size=td.batch_size)

    def _imagine(
        self,
        td: TensorDictBase,
        seen: SlotTasks,
        delay: Tensor,
        service: Tensor,
        state: FleetState,
        coefficients: Coefficients,
        generator: torch.Generator,
    ) -> Tensor:
        """Stale decisions: the slot as all stations imagine it, and each one's own tasks in its place."""
        e, b, n = seen.valid.shape
        dream, chance = self._dream(td, b)
        far, near = (x.flatten(1, 2) for x in costs_of(dream, td))
        mu = state.whole.tasks * state.whole.number / b
        amount = chance.repeat(b).expand(e, -1)
        come = amount.cumsum(-1)
        left = (b * mu - come).clamp_min(0)
        rest = torch.cat([torch.ones_like(mu), left[:, :-1] / (b * mu)], -1)
        imagined = Queue(far, near, amount, come / (come + left), rest)
        _, state, parts = state.place(imagined, coefficients, every=len(chance))
        # row e B + b is the slot as station b of environment e finds it
        turn_of = torch.arange(b * e, device=delay.device).view(b, e).t().flatten()
        own = FleetState.joined(parts).at(turn_of)
        index, station = torch.arange(n, device=delay.device), torch.arange(b, device=delay.device).view(1, b, 1)
        mine = seen.valid.sum(-1, keepdim=True)
        done = station * chance.sum() + index + 1
        left = (mine - index - 1).clamp_min(0) + (b - 1 - station) * mu.unsqueeze(-1)
        first = rest[:, :: len(chance)].unsqueeze(-1)
        rest = torch.cat([first, (left / (b * mu).unsqueeze(-1))[..., :-1]], -1)
        longest = int(mine.max())
        shape = torch.Size([e * b, longest])
        theirs = Queue(
            delay_s=delay.flatten(0, 1)[:, :longest],
            service_s=service.flatten(0, 1)[:, :longest],
            amount=seen.valid.flatten(0, 1)[:, :longest],
            turn=(done / (done + left)).flatten(0, 1)[:, :longest],
            rest=rest.flatten(0, 1)[:, :longest],
            candidates=self._drawn(shape, td, generator),
        )
        chosen = own.place(theirs, coefficients)[0]
        self._remember(td, state)
        action = torch.zeros(e, b, n, dtype=torch.int64, device=delay.device)
        action[..., :longest] = chosen.view(e, b, longest)
        return action

    def _dream(self, td: TensorDictBase, stations: int) -> tuple[SlotTasks, Tensor]:
        """Tasks that all stations may have, `[E, B, N]`, and the chances that a station has them, `[N]`."""
        if self.workload is None:
            raise InputError(
                "a stale fleet policy imagines the other stations' tasks, so its scenario needs a workload of "
                f"kind 'lad-ts' where there are several stations, here {stations}"
            )
        return possible_tasks(self.workload, td["shared_seed"], td["agents", "home"])


def refuse_unpriced(total: float) -> None:
    """Raises InputError if what is remembered of prices is not finite. Args: total: of it."""
    if not math.isfinite(total):
        raise InputError("the prices' coefficients are not finite: the policy's parameters are not")


def _by_capacity(td: TensorDictBase) -> Tensor:
    """Servers from the slowest on, of equals the one with the slowest link, int64 `[E, S]`."""
    order: Tensor = td["servers", "rate_mbit_per_s"].argsort(dim=-1, stable=True)
    return order.gather(-1, td["servers", "capacity_gcycles_per_s"].gather(-1, order).argsort(dim=-1, stable=True))


def _shapes(servers: int) -> dict[str, tuple[int, ...]]:
    return {**dict.fromkeys(MEMORY, (servers,)), "latent": (servers, LATENTS)}
