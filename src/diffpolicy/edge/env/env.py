"""`OffloadingEnv`: the edge-AIGC offloading problem as a batched TorchRL environment; one step is one slot."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy.edge.env.measured_tasks import service_tables
from diffpolicy.edge.env.observation import Sight
from diffpolicy.edge.env.request_sources import Source, make_source
from diffpolicy.edge.env.slot_sources import TaskListSource
from diffpolicy.edge.information import LEVELS as LEVELS
from diffpolicy.edge.information import Information as Information
from diffpolicy.edge.information import shared_seeds
from diffpolicy.edge.physics.down_time import DownTime
from diffpolicy.edge.physics.file_steps import FileSteps
from diffpolicy.edge.physics.queueing import (
    ServerSpeeds,
    SlotTasks,
    next_queue_gcycles,
    slot_delays_s,
    work_sent_gcycles,
)
from diffpolicy.edge.physics.service import ServiceState
from diffpolicy.edge.physics.slot_grid import SlotGrid
from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.edge.workload.seeds import Stream
from diffpolicy.edge.workload.task_file import TaskList
from diffpolicy.errors import InputError


class OffloadingEnv(EnvBase):
    """Stations send each of a slot's tasks to a server; the reward of a task is minus its service delay in seconds.

    Batch `[E]`; B stations as agents, each with up to N tasks a slot under the mask `valid`; S servers. Environment e
    plays the episodes e, e + E, e + 2E, ... What arrives in episode k depends on (scenario, seed, stream, k) alone.
    There are no terminal states: the horizon is a truncation, and the slot after it can be observed. It is the
    problem of LAD-TS (arXiv 2412.18212).

    Args:
        scenario: servers, stations, slots and workload.
        batch_size: `[E]`.
        seed: of the arrivals, at least 0.
        information: what a decision may use. `paper`: `("agents", "observation")` = input size, work, slot-start
            queues. `private`: also capacities, rates, availability, result sizes, homes, a seed shared by the
            stations, and how far apart each one's arrivals of the slot before lay; a station's decisions may use its
            own arrivals alone. `stale`: the same keys; also those of all stations in earlier slots. `live`: also the
            order of arrival over all stations, in which decisions may be taken one after the other.
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
        check.choice(information, "information", LEVELS)
        if first_episode < 0:
            raise InputError(f"first_episode must be at least 0, got {first_episode}")
        if seed < 0:
            raise InputError(f"seed must be at least 0, got {seed}")
        device = None if device is None else torch.device(device)
        super().__init__(device=device, batch_size=size)
        self.scenario, self.information = scenario, information
        self.dtype = dtype
        self.fleet = ServerSpeeds(
            torch.tensor([s.capacity_gcycles_per_s for s in scenario.servers], dtype=dtype, device=device),
            torch.tensor([s.rate_mbit_per_s for s in scenario.servers], dtype=dtype, device=device),
        )
        self._tasks = tasks
        self.source: Source = make_source(scenario, tasks, seed, stream, dtype, device)
        check.product(
            {
                "environments": size[0],
                "stations": len(scenario.stations),
                "tasks": self.source.max_tasks,
                "(servers + 2)": len(scenario.servers) + 2,
            },
            _limits.CELLS,
            "the numbers that an environment shows in a step",
        )
        self.service = service_tables(scenario, self.source.models, {"dtype": dtype, "device": device})
        self._first_episode, self._stride = first_episode, size[0]
        self._next_episode = [first_episode + e for e in range(size[0])]
        self._episode = list(self._next_episode)
        self._slot = [0] * size[0]
        self._queue = torch.zeros(size[0], len(scenario.servers), dtype=dtype, device=device)
        self._state = ServiceState.fresh(size[0], len(scenario.servers), dtype, device)
        self._clock_s = torch.zeros(size[0], dtype=torch.float64)
        self._down = DownTime([server.availability for server in scenario.servers], seed, stream, self._queue)
        self._sight = Sight(information, self.fleet, self.service, self._down.places > 0, device)
        self._grid: SlotGrid | None = None
        self._make_specs()

    # What it looks like

    def _make_specs(self) -> None:
        e, b, s = self.batch_size[0], len(self.scenario.stations), len(self.scenario.servers)
        n = self.source.max_tasks + self._down.places
        self.observation_spec = self._sight.spec(e, b, n)
        action = Categorical(s, (e, b, n), dtype=torch.int64, device=self.device)
        self.action_spec = Composite(agents=Composite(action=action, shape=(e, b)), shape=(e,))
        reward = Unbounded((e, b, n), dtype=self.dtype, device=self.device)
        self.reward_spec = Composite(agents=Composite(reward=reward, shape=(e, b)), shape=(e,))
        flag = {"dtype": torch.bool, "device": self.device}
        done = {name: Binary(1, (e, 1), **flag) for name in ("done", "terminated", "truncated")}
        self.done_spec = Composite(done, shape=(e,))

    def observe(self) -> TensorDict:
        """What may be seen of the present slot, at this environment's level of information; batch `[E]`."""
        grid, shared, span = self.grid, None, None
        if self.information != "paper":
            span = self.source.last_span(self._slot)
            seed, stream = self.source.seed or 0, int(self.source.stream or 0)
            shared = torch.tensor(shared_seeds(seed, stream, self._episode, self._slot), device=self.device)[:, None]
        return self._sight.see(grid, self._queue, self.up, self._state, self._down.task, shared, span)

    @property
    def grid(self) -> SlotGrid:
        """The tasks of the present slot."""
        if self._grid is None:
            self._grid = self._down.place(self.source.slot(self._episode, self._slot), self._clock_s)
        return self._grid

    @property
    def up(self) -> Tensor:
        """Which servers are up at the start of the present slot, bool `[E, S]`."""
        return self._down.left_s <= 0

    @property
    def queue_gcycles(self) -> Tensor:
        """Work queued on each server at the start of the present slot, `[E, S]`."""
        return self._queue

    def file_steps(self) -> FileSteps | None:
        """The task file as pure physics plays it; None without one, and where that is not all that happens."""
        pure = isinstance(self.source, TaskListSource) and self._down.places == 0 and self.dtype == torch.float64
        return self.source.steps(self.fleet) if pure and isinstance(self.source, TaskListSource) else None

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
                self._down.reset(e)
        keep = self._flags([not now for now in chosen]).unsqueeze(-1)
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
        waits = self._queue + self.fleet.capacity_gcycles_per_s * self._down.left_s
        if self.service is None:
            delay_s = slot_delays_s(server, tasks, waits, self.fleet)
            sent = work_sent_gcycles(server, tasks.work_gcycles, self._queue.shape[-1])
        else:
            measured = grid.measured_in_order()
            through_s, sent, state = self.service.play(server, measured, tasks.valid, waits, self._state, self.fleet)
            delay_s = through_s + self._transfer_s(server, tasks)
            self._state = state.later(grid.duration_s)
        cost_s = self._down.charge(grid, tensordict["agents", "action"], grid.unpack(delay_s), self._clock_s)
        self._queue = next_queue_gcycles(waits, sent, self.fleet, grid.duration_s)
        before_s = self._clock_s
        self._clock_s = before_s + grid.clock_s
        self._slot = [t + 1 for t in self._slot]
        self._grid = None
        self._find_outages(before_s)
        horizon = self.source.slots
        truncated = self._flags([horizon is not None and t >= horizon for t in self._slot])
        result = self.observe()
        result["agents", "reward"] = -cost_s
        terminated = torch.zeros(self.batch_size[0], 1, dtype=torch.bool, device=self.device)
        truncated = truncated.unsqueeze(-1)
        return result.update({"done": truncated.clone(), "terminated": terminated, "truncated": truncated})

    def _flags(self, values: list[bool]) -> Tensor:
        """Flags of the environments, bool `[E]`; where all are alike, as they mostly are, nothing is copied."""
        if len(set(values)) == 1:
            return torch.full((len(values),), values[0], device=self.device)
        return torch.tensor(values, device=self.device)

    def _transfer_s(self, server: Tensor, tasks: SlotTasks) -> Tensor:
        """Seconds on the links, `[E, K]`, zero where not valid."""
        v = self.fleet.rate_mbit_per_s.expand_as(self._queue).gather(-1, server)
        sent = torch.where(server == tasks.origin, 0.0, tasks.input_mbit) + tasks.result_mbit
        return torch.where(tasks.valid, sent / v, 0.0)

    def _find_outages(self, since_s: Tensor | None = None) -> None:
        """Finds who is down now; queues hold no more than what is left of them, and nothing where a server failed."""
        struck = self._down.find(self._episode, self._clock_s, since_s)
        if struck is None:
            return
        left = self._queue - self.fleet.capacity_gcycles_per_s * self._down.left_s
        self._queue = left.clamp_min(0).masked_fill(struck, 0)
        self._state = self._state.where(~struck)

    def _set_seed(self, seed: int | None) -> None:
        if not isinstance(self.source, TaskListSource) and seed is not None:
            self.source.seed = seed
            self._down.reseed(seed)
        self._next_episode = [self._first_episode + e for e in range(self.batch_size[0])]

    def shard(self, rank: int, world: int) -> None:
        """Makes this one of `world` environments alike that share the episodes out; call it before the first reset.

        Environment e then plays the episodes rank E + e, rank E + e + world E, ...

        Args:
            rank: which of them, from 0. world: their number.
        """
        self._first_episode += rank * self.batch_size[0]
        self._stride = world * self.batch_size[0]
        self._next_episode = [self._first_episode + e for e in range(self.batch_size[0])]

    # Saving and restoring

    def digest(self) -> str:
        """SHA-256 of what is played: scenario, seed, stream, level of information and first episode, or the tasks."""
        seed, stream = self.source.seed, self.source.stream
        tasks = () if self._tasks is None else (self._tasks.digest(),)
        told = (self.scenario.digest(), seed, stream, self.information, self._first_episode, *tasks)
        return hashlib.sha256(repr(told).encode()).hexdigest()

    def get_extra_state(self) -> dict[str, Any]:
        """Counters and queues: with them, arrivals included, the environment continues as if nothing had happened."""
        return {
            "seed": self.source.seed,
            "episode": list(self._episode),
            "next_episode": list(self._next_episode),
            "slot": list(self._slot),
            "queue_gcycles": self._queue.clone(),
            "clock_s": self._clock_s.clone(),
            "service": None if self.service is None else {k: v.clone() for k, v in vars(self._state).items()},
            **self._down.state(),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes up what `get_extra_state` gave.

        Args:
            state: of an environment with the same scenario and batch.
        """
        if not isinstance(self.source, TaskListSource):
            self._set_seed(state["seed"])
        self._episode, self._slot = list(state["episode"]), list(state["slot"])
        self._next_episode = list(state["next_episode"])
        self._queue = state["queue_gcycles"].to(self._queue)
        self._clock_s = state["clock_s"].clone()
        if self.service is not None:
            self._state = ServiceState(**{k: v.to(self._queue.device) for k, v in state["service"].items()})
        self._down.restore(state)
        self._grid = None
