"""From what a station or a dispatcher sees to priced decisions: in order of arrival, or by imagined slots."""

from __future__ import annotations

import copy
import math
from typing import Any, TypeVar

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from diffpolicy._types import Ints
from diffpolicy.edge.physics.file_steps import FileSteps
from diffpolicy.edge.physics.queueing import SlotTasks
from diffpolicy.edge.pricing import heard
from diffpolicy.edge.pricing.beginning import begun
from diffpolicy.edge.pricing.chains import GatedChain, PriceChain
from diffpolicy.edge.pricing.imagined import Own
from diffpolicy.edge.pricing.imagining import Imagining
from diffpolicy.edge.pricing.law import Coefficients
from diffpolicy.edge.pricing.memory import FleetMemory, of_servers
from diffpolicy.edge.pricing.slot import costs_of, tasks_of, turns
from diffpolicy.edge.pricing.state import Queue, form_of
from diffpolicy.edge.pricing.told import Told
from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.edge.workload.task_file import TaskList
from diffpolicy.errors import InputError
from diffpolicy.policies.draws import without_chance
from diffpolicy.policies.recurrent import RecurrentState

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
        self.told = Told()

    def for_scenario(self: Rule, scenario: Scenario) -> Rule:
        """The rule with a scenario's law of arrivals, which a stale rule imagines."""
        return self._telling(self.told.of_scenario(scenario))

    def for_tasks(self: Rule, tasks: TaskList) -> Rule:
        """The rule for a task file: where each step is one request, it is told their mean distance and work."""
        return self._telling(self.told.of_tasks(tasks))

    def _telling(self: Rule, told: Told) -> Rule:
        other = copy.copy(self)
        other.told = told
        return other

    @property
    def memory(self) -> FleetMemory:
        """What is remembered, as the rule now hears and learns."""
        return FleetMemory(self.information, self.learns)

    def primer(self, servers: int, stations: int = 1, tasks: int = 1) -> RecurrentState:
        """The recurrent keys `("fleet", ...)`. Args: stations, tasks: B and N, of which a live rule keeps nothing."""
        return self.memory.primer(servers, stations, tasks)

    @property
    def remembers(self) -> tuple[str, ...]:
        """Names of the recurrent keys in `"fleet"`."""
        return tuple(self.memory.shapes(1))

    def decide(self, td: TensorDictBase, coefficients: Coefficients, generator: torch.Generator) -> Tensor:
        """Servers, int64 `[E, B, N]`; writes `("next", "fleet", ...)`."""
        valid: Tensor = td["agents", "valid"]
        seen = tasks_of(td)
        delay, service = costs_of(seen, td, td.get(("agents", "service_s"), None))
        if self._in_order(valid.shape[1]):
            return self._decide_in_order(td, seen, delay, service, coefficients, generator)
        mine = valid.flatten(0, 1)
        longest = int(mine.sum(-1).max())
        own = Own(
            delay.flatten(0, 1)[:, :longest],
            service.flatten(0, 1)[:, :longest],
            mine[:, :longest],
            self._drawn(torch.Size([len(mine), longest]), td, generator),
        )
        chosen = self._imagining(coefficients).decide(td, seen, own)
        action = torch.zeros(valid.shape, dtype=torch.int64, device=valid.device)
        action[..., :longest] = chosen.view(*valid.shape[:2], longest)
        return action

    def _imagining(self, coefficients: Coefficients) -> Imagining:
        """How stations decide that do not hear of each other in time."""
        return Imagining(self.memory, self.told, coefficients, self.weight)

    def _in_order(self, stations: int) -> bool:
        """Whether tasks are placed as they arrive, since nothing that came before is hidden."""
        return self.information == "live" or stations == 1 or self.told.usual is not None

    def _decide_in_order(
        self,
        td: TensorDictBase,
        seen: SlotTasks,
        delay: Tensor,
        service: Tensor,
        coefficients: Coefficients,
        generator: torch.Generator,
    ) -> Tensor:
        """`decide`, each task seeing what those before it left. Args: delay, service: of `costs_of`."""
        valid = seen.valid
        e, b, n = valid.shape
        arrival = td.get(("agents", "arrival"), None)
        if b == 1 or arrival is None:
            arrival = torch.arange(b * n, device=valid.device).view(1, b, n).expand(e, b, n)
        flat = valid.flatten(1)
        order = arrival.flatten(1).masked_fill(~flat, b * n).argsort(dim=-1, stable=True)
        order = order[:, : int(flat.sum(-1).max())]
        stations = b if self.told.usual is None else 1
        each = self.memory.of(td)
        memory = self.memory.of_dispatcher(each, b)
        state = begun(td, memory, seen, self.told, coefficients, self.weight)
        spans = self.memory.spans(td, memory)
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
        new = of_servers(state)
        if self.learns:
            new["spans"] = spans
        if memory is not each:
            new = {name: x.unsqueeze(1).expand(-1, b, *x.shape[1:]) for name, x in new.items()}
        td["next", "fleet"] = TensorDict({**each, **new}, batch_size=td.batch_size)
        action = torch.zeros(e, b * n, dtype=torch.int64, device=valid.device).scatter(1, order, chosen)
        return action.view(e, b, n)

    def decide_file(self, steps: FileSteps, first: TensorDictBase, coefficients: Coefficients) -> Ints | None:
        """All decisions of a task file at once, `[K]`; None: there is no compiled form of how this rule decides.

        Args:
            steps: the file. first: what is seen of its first step. coefficients: the network.

        Raises:
            InputError: the prices' coefficients are not finite.
        """
        all_of_them = self.candidates is None or self.candidates >= len(steps.fleet.rate_mbit_per_s)
        if type(self) is not FleetRule or not self._in_order(steps.stations) or not all_of_them:
            return None
        if (
            not isinstance(coefficients, PriceChain | GatedChain)
            or form_of(coefficients, first["queue_gcycles"]) is None
        ):
            return None
        from diffpolicy.edge.pricing.whole_file import play

        memory = self.memory.of_dispatcher(self.memory.of(first), steps.stations)
        state = begun(first, memory, tasks_of(first), self.told, coefficients, self.weight)
        order = _by_capacity(first)[0]
        single = self.told.usual is not None
        chosen, latent = play(steps, state, order, coefficients, single=single, learns=self.learns)
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


def refuse_unpriced(total: float) -> None:
    """Raises InputError if what is remembered of prices is not finite. Args: total: of it."""
    if not math.isfinite(total):
        raise InputError("the prices' coefficients are not finite: the policy's parameters are not")


def _by_capacity(td: TensorDictBase) -> Tensor:
    """Servers from the slowest on, of equals the one with the slowest link, int64 `[E, S]`."""
    order: Tensor = td["servers", "rate_mbit_per_s"].argsort(dim=-1, stable=True)
    return order.gather(-1, td["servers", "capacity_gcycles_per_s"].gather(-1, order).argsort(dim=-1, stable=True))
