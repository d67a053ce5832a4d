"""`OffloadingEnv`: the edge-AIGC offloading problem as a batched TorchRL environment; one step is one slot."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Bounded, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from diffpolicy._validate import show
from diffpolicy.edge.arrivals import SlotGrid, TaskListSource
from diffpolicy.edge.availability import Outages
from diffpolicy.edge.in_flight import RESENDS, Again, InFlight
from diffpolicy.edge.measured_tasks import service_tables
from diffpolicy.edge.queueing import Fleet, SlotTasks, next_queue_gcycles, slot_delays_s, work_sent_gcycles
from diffpolicy.edge.request_source import Source, make_source
from diffpolicy.edge.scenario import Scenario
from diffpolicy.edge.service import ServiceState
from diffpolicy.edge.tasks import TaskList
from diffpolicy.edge.workload import Stream
from diffpolicy.errors import InputError

Information = Literal["paper", "stale", "live"]
LEVELS: tuple[Information, ...] = get_args(Information)


class OffloadingEnv(EnvBase):
    """Stations send each of a slot's tasks to a server; the reward of a task is minus its service delay in seconds.

    Batch `[E]`; B stations as agents, each with up to N tasks a slot under the mask `valid`; S servers. Environment e
    plays the episodes e, e + E, e + 2E, ... What arrives in episode k depends on (scenario, seed, stream, k) alone.
    There are no terminal states: the horizon is a truncation, and the slot after it can be observed.

    Args:
        scenario: servers, stations, slots and workload.
        batch_size: `[E]`.
        seed: of the arrivals, at least 0.
        information: what a decision may use. `paper`: `("agents", "observation")` = input size, work, slot-start
            queues. `stale`: also capacities, rates, availability, result sizes, homes and a seed shared by the
            stations. `live`: also the order of arrival over all stations, in which decisions may be taken one after
            the other.
        stream: evaluation or training episodes; the two never meet.
        tasks: a task file's tasks instead of the workload; then E is 1.
        first_episode: number of environment 0's first episode.
        dtype: of all real tensors. device: of all tensors.

    Raises:
        InputError: the scenario has no workload and no tasks are given, or an argument is out of range.

    Example:
        >>> env = OffloadingEnv(Scenario.load("lad-ts"), batch_size=[8])
        >>> env.rollout(3)["agents", "observation"].shape
        torch.Size([8, 3, 20, 50, 22])
    """

    batch_locked = True

    def __init__(
        self,
        scenario: Scenario,
        batch_size: Any = (1,),
        seed: int = 0,
        *,
        information: Information = "paper",
        stream: Stream = Stream.EVALUATION,
        tasks: TaskList | None = None,
        first_episode: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        size = torch.Size([batch_size] if isinstance(batch_size, int) else batch_size)
        if len(size) != 1 or size[0] < 1:
            raise InputError(f"batch_size must be [E] with E >= 1, got {list(size)}")
        if information not in LEVELS:
            raise InputError(f"information must be one of {', '.join(LEVELS)}, got {show(information)}")
        if first_episode < 0:
            raise InputError(f"first_episode must be at least 0, got {first_episode}")
        if seed < 0:
            raise InputError(f"seed must be at least 0, got {seed}")
        device = None if device is None else torch.device(device)
        super().__init__(device=device, batch_size=size)
        self.scenario, self.information = scenario, information
        self.dtype = dtype
        self.fleet = Fleet(
            torch.tensor([s.capacity_gcycles_per_s for s in scenario.servers], dtype=dtype, device=device),
            torch.tensor([s.rate_mbit_per_s for s in scenario.servers], dtype=dtype, device=device),
        )
        self.source: Source = make_source(scenario, tasks, seed, stream, dtype, device)
        self.service = service_tables(scenario, self.source.models, {"dtype": dtype, "device": device})
        outages = [server.availability for server in scenario.servers]
        self._outages = None if all(x is None for x in outages) else Outages(outages, seed, stream)
        self._flight = None if self._outages is None else InFlight(size[0])
        self._first_episode, self._stride = first_episode, size[0]
        self._next_episode = [first_episode + e for e in range(size[0])]
        self._episode = list(self._next_episode)
        self._slot = [0] * size[0]
        self._queue = torch.zeros(size[0], len(scenario.servers), dtype=dtype, device=device)
        self._state = ServiceState.fresh(size[0], len(scenario.servers), dtype, device)
        self._clock_s = torch.zeros(size[0], dtype=torch.float64)
        self._outage_s = torch.zeros_like(self._queue)
        self._grid: SlotGrid | None = None
        self._again: Again | None = None
        self._make_specs()

    # What it looks like

    def _make_specs(self) -> None:
        e, b, s = self.batch_size[0], len(self.scenario.stations), len(self.scenario.servers)
        n = self.source.max_tasks + (RESENDS if self._flight is not None else 0)
        seen = 2 + s if self.service is None else 2 + 2 * s
        like = {"dtype": self.dtype, "device": self.device}
        integer = {"dtype": torch.int64, "device": self.device}
        flag = {"dtype": torch.bool, "device": self.device}
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
            if self.service is not None:
                models = max(len(self.source.models), 1)
                agents["service_s"] = Unbounded((e, b, n, s), **like)
                agents["model"] = Bounded(-1, models - 1, (e, b, n), **integer)
                root["servers"]["loaded"] = Bounded(-1, models - 1, (e, s), **integer)
        if self._flight is not None:
            agents["task"] = Unbounded((e, b, n), **integer)
        if self.information == "live":
            agents["arrival"] = Bounded(0, b * n, (e, b, n), **integer)
        root["agents"] = Composite(agents, shape=(e, b))
        self.observation_spec = Composite(root, shape=(e,))
        self.action_spec = Composite(
            agents=Composite(action=Categorical(s, (e, b, n), **integer), shape=(e, b)), shape=(e,)
        )
        self.reward_spec = Composite(agents=Composite(reward=Unbounded((e, b, n), **like), shape=(e, b)), shape=(e,))
        done = {name: Binary(1, (e, 1), **flag) for name in ("done", "terminated", "truncated")}
        self.done_spec = Composite(done, shape=(e,))

    def observe(self) -> TensorDict:
        """What may be seen of the present slot, at this environment's level of information; batch `[E]`."""
        grid = self.grid
        e, b, n = grid.valid.shape
        s = self._queue.shape[-1]
        parts = [
            torch.stack([grid.input_mbit, grid.work_gcycles], -1),
            self._queue[:, None, None].expand(e, b, n, s),
        ]
        service_s = None
        if self.service is not None:
            assert grid.measured is not None
            service_s = self.service.present_s(grid.measured, self._state)
            parts.append(service_s)
        up = self.up
        agents = {
            "observation": torch.cat(parts, -1),
            "valid": grid.valid.clone(),
            "action_mask": (up | ~up.any(-1, keepdim=True))[:, None].expand(e, b, s).clone(),
            "input_mbit": grid.input_mbit.clone(),
            "work_gcycles": grid.work_gcycles.clone(),
        }
        root: dict[str, Any] = {"queue_gcycles": self._queue.clone()}
        if self.information != "paper":
            agents["result_mbit"] = grid.result_mbit.clone()
            agents["home"] = grid.home.clone()
            root["servers"] = TensorDict(
                capacity_gcycles_per_s=self.fleet.capacity_gcycles_per_s.expand(e, s).clone(),
                rate_mbit_per_s=self.fleet.rate_mbit_per_s.expand(e, s).clone(),
                up=(up | ~up.any(-1, keepdim=True)).clone(),
                batch_size=[e],
            )
            root["shared_seed"] = self._shared_seed()
            if service_s is not None and grid.measured is not None:
                agents["service_s"], agents["model"] = service_s.clone(), grid.measured.model.clone()
                root["servers"]["loaded"] = self._state.loaded.clone()
        if self._again is not None:
            agents["task"] = self._again.task.clone()
        if self.information == "live":
            rank = torch.arange(grid.order.shape[1], device=self.device).expand_as(grid.order)
            last = torch.full((e, b * n), b * n, dtype=torch.int64, device=self.device)
            arrival = last.scatter(1, grid.order, rank).view(e, b, n)
            agents["arrival"] = torch.where(grid.valid, arrival, b * n)
        root["agents"] = TensorDict(agents, batch_size=[e, b], device=self.device)
        return TensorDict(root, batch_size=self.batch_size, device=self.device)

    def _shared_seed(self) -> Tensor:
        """A number per environment and slot that all stations know: 63 bits mixed of (seed, stream, episode, slot)."""
        of_run = _mix(_mix(getattr(self.source, "seed", 0)) ^ int(getattr(self.source, "stream", 0)))
        mixed = [_mix(_mix(of_run ^ k) ^ t) for k, t in zip(self._episode, self._slot, strict=True)]
        return torch.tensor(mixed, dtype=torch.int64, device=self.device).unsqueeze(-1)

    @property
    def grid(self) -> SlotGrid:
        """The tasks of the present slot."""
        if self._grid is None:
            self._grid = self.source.slot(self._episode, self._slot)
            if self._flight is not None:
                self._grid, self._again = self._flight.place(self._grid, self._clock_s.to(self.dtype))
        return self._grid

    @property
    def up(self) -> Tensor:
        """Which servers are up at the start of the present slot, bool `[E, S]`."""
        return self._outage_s <= 0

    @property
    def queue_gcycles(self) -> Tensor:
        """Work queued on each server at the start of the present slot, `[E, S]`."""
        return self._queue

    # What happens

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDict:
        chosen = [True] * self.batch_size[0]
        if tensordict is not None and "_reset" in tensordict.keys():
            chosen = tensordict["_reset"].view(-1).tolist()
        for e, now in enumerate(chosen):
            if now:
                self._episode[e] = self._next_episode[e]
                self._next_episode[e] += self._stride
                self._slot[e] = 0
                self._clock_s[e] = self.source.start_s(self._episode[e])
                if self._flight is not None:
                    self._flight.reset(e)
        keep = torch.tensor([not now for now in chosen], device=self.device).unsqueeze(-1)
        self._queue = self._queue * keep
        self._state = self._state.where(keep)
        self._grid = None
        self._find_outages()
        done = torch.zeros(self.batch_size[0], 1, dtype=torch.bool, device=self.device)
        result = self.observe()
        return result.update({"done": done, "terminated": done.clone(), "truncated": done.clone()})

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        grid = self.grid
        tasks = grid.in_order()
        server = grid.pack(tensordict["agents", "action"])
        waits = self._queue + self.fleet.capacity_gcycles_per_s * self._outage_s
        if self.service is None:
            delay_s = slot_delays_s(server, tasks, waits, self.fleet)
            sent = work_sent_gcycles(server, tasks.work_gcycles, self._queue.shape[-1])
        else:
            measured = grid.measured_in_order()
            through_s, sent, state = self.service.play(server, measured, tasks.valid, waits, self._state, self.fleet)
            delay_s = through_s + self._transfer_s(server, tasks)
            self._state = state.later(grid.duration_s)
        cost_s = grid.unpack(delay_s)
        if self._flight is not None and self._again is not None:
            action, clock, columns = tensordict["agents", "action"], self._clock_s.to(self.dtype), self.source.max_tasks
            self._flight.depart(grid, self._again, action, cost_s, clock, columns)
            cost_s = torch.where(grid.valid, cost_s + self._again.age_s - self._again.counted_s, 0.0)
        self._queue = next_queue_gcycles(waits, sent, self.fleet, grid.duration_s)
        before_s = self._clock_s
        self._clock_s = before_s + grid.duration_s.squeeze(-1).cpu().double()
        self._slot = [t + 1 for t in self._slot]
        self._grid = None
        self._find_outages(before_s)
        horizon = self.source.slots
        truncated = torch.tensor([horizon is not None and t >= horizon for t in self._slot], device=self.device)
        result = self.observe()
        result["agents", "reward"] = -cost_s
        terminated = torch.zeros(self.batch_size[0], 1, dtype=torch.bool, device=self.device)
        truncated = truncated.unsqueeze(-1)
        return result.update({"done": truncated.clone(), "terminated": terminated, "truncated": truncated})

    def _transfer_s(self, server: Tensor, tasks: SlotTasks) -> Tensor:
        """Seconds on the links, `[E, K]`, zero where not valid."""
        v = self.fleet.rate_mbit_per_s.expand_as(self._queue).gather(-1, server)
        sent = torch.where(server == tasks.origin, 0.0, tasks.input_mbit) + tasks.result_mbit
        return torch.where(tasks.valid, sent / v, 0.0)

    def _find_outages(self, since_s: Tensor | None = None) -> None:
        """Who is down now, and what failures since then took back; queues hold no more than what is left of them."""
        if self._outages is None or self._flight is None:
            return
        e, s = self._queue.shape
        down = torch.zeros(e, s, dtype=torch.float64)
        struck = torch.zeros(e, s, dtype=torch.bool)
        for i, episode in enumerate(self._episode):
            now = float(self._clock_s[i])
            for a, timeline in enumerate(self._outages.of(episode)):
                down[i, a] = timeline.back_s(now) - now
                failure_s = now if since_s is None else timeline.failure_s(float(since_s[i]), now)
                if since_s is not None and failure_s <= now:
                    struck[i, a] = True
                    self._flight.strike(i, a, failure_s)
        self._flight.prune(self._clock_s.to(self.dtype))
        struck = struck.to(self._queue.device)
        self._outage_s = down.to(self._queue)
        left = self._queue - self.fleet.capacity_gcycles_per_s * self._outage_s
        self._queue = left.clamp_min(0).masked_fill(struck, 0)
        self._state = self._state.where(~struck)

    def _set_seed(self, seed: int | None) -> None:
        if not isinstance(self.source, TaskListSource) and seed is not None:
            self.source.seed = seed
            if self._outages is not None:
                self._outages = Outages(self._outages.servers, seed, self._outages.stream)
        self._next_episode = [self._first_episode + e for e in range(self.batch_size[0])]

    def shard(self, rank: int, world: int) -> None:
        """Makes this one of `world` environments alike that share the episodes out; call it before the first reset.

        Environment e then plays the episodes rank E + e, rank E + e + world E, ...
        """
        self._first_episode += rank * self.batch_size[0]
        self._stride = world * self.batch_size[0]
        self._next_episode = [self._first_episode + e for e in range(self.batch_size[0])]

    # Saving and restoring

    def get_extra_state(self) -> dict[str, Any]:
        """Counters and queues: with them, arrivals included, the environment continues as if nothing had happened."""
        return {
            "seed": getattr(self.source, "seed", None),
            "episode": list(self._episode),
            "next_episode": list(self._next_episode),
            "slot": list(self._slot),
            "queue_gcycles": self._queue.clone(),
            "clock_s": self._clock_s.clone(),
            "outage_s": self._outage_s.clone(),
            "service": None if self.service is None else {k: v.clone() for k, v in vars(self._state).items()},
            "in_flight": None if self._flight is None else self._flight.state(),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes up what `get_extra_state` gave."""
        if not isinstance(self.source, TaskListSource):
            self._set_seed(state["seed"])
        self._episode, self._slot = list(state["episode"]), list(state["slot"])
        self._next_episode = list(state["next_episode"])
        self._queue = state["queue_gcycles"].to(self._queue)
        self._clock_s, self._outage_s = state["clock_s"].clone(), state["outage_s"].to(self._outage_s)
        if self.service is not None:
            self._state = ServiceState(**{k: v.to(self._queue.device) for k, v in state["service"].items()})
        if self._flight is not None:
            self._flight.restore(state["in_flight"])
        self._grid = None


def _mix(x: int) -> int:
    """SplitMix64's finaliser, kept to 63 bits."""
    x = (x + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (x ^ (x >> 31)) >> 1
