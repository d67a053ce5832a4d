"""From what a station or a dispatcher sees to priced decisions: memories, a slot's order, imagined stations."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any, TypeVar

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.data import Composite, Unbounded

from diffpolicy._types import Ints
from diffpolicy.edge.physics.file_steps import FileSteps
from diffpolicy.edge.physics.queueing import SlotTasks
from diffpolicy.edge.pricing import heard, imagined
from diffpolicy.edge.pricing.heard import Heard
from diffpolicy.edge.pricing.imagined import Own, Slot, decided
from diffpolicy.edge.pricing.law import LATENTS, TASKS_PER_SERVER, Coefficients, GatedChain, PriceChain, Servers
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
SPAN = ("agents", "last_span")
"""How far apart each station's arrivals of the slot before lay, where an environment tells it."""
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

    Live, it places the slot's tasks in order of arrival. Stale, every station imagines the slot, from the queues at its
    start: every task that a station may have, counted by its chance (`imagined`). Then each places its own tasks where
    it stands in it: no message is needed, and what really comes differs from what was imagined only by chance,
    independently from station to station. Private, each station imagines a slot of its own.

    What comes is the law of arrivals that the scenario tells, with inputs drawn by the shared seed, and what was heard
    since (`heard`): stale, of all stations' arrivals in earlier slots; private, of one's own alone. Whether stations
    come in turn or mixed is heard of as well, live too.

    Args:
        information: `live`, `stale` or `private`.
        candidates: servers among which each task chooses, drawn uniformly; None: all. An action without chance, by
            TorchRL's `set_exploration_type`, chooses among all.
        weight: of prices, at least 0. At 1 the mean delay is what counts; less spares the largest tasks, who pay for
            it; at 0 the live rule is Opt-TS.
        learns: whether it hears of arrivals; otherwise the law that it was told is all that it knows of them, and
            stations come in turn.
    """

    def __init__(
        self, information: str, candidates: int | None = None, weight: float = 1.0, *, learns: bool = True
    ) -> None:
        if information not in ("live", "stale", "private"):
            raise InputError(f"a fleet rule is live, stale or private, got {information!r}")
        if candidates is not None and candidates < 1:
            raise InputError(f"candidates must be at least 1, got {candidates}")
        if not 0 <= weight < float("inf"):
            raise InputError(f"weight must be at least 0, got {weight}")
        self.information, self.candidates, self.weight, self.learns = information, candidates, weight, learns
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

    def primer(self, servers: int, stations: int = 1, tasks: int = 1) -> RecurrentState:
        """The recurrent keys `("fleet", ...)`. Args: stations, tasks: B and N, of which a live rule keeps nothing."""
        shapes = self._shapes(servers, stations, tasks)
        fields = {name: Unbounded(shape, dtype=torch.float64) for name, shape in shapes.items()}
        spec = Composite(fleet=Composite(fields, shape=()))
        return RecurrentState(spec, lambda e: TensorDict(fleet=_fresh(shapes, e), batch_size=[e]))

    @property
    def remembers(self) -> tuple[str, ...]:
        """Names of the recurrent keys in `"fleet"`."""
        return tuple(self._shapes(1, 1, 1))

    def _shapes(self, servers: int, stations: int, tasks: int) -> dict[str, tuple[int, ...]]:
        """Of what is remembered in one environment."""
        shapes = {**dict.fromkeys(MEMORY, (servers,)), "latent": (servers, LATENTS)}
        if self.learns:
            shapes["spans"] = (2,)
            if self.information != "live":
                shapes |= {"counts": (tasks,), "slots": (1,)}
                shapes |= {"sizes": (stations, tasks, 3), "known": (stations, tasks)}
        if self.information == "private" and stations > 1:
            shapes = {name: (stations, *shape) for name, shape in shapes.items()}
        return shapes

    def memory_of(self, td: TensorDictBase) -> TensorDictBase:
        """What is remembered as a slot begins; afresh where nothing is."""
        memory = td.get("fleet", None)
        if memory is None:
            e, b, n = td["agents", "valid"].shape
            queue = td["queue_gcycles"]
            memory = _fresh(self._shapes(queue.shape[-1], b, n), e, queue.device)
        return memory

    def _of_dispatcher(self, memory: TensorDictBase, stations: int) -> TensorDictBase:
        """What one dispatcher remembers, where stations that hear of themselves alone would remember each their own."""
        if self.information != "private" or stations == 1:
            return memory
        return memory.apply(lambda x: x[:, 0], batch_size=memory.batch_size[:1])

    def decide(self, td: TensorDictBase, coefficients: Coefficients, generator: torch.Generator) -> Tensor:
        """Servers, int64 `[E, B, N]`; writes `("next", "fleet", ...)`."""
        valid: Tensor = td["agents", "valid"]
        e, b, n = valid.shape
        seen = tasks_of(td)
        delay, service = costs_of(seen, td, td.get(("agents", "service_s"), None))
        if self.information == "live" or b == 1 or self.usual is not None:
            arrival = td.get(("agents", "arrival"), None)
            if b == 1 or arrival is None:
                arrival = torch.arange(b * n, device=valid.device).view(1, b, n).expand(e, b, n)
            flat = valid.flatten(1)
            order = arrival.flatten(1).masked_fill(~flat, b * n).argsort(dim=-1, stable=True)
            order = order[:, : int(flat.sum(-1).max())]
            stations = b if self.usual is None else 1
            each = self.memory_of(td)
            memory = self._of_dispatcher(each, b)
            state = self._start(td, memory, seen, coefficients)
            spans = self._spans(td, memory)
            mu = state.whole.tasks * state.whole.number / stations
            turn, rest = turns(order, valid.view(e, stations, -1), mu, heard.mixed(spans))
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
            new = self._remembered(state)
            if self.learns:
                new["spans"] = spans
            if memory is not each:
                new = {name: x.unsqueeze(1).expand(-1, b, *x.shape[1:]) for name, x in new.items()}
            td["next", "fleet"] = TensorDict({**each, **new}, batch_size=td.batch_size)
            return action.view(e, b, n)
        return self._imagine(td, seen, delay, service, coefficients, generator)

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
        if (
            not isinstance(coefficients, PriceChain | GatedChain)
            or form_of(coefficients, first["queue_gcycles"]) is None
        ):
            return None
        from diffpolicy.edge.pricing.whole_file import play

        memory = self._of_dispatcher(self.memory_of(first), steps.stations)
        begun = self._start(first, memory, tasks_of(first), coefficients)
        order = _by_capacity(first)[0]
        single = self.usual is not None
        chosen, latent = play(steps, begun, order, coefficients, single=single, learns=self.learns)
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

    def _start(
        self,
        td: TensorDictBase,
        memory: TensorDictBase,
        seen: SlotTasks,
        coefficients: Coefficients,
        offered: Tensor | None = None,
    ) -> FleetState:
        """The fleet as the slot begins.

        Args:
            td: tells the servers. memory: of the slots before. seen: the slot's tasks, for a first slot without a law.
            coefficients: the network. offered: tasks and Gcycles of a slot as far as they are known better than by the
                memory's averages, `[E, 2]`; NaN where they are not.
        """
        f, up = td["servers", "capacity_gcycles_per_s"].double(), td["servers", "up"]
        queue, e = td["queue_gcycles"].double().masked_fill(~up, 0), len(f)
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
                works = (seen.work_gcycles * seen.valid).sum(-1).double()
                mean_work = works.gather(-1, first).clamp_min(1e-9)
            tasks = torch.where(fresh, mean_tasks * stations * share, tasks)
            work = torch.where(fresh, mean_work * stations * share, work)
        if offered is not None:
            known = ~offered.isnan()
            tasks, work = (
                torch.where(known[:, i, None], x * (offered[:, i, None] / x.sum(-1, keepdim=True)), x)
                for i, x in enumerate((tasks, work))
            )
        ratio = torch.where(memory["load"] > 0, queue / memory["load"].clamp_min(1e-300), 0.0).clamp_max(1)
        known = f.masked_fill(~up, torch.inf)
        slower = (known.unsqueeze(-2) < known.unsqueeze(-1)).sum(-1).to(f)
        rank = 2 * (slower + 0.5) / up.sum(-1, keepdim=True) - 1
        servers = Servers(queue, memory["waiting"] * ratio, f, tasks, work, rank)
        return FleetState.start(servers, memory["latent"], up, coefficients, step_s=self.step_s, weight=self.weight)

    @staticmethod
    def _remembered(state: FleetState) -> dict[str, Tensor]:
        """What is remembered of servers in the next slot."""
        x, total = state.servers, state.sent_tasks.sum(-1, keepdim=True)
        share = 1 - torch.exp(-total / (TASKS_PER_SERVER * state.whole.number))
        return {
            "tasks": x.tasks + share * (state.sent_tasks - x.tasks),
            "work": x.work + share * (state.sent_work - x.work),
            "waiting": x.waiting,
            "load": x.load,
            "latent": state.latent,
        }

    def _spans(self, td: TensorDictBase, memory: TensorDictBase, own: Tensor | None = None) -> Tensor:
        """What is known of how far apart stations' arrivals lie, `[K, 2]`. Args: own: see `heard.span_learnt`."""
        span: Tensor | None = td.get(SPAN, None)
        if not self.learns or span is None:
            return torch.zeros(len(td), 2, dtype=torch.float64, device=td["queue_gcycles"].device)
        return heard.span_learnt(memory["spans"], span, own)

    def _imagine(
        self,
        td: TensorDictBase,
        seen: SlotTasks,
        delay: Tensor,
        service: Tensor,
        coefficients: Coefficients,
        generator: torch.Generator,
    ) -> Tensor:
        """Decisions of stations who imagine one slot together, or one each where they hear of themselves alone."""
        e, b, n = seen.valid.shape
        memory, device = self.memory_of(td), delay.device
        stations = torch.arange(b, device=device)
        station = stations.repeat(e)
        mine = seen.valid.flatten(0, 1)
        longest = int(mine.sum(-1).max())
        theirs = Own(
            delay.flatten(0, 1)[:, :longest],
            service.flatten(0, 1)[:, :longest],
            mine[:, :longest],
            self._drawn(torch.Size([e * b, longest]), td, generator),
        )
        if self.information != "private":
            who = torch.arange(e, device=device).repeat_interleave(b)
            chosen, new = self._decided(td, memory, seen, None, who, station, theirs, coefficients)
        else:
            known = td.select(*READS, "shared_seed", SPAN, strict=False)
            memories = memory.apply(lambda x: x.flatten(0, 1), batch_size=[e * b])
            own, parts = station.unsqueeze(-1) == stations, []
            # each station imagines a slot of its own, so that they are many: some at once
            for rows in torch.arange(e * b, device=device).split(max(1, imagined.CELLS // delay[0].numel())):
                root, who = known[rows // b], torch.arange(len(rows), device=device)
                heard_of = replace(tasks_of(root), valid=root["agents", "valid"] & own[rows].unsqueeze(-1))
                of = root, memories[rows], heard_of, own[rows], who, station[rows], theirs.at(rows)
                parts.append(self._decided(*of, coefficients))
            chosen = torch.cat([x for x, _ in parts])
            new = {name: torch.cat([x[name] for _, x in parts]).unflatten(0, (e, b)) for name in parts[0][1]}
        td["next", "fleet"] = TensorDict(new, batch_size=[e])
        action: Tensor = torch.zeros(e, b, n, dtype=torch.int64, device=device)
        action[..., :longest] = chosen.view(e, b, longest)
        return action

    def _decided(
        self,
        td: TensorDictBase,
        memory: TensorDictBase,
        seen: SlotTasks,
        own: Tensor | None,
        who: Tensor,
        station: Tensor,
        theirs: Own,
        coefficients: Coefficients,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Decisions in K imagined slots, int64 `[R, N]`, and what is remembered of each.

        Args:
            td, memory: as K slots begin. seen: their tasks, valid where they are heard of afterwards.
            own: of which stations they are, bool `[K, B]`; None: of all. who, station, theirs: see `imagined.in_turn`.
            coefficients: the network.
        """
        slot, begun = self._imagined(td, memory, seen, own is not None, coefficients)
        spans = self._spans(td, memory, own)
        chosen, after = decided(slot, begun, heard.mixed(spans), who, station, theirs, coefficients)
        new = {**memory, **self._remembered(after)}
        if self.learns:
            new |= {"spans": spans, **_heard(memory).learnt(seen, own)._asdict()}
        return chosen, new

    def _imagined(
        self, td: TensorDictBase, memory: TensorDictBase, seen: SlotTasks, alone: bool, coefficients: Coefficients
    ) -> tuple[Slot, FleetState]:
        """Slots as they are imagined, and fleets as they begin. Args: alone: see `Heard.imagined`."""
        b = seen.valid.shape[1]
        offered = None
        if self.learns:
            law = None if self.workload is None else self._dream(td, b)
            known = _heard(memory)
            dream, chance = known.imagined(law, td["agents", "home"][..., :1], alone)
            works = (chance.unsqueeze(1) * dream.work_gcycles).sum((1, 2))
            offered = torch.stack([b * chance.sum(-1), works], -1).masked_fill(known.slots == 0, torch.nan)
        else:
            dream, chance = self._dream(td, b)
        delay, service = costs_of(dream, td)
        begun = self._start(td, memory, seen, coefficients, offered)
        expected = begun.whole.tasks * begun.whole.number / b
        return Slot(delay, service, chance.expand(len(delay), -1), expected), begun

    def _dream(self, td: TensorDictBase, stations: int) -> tuple[SlotTasks, Tensor]:
        """Tasks that all stations may have by the law, `[E, B, N]`, and the chances that a station has them, `[N]`."""
        if self.workload is None:
            raise InputError(
                "a stale fleet policy that does not learn imagines the other stations' tasks, so its scenario needs a "
                f"workload of kind 'lad-ts' where there are several stations, here {stations}"
            )
        return possible_tasks(self.workload, td["shared_seed"], td["agents", "home"])


def _heard(memory: TensorDictBase) -> Heard:
    return Heard(*(memory[name] for name in Heard._fields))


def _fresh(shapes: dict[str, tuple[int, ...]], e: int, device: torch.device | None = None) -> TensorDict:
    """Memories before anything was seen. Args: shapes: of one environment. e: environments."""
    values = {name: torch.zeros(e, *shape, dtype=torch.float64, device=device) for name, shape in shapes.items()}
    values["latent"] += 1 / LATENTS
    return TensorDict(values, batch_size=[e])


def refuse_unpriced(total: float) -> None:
    """Raises InputError if what is remembered of prices is not finite. Args: total: of it."""
    if not math.isfinite(total):
        raise InputError("the prices' coefficients are not finite: the policy's parameters are not")


def _by_capacity(td: TensorDictBase) -> Tensor:
    """Servers from the slowest on, of equals the one with the slowest link, int64 `[E, S]`."""
    order: Tensor = td["servers", "rate_mbit_per_s"].argsort(dim=-1, stable=True)
    return order.gather(-1, td["servers", "capacity_gcycles_per_s"].gather(-1, order).argsort(dim=-1, stable=True))
